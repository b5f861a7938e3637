//! Data moves from one store to another: all of it, once, and nothing that is in use.

#![cfg(all(feature = "server", feature = "sqlite", feature = "testing"))]
#![allow(clippy::unwrap_used, reason = "a test may panic")]

#[cfg(feature = "postgres")]
#[path = "support/postgres.rs"]
mod postgres_server;
#[path = "support/store.rs"]
mod support;

use std::sync::Arc;

use bevy_player_data::{
    PlayerId,
    store::{
        CopyError, CopyProgress, CopySettings, Fault, FaultyStore, Import, MemoryStore, NewReceipt, Notice,
        Op, Outcome, Record, Settlement, SqliteStore, Store, StoreError, StoredReceipt, Write, copy_store,
    },
};
use support::{ADA, BOB, Server, document};

const MEMORY: &str = "memory";
const SQLITE: &str = "sqlite";
#[cfg(feature = "postgres")]
const POSTGRES: &str = "postgres";

/// An empty store of each kind.
fn kinds() -> Vec<&'static str> {
    vec![
        MEMORY,
        SQLITE,
        #[cfg(feature = "postgres")]
        POSTGRES,
    ]
}

/// A store, and the folder that it needs.
struct Rows {
    store: Arc<dyn Store>,
    _folder: tempfile::TempDir,
}

fn empty(kind: &str) -> Rows {
    let folder = tempfile::tempdir().unwrap();
    let store: Arc<dyn Store> = match kind {
        MEMORY => Arc::new(MemoryStore::default()),
        SQLITE => Arc::new(SqliteStore::open(folder.path().join("players.db")).unwrap()),
        #[cfg(feature = "postgres")]
        POSTGRES => Arc::new(
            bevy_player_data::store::PostgresStore::connect(&postgres_server::shared().new_schema()).unwrap(),
        ),
        other => panic!("there is no store `{other}`"),
    };
    Rows {
        store,
        _folder: folder,
    }
}

fn receipt(id: &str, player: PlayerId) -> NewReceipt {
    NewReceipt {
        payload: document("an order"),
        ..NewReceipt::new(id.parse().unwrap(), player, "hat".parse().unwrap())
    }
}

/// Players with and without documents, receipts in every state, and one of a player who was erased.
async fn fill(store: &Arc<dyn Store>) {
    let server = Server::start(Arc::clone(store), "old").await;
    for n in 0..450 {
        let mut session = server.session(ADA.slot(n)).await;
        if n % 7 != 0 {
            session.save(&format!("coins {n}")).await.unwrap();
        }
        session.release().await.unwrap();
    }
    let mut session = server.session(ADA).await;
    for (id, notices) in [
        ("pending", &[Notice::Paid] as &[_]),
        ("granted", &[Notice::Paid]),
        ("refused", &[Notice::Paid]),
        ("refunded", &[Notice::Paid, Notice::Refund]),
        ("to be refunded", &[Notice::Refund]),
    ] {
        for &notice in notices {
            store.enqueue(receipt(id, ADA), notice).await.unwrap();
        }
        let outcome = match id {
            "granted" => Outcome::Granted,
            "refused" => Outcome::Refused {
                reason: "wallet full\0".to_owned(),
            },
            "refunded" => Outcome::Refunded {
                shortfall: Some("40 coins".to_owned()),
            },
            _ => continue,
        };
        let write = Write {
            settle: vec![Settlement {
                purchase: id.parse().unwrap(),
                outcome,
            }],
            ..session.write(id)
        };
        store.commit(write.into()).await.unwrap();
    }
    session.release().await.unwrap();
    store.enqueue(receipt("of bob", BOB), Notice::Paid).await.unwrap();
    store.erase(BOB).await.unwrap();
    store
        .enqueue(receipt("newest", ADA.slot(1)), Notice::Paid)
        .await
        .unwrap();
    store.retire(server.id).await.unwrap();
}

async fn everything(store: &Arc<dyn Store>) -> (Vec<Record>, Vec<StoredReceipt>) {
    let mut records = Vec::new();
    for player in store.list(None, usize::MAX).await.unwrap() {
        records.push(store.peek(player).await.unwrap().unwrap());
    }
    (records, store.all_receipts(None, usize::MAX).await.unwrap())
}

async fn copy(from: &Arc<dyn Store>, to: &Arc<dyn Store>) -> Result<CopyProgress, CopyError> {
    copy_store(&**from, &**to, CopySettings::default(), |_| {}).await
}

#[tokio::test]
async fn a_copy_is_equal_and_goes_on_where_the_old_store_ended() {
    for from in kinds() {
        let old = empty(from);
        let old = &old.store;
        fill(old).await;
        for to in kinds() {
            let new = empty(to);
            let new = &new.store;
            let mut seen = Vec::new();
            let done = copy_store(&**old, &**new, CopySettings::default(), |progress| {
                seen.push(progress);
            })
            .await;
            let done = done.unwrap_or_else(|error| panic!("from {from} to {to}: {error}"));
            assert_eq!((done.players, done.receipts), (451, 7), "from {from} to {to}");
            assert_eq!((done.players_verified, done.receipts_verified), (451, 7));
            assert!(seen.len() > 5, "from {from} to {to}: {seen:?}");
            assert_eq!(
                everything(old).await,
                everything(new).await,
                "from {from} to {to}"
            );

            // A purchase that is handed in again is known, and a new one gets a number of its own.
            assert!(
                !new.enqueue(receipt("of bob", BOB), Notice::Paid)
                    .await
                    .unwrap()
                    .is_new
            );
            assert!(
                !new.enqueue(receipt("granted", ADA), Notice::Paid)
                    .await
                    .unwrap()
                    .is_new
            );
            let next = new.enqueue(receipt("next", ADA), Notice::Paid).await.unwrap();
            assert!(
                next.receipt.number > 7,
                "from {from} to {to}: {}",
                next.receipt.number
            );
            let server = Server::start(Arc::clone(new), "new").await;
            let acquired = server.acquire(ADA).await.unwrap();
            assert_eq!(acquired.fence, 2, "fences go on");
            assert_eq!(acquired.document, document("refunded"));
        }
    }
}

#[tokio::test]
async fn a_copy_that_was_interrupted_is_started_again_and_brings_up_to_date_what_has_changed() {
    for to in kinds() {
        let (old, new) = (empty(MEMORY).store, empty(to));
        let new = &new.store;
        fill(&old).await;
        let flaky = FaultyStore::new(Arc::clone(new), 0);
        let faults = flaky.faults();
        let error = copy_store(&*old, &flaky, CopySettings::default(), |progress| {
            if progress.players == 400 {
                faults.fail_next(Op::Enqueue, 1, Fault::After);
            }
        })
        .await
        .unwrap_err();
        assert!(matches!(error, CopyError::Store { .. }), "{error}");
        assert!(error.to_string().contains("copied to"), "{error}");

        let server = Server::start(Arc::clone(&old), "old").await;
        let mut session = server.session(ADA.slot(3)).await;
        session.save("newer").await.unwrap();
        session.release().await.unwrap();
        old.enqueue(receipt("newest", ADA.slot(1)), Notice::Refund)
            .await
            .unwrap();
        for _ in 0..2 {
            copy(&old, new).await.unwrap();
            assert_eq!(everything(&old).await, everything(new).await, "to {to}");
        }
    }
}

#[tokio::test]
async fn a_player_in_a_session_ends_the_copy_unless_it_is_told_otherwise() {
    let (old, new) = (empty(SQLITE), empty(MEMORY));
    let (old, new) = (&old.store, &new.store);
    let server = Server::start(Arc::clone(old), "arena").await;
    let mut session = server.session(ADA).await;
    session.save("coins").await.unwrap();
    let error = copy(old, new).await.unwrap_err();
    assert!(
        matches!(error, CopyError::InSession { player: ADA, .. }),
        "{error}"
    );
    assert!(error.to_string().contains("`arena`"), "{error}");
    assert_eq!(new.list(None, 1).await.unwrap(), []);

    let settings = CopySettings {
        despite_live_locks: true,
    };
    copy_store(&**old, &**new, settings, |_| {}).await.unwrap();
    let copied = new.peek(ADA).await.unwrap().unwrap();
    assert_eq!((copied.document, copied.lock), (document("coins"), None));
    // A lock whose server is gone is no lock.
    old.retire(server.id).await.unwrap();
    copy(old, new).await.unwrap();
}

#[tokio::test]
async fn what_is_saved_while_it_is_copied_is_found_out() {
    let (old, new) = (empty(MEMORY).store, empty(MEMORY).store);
    let server = Server::start(Arc::clone(&old), "arena").await;
    let mut session = server.session(ADA).await;
    session.save("coins").await.unwrap();
    let late = std::sync::Mutex::new(Some(session.write("late")));
    let settings = CopySettings {
        despite_live_locks: true,
    };
    let error = copy_store(&*old, &*new, settings, |progress| {
        let write = late.lock().unwrap().take();
        if let (1, Some(write)) = (progress.players, write) {
            let old = Arc::clone(&old);
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
                runtime.block_on(old.commit(write.into())).unwrap();
            })
            .join()
            .unwrap();
        }
    })
    .await
    .unwrap_err();
    assert!(matches!(error, CopyError::Differs { .. }), "{error}");
    assert!(error.to_string().contains(&ADA.to_string()), "{error}");
}

#[tokio::test]
async fn what_has_gone_on_in_the_target_is_never_overwritten() {
    for to in kinds() {
        let (old, new) = (empty(MEMORY).store, empty(to));
        let new = &new.store;
        fill(&old).await;
        copy(&old, new).await.unwrap();
        let server = Server::start(Arc::clone(new), "new").await;
        let mut session = server.session(ADA).await;
        let held = copy(&old, new).await.unwrap_err();
        let is_locked = |error: &CopyError| {
            matches!(
                error,
                CopyError::Store {
                    error: StoreError::SessionLocked { .. },
                    ..
                }
            )
        };
        assert!(is_locked(&held), "to {to}: {held}");
        session.save("played on").await.unwrap();
        session.release().await.unwrap();
        let before = everything(new).await;
        let error = copy(&old, new).await.unwrap_err();
        assert!(error.to_string().contains("played on here"), "to {to}: {error}");
        assert_eq!(everything(new).await, before, "to {to}");
    }
}

#[tokio::test]
async fn what_has_become_of_a_receipt_in_the_target_is_never_undone() {
    for to in kinds() {
        let (old, new) = (empty(MEMORY).store, empty(to));
        let new = &new.store;
        fill(&old).await;
        copy(&old, new).await.unwrap();
        new.enqueue(receipt("granted", ADA), Notice::Refund)
            .await
            .unwrap();
        let server = Server::start(Arc::clone(new), "new").await;
        let mut session = server.session(ADA).await;
        let settle = Write {
            settle: vec![Settlement {
                purchase: "pending".parse().unwrap(),
                outcome: Outcome::Granted,
            }],
            ..session.write("hat")
        };
        new.commit(settle.into()).await.unwrap();
        session.release().await.unwrap();
        // Also without any player that was played on.
        assert!(new.erase(ADA.slot(1)).await.unwrap());
        let before = everything(new).await;
        let stored = old.all_receipts(None, usize::MAX).await.unwrap();
        for id in ["granted", "pending", "newest"] {
            let of_it = stored.iter().filter(|receipt| receipt.purchase.as_str() == id);
            let rows = Import {
                records: Vec::new(),
                receipts: of_it.cloned().collect(),
            };
            let error = new.import(rows).await.unwrap_err();
            assert!(
                matches!(error, StoreError::Rejected { .. }),
                "`{id}`, to {to}: {error}"
            );
            assert!(
                error.to_string().contains("gone on here"),
                "`{id}`, to {to}: {error}"
            );
        }
        assert_eq!(everything(new).await, before, "to {to}");
    }
}

#[tokio::test]
async fn who_was_erased_in_the_source_since_is_named_and_nobody_is_erased_by_a_copy() {
    for to in kinds() {
        let (old, new) = (empty(MEMORY).store, empty(to));
        let new = &new.store;
        fill(&old).await;
        copy(&old, new).await.unwrap();
        // In the middle, at the end, and one with a receipt.
        let last = old.list(None, usize::MAX).await.unwrap().pop().unwrap();
        let mut gone = vec![ADA.slot(1), ADA.slot(200), last];
        gone.sort_unstable();
        for player in &gone {
            assert!(old.erase(*player).await.unwrap());
        }
        for &player in &gone {
            let error = copy(&old, new).await.unwrap_err();
            assert_eq!(error, CopyError::OnlyInCopy { player }, "to {to}");
            assert!(
                error.to_string().contains(&player.to_string()),
                "to {to}: {error}"
            );
            assert!(
                new.erase(player).await.unwrap(),
                "to {to}: it is left to the operator"
            );
        }
        copy(&old, new).await.unwrap();
        assert_eq!(everything(&old).await, everything(new).await, "to {to}");
    }
}

#[tokio::test]
async fn two_copies_at_once_leave_what_one_does() {
    for to in kinds() {
        let (old, new) = (empty(MEMORY).store, empty(to));
        let new = &new.store;
        fill(&old).await;
        for ended in <[_; 2]>::from(tokio::join!(copy(&old, new), copy(&old, new))) {
            let is_to_be_repeated = matches!(
                ended,
                Ok(_)
                    | Err(CopyError::Store {
                        error: StoreError::Unavailable { .. },
                        ..
                    })
            );
            assert!(is_to_be_repeated, "to {to}: {ended:?}");
        }
        copy(&old, new).await.unwrap();
        assert_eq!(everything(&old).await, everything(new).await, "to {to}");
    }
}

#[tokio::test]
async fn a_target_with_receipts_of_its_own_is_refused() {
    for to in kinds() {
        let (old, new) = (empty(MEMORY).store, empty(to));
        let new = &new.store;
        fill(&old).await;
        new.enqueue(receipt("its own", ADA), Notice::Paid).await.unwrap();
        let error = copy(&old, new).await.unwrap_err();
        assert!(error.to_string().contains("number"), "to {to}: {error}");
        assert_eq!(
            new.all_receipts(None, usize::MAX).await.unwrap().len(),
            1,
            "to {to}"
        );
    }
}

#[tokio::test]
async fn a_page_is_taken_in_whole_or_not_at_all() {
    for to in kinds() {
        let new = empty(to);
        let new = &new.store;
        let server = Server::start(Arc::clone(new), "new").await;
        let held = server.session(BOB).await;
        let record = |player| Record {
            player,
            version: 3,
            fence: 3,
            last_seq: 1,
            lock: None,
            document: document("coins"),
            created_at: 1,
            saved_at: Some(2),
        };
        let rows = Import {
            records: vec![record(ADA), record(BOB)],
            receipts: Vec::new(),
        };
        let refused = new.import(rows).await.unwrap_err();
        assert!(
            matches!(refused, StoreError::SessionLocked { .. }),
            "to {to}: {refused}"
        );
        assert_eq!(new.peek(ADA).await.unwrap(), None, "to {to}");
        drop(held);
    }
}
