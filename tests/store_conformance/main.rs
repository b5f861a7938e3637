//! One suite for every store: each rule that `store.rs` documents, as the store's callers see it.

#![cfg(all(feature = "server", feature = "sqlite", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "postgres")]
#[path = "../support/postgres.rs"]
mod postgres_server;
#[path = "../support/store.rs"]
mod support;

use std::sync::Arc;

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Acquired, Commit, FaultyStore, LapsedLease, Lease, Leases, LockId, MemoryStore, ServerId,
        SqliteStore, Store, StoreError, Then, Write,
    },
};
use bytes::Bytes;
use support::{ADA, BOB, Server, Session, boot, document, lock_lost};

/// Runs each rule against each store.
macro_rules! conformance {
    ($($rule:ident,)*) => {
        conformance!(memory, Rows::in_memory(false), $($rule)*);
        conformance!(sqlite, Rows::in_sqlite(false), $($rule)*);
        #[cfg(feature = "postgres")]
        conformance!(postgres, Rows::in_postgres(), $($rule)*);
        conformance!(faultless_over_memory, Rows::in_memory(true), $($rule)*);
        conformance!(faultless_over_sqlite, Rows::in_sqlite(true), $($rule)*);
    };
    ($store:ident, $rows:expr, $($rule:ident)*) => {
        mod $store {
            use super::*;

            $(
                #[tokio::test]
                async fn $rule() {
                    super::$rule($rows).await;
                }
            )*
        }
    };
}

mod receipts;
mod wishes;

conformance! {
    a_lease_registers_the_server_and_each_further_one_raises_its_beat,
    a_lease_shows_every_server,
    leases_can_be_read_without_raising_one,
    a_server_cannot_change_its_name,
    two_live_servers_of_one_name_are_refused,
    two_live_servers_of_one_name_are_refused_within_one_process,
    odd_names_are_names,
    a_crashed_servers_name_and_locks_are_free_for_its_successor_at_once,
    a_crashed_server_keeps_its_locks_from_servers_of_other_names,
    a_retired_servers_name_and_locks_are_free,
    retiring_twice_or_without_a_row_succeeds,
    a_lease_after_retiring_registers_anew,
    a_free_lock_is_granted_and_creates_the_row,
    a_lock_needs_the_lease_of_its_own_server,
    a_lock_of_all_zeros_is_rejected,
    a_held_lock_is_refused_and_names_its_holder,
    an_acquire_that_is_repeated_changes_nothing,
    the_same_lock_id_on_another_server_is_another_lock,
    a_lapsed_lease_gives_its_locks_away,
    a_lapsed_lease_whose_beat_has_moved_keeps_its_locks,
    a_lapsed_lease_says_nothing_about_other_servers,
    a_request_that_was_held_up_while_its_server_went_on_locks_nobody,
    an_orphan_of_the_same_server_is_taken_over,
    an_orphan_of_another_server_or_of_another_id_is_not_taken_over,
    a_refused_acquire_changes_nothing,
    a_fence_only_rises,
    two_acquires_at_once_have_one_winner,
    a_write_is_stored_and_counted,
    a_write_without_a_document_leaves_the_document,
    an_empty_document_is_not_an_absent_one,
    a_commit_inserts_no_player,
    a_write_with_another_fence_is_refused,
    a_write_with_anothers_lock_is_refused,
    a_write_that_has_landed_succeeds_again_and_changes_nothing,
    a_lower_sequence_number_is_superseded,
    a_sequence_number_may_skip,
    a_release_frees_the_lock,
    a_release_whose_reply_was_lost_succeeds_again,
    a_late_older_write_after_the_release_is_superseded,
    a_newer_write_after_the_release_has_lost_its_lock,
    a_late_release_does_not_free_the_next_sessions_lock,
    the_fence_is_judged_before_the_sequence_number,
    two_writes_land_together,
    two_writes_fail_together,
    a_repeated_commit_of_two_writes_changes_nothing,
    the_first_refused_write_names_the_error,
    a_player_who_is_written_twice_is_rejected,
    a_sequence_number_of_zero_is_rejected,
    a_commit_without_writes_succeeds,
    a_write_by_a_server_whose_row_is_gone_still_counts,
    peeking_takes_no_lock,
    peeking_at_nobody_finds_nothing,
    peeking_shows_a_lock_whose_server_is_gone,
    listing_goes_page_by_page_in_ascending_order,
    erasing_a_free_player_deletes_the_row,
    erasing_nobody_says_so,
    erasing_a_locked_player_is_refused,
    erasing_a_player_whose_server_is_gone_succeeds,
    a_write_after_the_player_was_erased_has_lost_its_lock,
    many_requests_at_once_are_all_answered,
}

async fn a_lease_registers_the_server_and_each_further_one_raises_its_beat(rows: Rows) {
    let store = rows.connect();
    let lease = Lease {
        server: ServerId::random(),
        name: "arena".to_owned(),
        lapsed: Vec::new(),
    };
    for beat in 1..=3 {
        let leases = store.lease(lease.clone()).await.unwrap();
        assert_eq!(beat_of(&leases, lease.server), Some(beat));
        assert_eq!(leases.servers.len(), 1, "one boot has one row");
        assert_eq!(leases.servers[0].name, "arena");
    }
}

async fn a_lease_shows_every_server(rows: Rows) {
    let a = rows.server("a").await;
    let b = rows.server("b").await;
    let leases = b.beat().await.unwrap();
    assert_eq!(
        beat_of(&leases, a.id),
        Some(1),
        "another server's beat is left alone"
    );
    assert_eq!(beat_of(&leases, b.id), Some(2));
}

async fn leases_can_be_read_without_raising_one(rows: Rows) {
    let a = rows.server("a").await;
    for _ in 0..2 {
        let leases = rows.connect().leases().await.unwrap();
        assert_eq!(beat_of(&leases, a.id), Some(1));
        assert_eq!(leases.servers.len(), 1, "whoever only looks is no server");
    }
}

async fn a_server_cannot_change_its_name(rows: Rows) {
    let a = rows.server("a").await;
    let renamed = Lease {
        server: a.id,
        name: "b".to_owned(),
        lapsed: Vec::new(),
    };
    assert!(matches!(
        a.store.lease(renamed).await,
        Err(StoreError::Rejected { .. })
    ));
    rows.server("b").await;
    assert_eq!(
        beat_of(&a.beat().await.unwrap(), a.id),
        Some(2),
        "the refused lease was no beat"
    );
}

async fn two_live_servers_of_one_name_are_refused(rows: Rows) {
    let first = rows.server("arena").await;
    let second = rows.connect();
    let refused = second.lease(boot("arena")).await.unwrap_err();
    assert_eq!(
        refused,
        StoreError::NameTaken {
            name: "arena".to_owned()
        }
    );
    let leases = first.beat().await.unwrap();
    assert_eq!(leases.servers.len(), 1, "the newcomer left no row");
    assert_eq!(
        beat_of(&leases, first.id),
        Some(2),
        "the first server kept its row"
    );
}

async fn two_live_servers_of_one_name_are_refused_within_one_process(rows: Rows) {
    let first = rows.server("arena").await;
    let refused = first.store.lease(boot("arena")).await.unwrap_err();
    assert_eq!(
        refused,
        StoreError::NameTaken {
            name: "arena".to_owned()
        }
    );
    first.beat().await.unwrap();
}

async fn odd_names_are_names(rows: Rows) {
    let long = "long ".repeat(100);
    let names = [
        "",
        ".",
        "../escape",
        "a/b",
        "a\\b",
        "über ☃",
        "nul\0byte",
        "'; DROP TABLE players",
        &long,
    ];
    let mut servers = Vec::new();
    for name in names {
        servers.push(rows.server(name).await);
        let refused = rows.connect().lease(boot(name)).await.unwrap_err();
        assert_eq!(
            refused,
            StoreError::NameTaken {
                name: name.to_owned()
            }
        );
    }
    let leases = servers[0].beat().await.unwrap();
    let mut found: Vec<_> = leases.servers.iter().map(|lease| lease.name.as_str()).collect();
    found.sort_unstable();
    let mut expected = names;
    expected.sort_unstable();
    assert_eq!(found, expected);
}

async fn a_crashed_servers_name_and_locks_are_free_for_its_successor_at_once(rows: Rows) {
    let crashed = rows.server("arena").await;
    let mut session = crashed.session(ADA).await;
    session.save("coins").await.unwrap();
    drop((crashed, session.store.take()));

    let successor = rows.successor("arena").await;
    let leases = successor.beat().await.unwrap();
    assert_eq!(
        leases.servers.len(),
        1,
        "the crashed boot's row is gone: {leases:?}"
    );
    let acquired = successor.acquire(ADA).await.unwrap();
    assert_eq!(acquired.document, document("coins"));
    assert_eq!(acquired.fence, session.fence + 1);
    assert_eq!(acquired.taken_from, None, "its lock was free");
}

async fn a_crashed_server_keeps_its_locks_from_servers_of_other_names(rows: Rows) {
    let crashed = rows.server("a").await;
    let mut session = crashed.session(ADA).await;
    let crashed_id = crashed.id;
    drop((crashed, session.store.take()));

    let other = rows.server("b").await;
    assert_eq!(
        beat_of(&other.beat().await.unwrap(), crashed_id),
        Some(1),
        "a crash leaves its row"
    );
    assert_locked_by(other.acquire(ADA).await, "a");
}

async fn a_retired_servers_name_and_locks_are_free(rows: Rows) {
    let retired = rows.server("arena").await;
    let session = retired.session(ADA).await;
    retired.store.retire(retired.id).await.unwrap();

    let other = rows.server("other").await;
    assert_eq!(
        other.beat().await.unwrap().servers.len(),
        1,
        "the retired server's row is gone"
    );
    let acquired = other.acquire(ADA).await.unwrap();
    assert_eq!(acquired.fence, session.fence + 1);
    assert_eq!(acquired.taken_from, None, "its lock was free");
    rows.server("arena").await;
}

async fn retiring_twice_or_without_a_row_succeeds(rows: Rows) {
    let a = rows.server("a").await;
    let b = rows.server("b").await;
    a.store.retire(ServerId::random()).await.unwrap();
    a.store.retire(a.id).await.unwrap();
    a.store.retire(a.id).await.unwrap();
    assert_eq!(
        beat_of(&b.beat().await.unwrap(), b.id),
        Some(2),
        "other servers are left alone"
    );
}

async fn a_lease_after_retiring_registers_anew(rows: Rows) {
    let a = rows.server("a").await;
    a.store.retire(a.id).await.unwrap();
    assert_eq!(beat_of(&a.beat().await.unwrap(), a.id), Some(1));
    let refused = rows.connect().lease(boot("a")).await.unwrap_err();
    assert_eq!(refused, StoreError::NameTaken { name: "a".to_owned() });
}

async fn a_free_lock_is_granted_and_creates_the_row(rows: Rows) {
    let a = rows.server("a").await;
    let acquire = a.request(ADA);
    let acquired = a.store.acquire(acquire.clone()).await.unwrap();
    assert_eq!(
        acquired,
        Acquired {
            fence: 1,
            version: 0,
            document: None,
            taken_from: None
        }
    );

    let record = a.store.peek(ADA).await.unwrap().expect("the row exists");
    let holder = record.lock.clone().expect("the lock is held");
    assert_eq!(
        (holder.lock, holder.server, holder.name.as_deref()),
        (acquire.lock, a.id, Some("a"))
    );
    assert_eq!((record.version, record.fence, record.last_seq), (0, 1, 0));
    assert_eq!(
        (record.document, record.saved_at),
        (None, None),
        "nothing was saved yet"
    );
    assert!(record.created_at > 0);
}

async fn a_lock_needs_the_lease_of_its_own_server(rows: Rows) {
    let a = rows.server("a").await;
    let request = Acquire {
        server: ServerId::random(),
        ..a.request(ADA)
    };
    let refused = a.store.acquire(request).await.unwrap_err();
    assert!(
        refused.is_worth_a_retry(),
        "the next beat mends it, so `{refused}` must be worth a retry"
    );
    assert_eq!(a.store.peek(ADA).await.unwrap(), None, "no row was created");
}

async fn a_lock_of_all_zeros_is_rejected(rows: Rows) {
    let a = rows.server("a").await;
    let request = Acquire {
        lock: LockId::from_bytes([0; 16]),
        ..a.request(ADA)
    };
    assert!(matches!(
        a.store.acquire(request).await,
        Err(StoreError::Rejected { .. })
    ));
    assert_eq!(a.store.peek(ADA).await.unwrap(), None, "no row was created");
}

async fn a_held_lock_is_refused_and_names_its_holder(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut session = a.session(ADA).await;
    assert_locked_by(b.acquire(ADA).await, "a");
    session.save("coins").await.unwrap();
    let refused = b.acquire(ADA).await.unwrap_err();
    let StoreError::SessionLocked { player, holder } = refused else {
        panic!("{refused}")
    };
    assert_eq!((player, holder.lock, holder.server), (ADA, session.lock, a.id));
    assert_locked_by(a.acquire(ADA).await, "a");
    b.acquire(BOB).await.expect("another player is not held up");
}

async fn an_acquire_that_is_repeated_changes_nothing(rows: Rows) {
    let a = rows.server("a").await;
    let acquire = a.request(ADA);
    let first = a.store.acquire(acquire.clone()).await.unwrap();
    assert_eq!(a.store.acquire(acquire.clone()).await.unwrap(), first);

    let mut session = Session::new(&a, &acquire, first.fence);
    session.save("coins").await.unwrap();
    let again = a.store.acquire(acquire).await.unwrap();
    assert_eq!(
        again,
        Acquired {
            fence: 1,
            version: 1,
            document: document("coins"),
            taken_from: None
        }
    );
    assert_eq!(
        session.record().await.last_seq,
        1,
        "the session's sequence goes on"
    );
    session.save("more coins").await.unwrap();
}

async fn the_same_lock_id_on_another_server_is_another_lock(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let acquire = a.request(ADA);
    a.store.acquire(acquire.clone()).await.unwrap();
    assert_locked_by(
        b.store
            .acquire(Acquire {
                server: b.id,
                ..acquire
            })
            .await,
        "a",
    );
}

async fn a_lapsed_lease_gives_its_locks_away(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let lapsed = vec![LapsedLease {
        server: a.id,
        beat: 1,
    }];
    let acquired = b
        .store
        .acquire(Acquire {
            lapsed,
            ..b.request(ADA)
        })
        .await
        .unwrap();
    assert_eq!(
        acquired,
        Acquired {
            fence: 2,
            version: 1,
            document: document("coins"),
            taken_from: Some("a".to_owned())
        }
    );
    assert_eq!(
        session.save("late").await,
        Err(lock_lost(ADA)),
        "the old holder's write is refused"
    );
    assert_eq!(
        session.release().await,
        Err(lock_lost(ADA)),
        "and so is its release"
    );
    let record = session.record().await;
    assert_eq!(record.document, document("coins"));
    assert_eq!(record.lock.map(|holder| holder.server), Some(b.id));
}

async fn a_lapsed_lease_whose_beat_has_moved_keeps_its_locks(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    a.session(ADA).await;
    a.beat().await.unwrap();
    for beat in [0, 1, 3] {
        let lapsed = vec![LapsedLease { server: a.id, beat }];
        assert_locked_by(
            b.store
                .acquire(Acquire {
                    lapsed,
                    ..b.request(ADA)
                })
                .await,
            "a",
        );
    }
}

async fn a_lapsed_lease_says_nothing_about_other_servers(rows: Rows) {
    let (a, b, c) = (
        rows.server("a").await,
        rows.server("b").await,
        rows.server("c").await,
    );
    a.session(ADA).await;
    let lapsed = vec![LapsedLease {
        server: c.id,
        beat: 1,
    }];
    assert_locked_by(
        b.store
            .acquire(Acquire {
                lapsed,
                ..b.request(ADA)
            })
            .await,
        "a",
    );
}

async fn a_request_that_was_held_up_while_its_server_went_on_locks_nobody(rows: Rows) {
    let a = rows.server("a").await;
    let request = |until_beat| Acquire {
        until_beat,
        ..a.request(ADA)
    };
    a.beat().await.unwrap();
    let late = a.store.acquire(request(1)).await.unwrap_err();
    assert!(
        late.is_worth_a_retry(),
        "a server that is still interested asks anew: {late}"
    );
    assert_eq!(a.store.peek(ADA).await.unwrap(), None, "no row was created");

    let in_time = request(2);
    let granted = a.store.acquire(in_time.clone()).await.unwrap();
    a.beat().await.unwrap();
    let again = a.store.acquire(in_time).await.unwrap();
    assert_eq!(
        again.fence, granted.fence,
        "what was granted in time is answered at any time"
    );
}

async fn an_orphan_of_the_same_server_is_taken_over(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let acquire = Acquire {
        orphan: Some(session.lock),
        ..a.request(ADA)
    };
    let acquired = a.store.acquire(acquire).await.unwrap();
    assert_eq!(acquired.fence, session.fence + 1);
    assert_eq!(acquired.taken_from.as_deref(), Some("a"));
    assert_eq!(session.save("late").await, Err(lock_lost(ADA)));
}

async fn an_orphan_of_another_server_or_of_another_id_is_not_taken_over(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let session = a.session(ADA).await;
    let theirs = Acquire {
        orphan: Some(session.lock),
        ..b.request(ADA)
    };
    assert_locked_by(b.store.acquire(theirs).await, "a");
    let unrelated = Acquire {
        orphan: Some(LockId::random()),
        ..a.request(ADA)
    };
    assert_locked_by(a.store.acquire(unrelated).await, "a");
}

async fn a_refused_acquire_changes_nothing(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let before = session.record().await;
    assert_locked_by(b.acquire(ADA).await, "a");
    assert_eq!(session.record().await, before);
    session.save("more coins").await.unwrap();
}

async fn a_fence_only_rises(rows: Rows) {
    let a = rows.server("a").await;
    for fence in 1..=3 {
        let mut session = a.session(ADA).await;
        assert_eq!(session.fence, fence);
        session.save("coins").await.unwrap();
        assert_eq!(session.record().await.last_seq, 1, "each session counts from one");
        session.release().await.unwrap();
        assert_eq!(session.record().await.fence, fence, "a release leaves the fence");
    }
}

async fn two_acquires_at_once_have_one_winner(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    for round in 0..10 {
        let player = ADA.slot(round);
        let outcomes = tokio::join!(a.acquire(player), b.acquire(player));
        match outcomes {
            (Ok(_), refused) => assert_locked_by(refused, "a"),
            (refused, Ok(_)) => assert_locked_by(refused, "b"),
            (Err(a), Err(b)) => panic!("nobody won: {a}; {b}"),
        }
    }
}

async fn a_write_is_stored_and_counted(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    for (n, text) in (1..).zip(["one", "two", "three"]) {
        assert_eq!(
            session.save(text).await,
            Ok(n),
            "the version is one more per commit"
        );
        let record = session.record().await;
        assert_eq!(
            (record.version, record.last_seq, record.document),
            (n, n, document(text))
        );
        assert!(record.saved_at.is_some());
        assert!(record.lock.is_some(), "the lock was kept");
    }
}

async fn a_write_without_a_document_leaves_the_document(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let saved_at = session.record().await.saved_at;
    let write = Write {
        document: None,
        ..session.write("")
    };
    assert_eq!(a.store.commit(write.into()).await.unwrap().versions, [2]);
    let record = session.record().await;
    assert_eq!((record.document, record.saved_at), (document("coins"), saved_at));
    assert_eq!((record.version, record.last_seq), (2, 2));
}

async fn an_empty_document_is_not_an_absent_one(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.save("").await.unwrap();
    assert_eq!(session.record().await.document, Some(Bytes::new()));
    session.release().await.unwrap();
    assert_eq!(a.acquire(ADA).await.unwrap().document, Some(Bytes::new()));
}

async fn a_commit_inserts_no_player(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let write = Write {
        player: BOB,
        ..session.write("coins")
    };
    assert_eq!(a.store.commit(write.into()).await, Err(lock_lost(BOB)));
    assert_eq!(a.store.peek(BOB).await.unwrap(), None);
}

async fn a_write_with_another_fence_is_refused(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let before = session.record().await;
    for fence in [0, session.fence + 1, u64::MAX] {
        let write = Write {
            fence,
            ..session.write("stolen")
        };
        assert_eq!(a.store.commit(write.into()).await, Err(lock_lost(ADA)));
    }
    assert_eq!(session.record().await, before);
}

async fn a_write_with_anothers_lock_is_refused(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let before = session.record().await;
    for lock in [LockId::random(), LockId::from_bytes([0; 16])] {
        for seq in [1, 2] {
            let write = Write {
                lock,
                seq,
                ..session.write("stolen")
            };
            assert_eq!(
                a.store.commit(write.into()).await,
                Err(lock_lost(ADA)),
                "at sequence number {seq}"
            );
        }
    }
    assert_eq!(session.record().await, before);
}

async fn a_write_that_has_landed_succeeds_again_and_changes_nothing(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let write = session.write("more coins");
    assert_eq!(a.store.commit(write.clone().into()).await.unwrap().versions, [2]);
    let before = session.record().await;
    let again = Write {
        document: document("something else"),
        ..write
    };
    assert_eq!(a.store.commit(again.into()).await.unwrap().versions, [2]);
    assert_eq!(session.record().await, before);
}

async fn a_lower_sequence_number_is_superseded(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let late = session.write("late");
    session.save("newer").await.unwrap();
    let before = session.record().await;
    assert_eq!(
        a.store.commit(late.into()).await,
        Err(StoreError::Superseded { player: ADA })
    );
    assert_eq!(session.record().await, before);
}

async fn a_sequence_number_may_skip(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let _never_sent = session.write("skipped");
    session.save("coins").await.unwrap();
    let record = session.record().await;
    assert_eq!((record.version, record.last_seq), (1, 2));
    let largest = Write {
        seq: i64::MAX as u64,
        ..session.write("last")
    };
    a.store.commit(largest.clone().into()).await.unwrap();
    let too_large = Write {
        seq: u64::MAX,
        ..largest
    };
    assert!(matches!(
        a.store.commit(too_large.into()).await,
        Err(StoreError::Rejected { .. })
    ));
}

async fn a_release_frees_the_lock(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let write = Write {
        settle: Vec::new(),
        then: Then::Release,
        ..session.write("final")
    };
    a.store.commit(write.into()).await.unwrap();
    let record = session.record().await;
    assert_eq!((record.lock, record.document), (None, document("final")));
    let acquired = b.acquire(ADA).await.unwrap();
    assert_eq!(
        acquired,
        Acquired {
            fence: 2,
            version: 2,
            document: document("final"),
            taken_from: None
        }
    );
}

async fn a_release_whose_reply_was_lost_succeeds_again(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let write = Write {
        settle: Vec::new(),
        then: Then::Release,
        ..session.write("final")
    };
    a.store.commit(write.clone().into()).await.unwrap();
    let before = session.record().await;
    assert_eq!(a.store.commit(write.into()).await.unwrap().versions, [1]);
    assert_eq!(session.record().await, before);
}

async fn a_late_older_write_after_the_release_is_superseded(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let late = session.write("late");
    session.save("final").await.unwrap();
    session.release().await.unwrap();
    let before = session.record().await;
    assert_eq!(
        a.store.commit(late.into()).await,
        Err(StoreError::Superseded { player: ADA })
    );
    assert_eq!(session.record().await, before);
}

async fn a_newer_write_after_the_release_has_lost_its_lock(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.save("final").await.unwrap();
    session.release().await.unwrap();
    let before = session.record().await;
    assert_eq!(session.save("too late").await, Err(lock_lost(ADA)));
    assert_eq!(session.record().await, before);
}

async fn a_late_release_does_not_free_the_next_sessions_lock(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut first = a.session(ADA).await;
    let release = Write {
        document: None,
        settle: Vec::new(),
        then: Then::Release,
        ..first.write("")
    };
    a.store.commit(release.clone().into()).await.unwrap();
    let second = b.session(ADA).await;
    assert_eq!(a.store.commit(release.into()).await, Err(lock_lost(ADA)));
    assert_eq!(
        second.record().await.lock.map(|holder| holder.lock),
        Some(second.lock)
    );
}

async fn the_fence_is_judged_before_the_sequence_number(rows: Rows) {
    let a = rows.server("a").await;
    let mut first = a.session(ADA).await;
    let landed = first.write("first");
    a.store.commit(landed.clone().into()).await.unwrap();
    first.release().await.unwrap();
    let mut second = a.session(ADA).await;
    second.save("second").await.unwrap();
    assert_eq!(
        a.store.commit(landed.into()).await,
        Err(lock_lost(ADA)),
        "its number is the row's by chance"
    );
    second.save("third").await.unwrap();
    assert_eq!(first.save("old").await, Err(lock_lost(ADA)));
    assert_eq!(second.record().await.document, document("third"));
}

async fn two_writes_land_together(rows: Rows) {
    let a = rows.server("a").await;
    let (mut ada, mut bob) = (a.session(ADA).await, a.session(BOB).await);
    bob.save("bob").await.unwrap();
    let commit = Commit {
        writes: vec![ada.write("sold"), bob.write("bought")],
    };
    assert_eq!(
        a.store.commit(commit).await.unwrap().versions,
        [1, 2],
        "in the order of the writes"
    );
    assert_eq!(ada.record().await.document, document("sold"));
    assert_eq!(bob.record().await.document, document("bought"));
}

async fn two_writes_fail_together(rows: Rows) {
    let a = rows.server("a").await;
    let (mut ada, mut bob) = (a.session(ADA).await, a.session(BOB).await);
    ada.save("ada").await.unwrap();
    bob.save("bob").await.unwrap();
    let before = (ada.record().await, bob.record().await);
    let stale = Write {
        fence: 0,
        ..bob.write("bought")
    };
    for writes in [
        vec![ada.write("sold"), stale.clone()],
        vec![stale, ada.write("sold")],
    ] {
        assert_eq!(a.store.commit(Commit { writes }).await, Err(lock_lost(BOB)));
        assert_eq!(
            (ada.record().await, bob.record().await),
            before,
            "neither row may change"
        );
    }
}

async fn a_repeated_commit_of_two_writes_changes_nothing(rows: Rows) {
    let a = rows.server("a").await;
    let (mut ada, mut bob) = (a.session(ADA).await, a.session(BOB).await);
    let commit = Commit {
        writes: vec![ada.write("sold"), bob.write("bought")],
    };
    let committed = a.store.commit(commit.clone()).await.unwrap();
    let before = (ada.record().await, bob.record().await);
    assert_eq!(a.store.commit(commit).await.unwrap(), committed);
    assert_eq!((ada.record().await, bob.record().await), before);
}

async fn the_first_refused_write_names_the_error(rows: Rows) {
    let a = rows.server("a").await;
    let (mut ada, mut bob) = (a.session(ADA).await, a.session(BOB).await);
    let late = ada.write("late");
    ada.save("newer").await.unwrap();
    let stale = Write {
        fence: 0,
        ..bob.write("bought")
    };
    let commit = Commit {
        writes: vec![late.clone(), stale.clone()],
    };
    assert_eq!(
        a.store.commit(commit).await,
        Err(StoreError::Superseded { player: ADA })
    );
    let commit = Commit {
        writes: vec![stale, late],
    };
    assert_eq!(a.store.commit(commit).await, Err(lock_lost(BOB)));
}

async fn a_player_who_is_written_twice_is_rejected(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let before = session.record().await;
    let commit = Commit {
        writes: vec![session.write("one"), session.write("two")],
    };
    assert!(matches!(
        a.store.commit(commit).await,
        Err(StoreError::Rejected { .. })
    ));
    assert_eq!(session.record().await, before);
}

async fn a_sequence_number_of_zero_is_rejected(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    let write = Write {
        seq: 0,
        ..session.write("lost")
    };
    let outcome = a.store.commit(write.into()).await;
    assert!(
        matches!(outcome, Err(StoreError::Rejected { .. })),
        "a fresh row's number is zero: it must not pass for landed, but gave {outcome:?}"
    );
}

async fn a_commit_without_writes_succeeds(rows: Rows) {
    let a = rows.server("a").await;
    assert!(
        a.store
            .commit(Commit { writes: Vec::new() })
            .await
            .unwrap()
            .versions
            .is_empty()
    );
}

async fn a_write_by_a_server_whose_row_is_gone_still_counts(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    a.store.retire(a.id).await.unwrap();
    session.save("coins").await.expect("nobody has taken the lock");
    assert_eq!(session.record().await.document, document("coins"));
}

async fn peeking_takes_no_lock(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut session = a.session(ADA).await;
    session.save("coins").await.unwrap();
    let seen = b.store.peek(ADA).await.unwrap().expect("the row exists");
    assert_eq!(seen.document, document("coins"));
    assert_eq!(seen, session.record().await, "looking twice shows the same");
    session
        .save("more coins")
        .await
        .expect("the lock is still the session's");
}

async fn peeking_at_nobody_finds_nothing(rows: Rows) {
    let store = rows.connect();
    assert_eq!(store.peek(ADA).await.unwrap(), None);
    assert!(
        store.list(None, 10).await.unwrap().is_empty(),
        "looking creates no row"
    );
}

async fn peeking_shows_a_lock_whose_server_is_gone(rows: Rows) {
    let a = rows.server("a").await;
    let session = a.session(ADA).await;
    a.store.retire(a.id).await.unwrap();
    let holder = session
        .record()
        .await
        .lock
        .expect("the lock's columns are left as they were");
    assert_eq!(
        (holder.lock, holder.server, holder.name),
        (session.lock, a.id, None)
    );
}

async fn listing_goes_page_by_page_in_ascending_order(rows: Rows) {
    let a = rows.server("a").await;
    let mut players: Vec<_> = (0..7).map(|n| ADA.slot(n)).collect();
    players.push(PlayerId::from_bytes([0; 16]));
    players.push(PlayerId::from_bytes([0xff; 16]));
    for &player in &players {
        a.acquire(player).await.unwrap();
    }
    players.sort_unstable();
    let mut seen = Vec::new();
    loop {
        let page = a.store.list(seen.last().copied(), 4).await.unwrap();
        assert!(page.len() <= 4);
        if page.is_empty() {
            break;
        }
        seen.extend(page);
    }
    assert_eq!(seen, players);
    assert_eq!(a.store.list(None, usize::MAX).await.unwrap(), players);
    assert!(a.store.list(None, 0).await.unwrap().is_empty());
    let between = PlayerId::from_bytes(
        [0xff; 15]
            .into_iter()
            .chain([0xfe])
            .collect::<Vec<_>>()
            .try_into()
            .unwrap(),
    );
    assert_eq!(
        a.store.list(Some(between), 4).await.unwrap(),
        players[8..],
        "`after` needs no row"
    );
}

async fn erasing_a_free_player_deletes_the_row(rows: Rows) {
    let a = rows.server("a").await;
    for player in [ADA, BOB] {
        let mut session = a.session(player).await;
        session.save("coins").await.unwrap();
        session.release().await.unwrap();
    }
    assert_eq!(a.store.erase(ADA).await, Ok(true));
    assert_eq!(a.store.peek(ADA).await.unwrap(), None);
    assert_eq!(a.store.list(None, 10).await.unwrap(), [BOB]);
    let acquired = a.acquire(ADA).await.unwrap();
    assert_eq!(
        (acquired.document, acquired.version),
        (None, 0),
        "nothing of the old row is left"
    );
}

async fn erasing_nobody_says_so(rows: Rows) {
    assert_eq!(rows.connect().erase(ADA).await, Ok(false));
}

async fn erasing_a_locked_player_is_refused(rows: Rows) {
    let (a, b) = (rows.server("a").await, rows.server("b").await);
    let mut session = a.session(ADA).await;
    for store in [&a.store, &b.store] {
        let refused = store.erase(ADA).await.unwrap_err();
        let StoreError::SessionLocked { holder, .. } = refused else {
            panic!("{refused}")
        };
        assert_eq!((holder.lock, holder.name.as_deref()), (session.lock, Some("a")));
    }
    session.save("coins").await.unwrap();
}

async fn erasing_a_player_whose_server_is_gone_succeeds(rows: Rows) {
    let a = rows.server("a").await;
    a.session(ADA).await;
    a.store.retire(a.id).await.unwrap();
    assert_eq!(a.store.erase(ADA).await, Ok(true));
}

async fn a_write_after_the_player_was_erased_has_lost_its_lock(rows: Rows) {
    let a = rows.server("a").await;
    let mut session = a.session(ADA).await;
    session.release().await.unwrap();
    a.store.erase(ADA).await.unwrap();
    assert_eq!(session.save("ghost").await, Err(lock_lost(ADA)));
    assert_eq!(a.store.peek(ADA).await.unwrap(), None);
}

async fn many_requests_at_once_are_all_answered(rows: Rows) {
    let a = Arc::new(rows.server("a").await);
    let tasks: Vec<_> = (0..200)
        .map(|n| {
            let a = Arc::clone(&a);
            tokio::spawn(async move {
                let mut session = a.session(ADA.slot(n)).await;
                for version in 1..=3 {
                    assert_eq!(session.save("coins").await, Ok(version));
                }
                session.release().await.unwrap();
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(a.store.list(None, usize::MAX).await.unwrap().len(), 200);
}

fn beat_of(leases: &Leases, server: ServerId) -> Option<u64> {
    leases
        .servers
        .iter()
        .find(|lease| lease.server == server)
        .map(|lease| lease.beat)
}

#[track_caller]
fn assert_locked_by(outcome: Result<Acquired, StoreError>, name: &str) {
    match outcome {
        Err(StoreError::SessionLocked { holder, .. }) => assert_eq!(holder.name.as_deref(), Some(name)),
        other => panic!("expected the lock to be held by `{name}`, but got {other:?}"),
    }
}

/// The durable part of a store. Each [`connect`](Self::connect) is what another process would open.
struct Rows {
    connect: Box<dyn Fn() -> Arc<dyn Store>>,
}

impl Rows {
    fn in_memory(faulty: bool) -> Self {
        let rows = MemoryStore::default();
        Self {
            connect: Box::new(move || wrapped(rows.connect(), faulty)),
        }
    }

    fn in_sqlite(faulty: bool) -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self {
            connect: Box::new(move || {
                wrapped(
                    SqliteStore::open(folder.path().join("players.db")).unwrap(),
                    faulty,
                )
            }),
        }
    }

    #[cfg(feature = "postgres")]
    fn in_postgres() -> Self {
        use bevy_player_data::store::{PostgresSettings, PostgresStore};

        let url = postgres_server::shared().new_schema();
        let settings = PostgresSettings {
            connections: 4,
            ..PostgresSettings::default()
        };
        Self {
            connect: Box::new(move || Arc::new(PostgresStore::connect_with(&url, settings).unwrap())),
        }
    }

    fn connect(&self) -> Arc<dyn Store> {
        (self.connect)()
    }

    /// A server of its own process, with a lease.
    async fn server(&self, name: &str) -> Server {
        Server::start(self.connect(), name).await
    }

    /// A server of its own process, with the lease of a dead one's name.
    async fn successor(&self, name: &str) -> Server {
        Server::succeed(self.connect(), name).await
    }
}

fn wrapped(store: impl Store, faulty: bool) -> Arc<dyn Store> {
    if faulty {
        Arc::new(FaultyStore::new(store, 0))
    } else {
        Arc::new(store)
    }
}
