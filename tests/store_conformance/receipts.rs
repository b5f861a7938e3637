//! The rules about receipts: who may hand them in, and which commit may settle them.

use bevy_player_data::{
    PurchaseId,
    store::{NewReceipt, Notice, Outcome, ReceiptState, Settlement, StoredReceipt},
};

use super::*;

conformance! {
    a_receipt_is_stored_as_it_was_handed_in,
    a_receipt_that_is_handed_in_again_changes_nothing,
    a_purchase_id_belongs_to_one_player_and_one_product,
    the_first_payload_stays_and_too_large_a_one_is_rejected,
    a_refund_marks_the_receipt_once,
    a_refund_that_comes_first_is_remembered,
    a_purchase_that_nobody_knows_is_not_there,
    receipts_are_numbered_in_the_order_in_which_they_came_in,
    what_is_open_is_pending_or_granted_with_a_refund_asked_for,
    a_history_is_paged_from_the_newest,
    arrivals_are_reported_once_and_to_everybody_who_looks,
    many_arrivals_are_reported_over_several_looks,
    arrivals_of_the_erased_hide_nobody_elses,
    an_award_is_granted_together_with_its_document,
    a_pending_receipt_can_be_granted_refused_or_refunded,
    a_granted_receipt_can_only_be_refunded_and_only_if_that_was_asked_for,
    what_is_refused_or_refunded_stays_so,
    only_the_players_own_receipts_can_be_settled,
    a_settlement_that_is_refused_takes_the_whole_commit_with_it,
    a_session_may_settle_again_what_it_has_settled,
    a_session_may_refuse_or_refund_again_and_the_first_time_counts,
    what_was_refunded_before_it_was_granted_is_not_granted_afterwards,
    a_later_session_may_not,
    receipts_are_settled_in_the_order_of_the_write,
    a_write_that_has_landed_settles_nothing_again,
    a_write_whose_lock_is_lost_settles_nothing,
    a_receipt_is_settled_without_a_document_and_with_the_locks_release,
    two_players_receipts_are_settled_together,
    an_erased_players_purchase_ids_are_still_known,
    nothing_that_is_handed_in_again_brings_an_erased_player_back,
    a_buyer_without_a_record_is_erased_as_well,
    a_player_in_a_session_keeps_their_receipts,
}

fn purchase(id: &str) -> PurchaseId {
    id.parse().unwrap()
}

fn receipt(id: &str, player: PlayerId) -> NewReceipt {
    NewReceipt::new(purchase(id), player, "hat".parse().unwrap())
}

async fn pay(store: &dyn Store, id: &str, player: PlayerId) -> StoredReceipt {
    let enqueued = store.enqueue(receipt(id, player), Notice::Paid).await.unwrap();
    assert!(enqueued.is_new);
    enqueued.receipt
}

async fn refund(store: &dyn Store, id: &str, player: PlayerId) -> bool {
    let enqueued = store.enqueue(receipt(id, player), Notice::Refund).await.unwrap();
    assert!(enqueued.receipt.refund_requested);
    enqueued.is_new
}

async fn stored(store: &dyn Store, id: &str) -> StoredReceipt {
    store.receipt(purchase(id)).await.unwrap().expect("it is known")
}

async fn open(store: &dyn Store, player: PlayerId) -> Vec<String> {
    let open = store.open_receipts(player).await.unwrap();
    open.into_iter()
        .map(|receipt| receipt.purchase.to_string())
        .collect()
}

fn granted() -> Outcome {
    Outcome::Granted
}

fn refused() -> Outcome {
    Outcome::Refused {
        reason: "wallet full".to_owned(),
    }
}

fn refunded() -> Outcome {
    Outcome::Refunded {
        shortfall: Some("40 of 100 coins were spent".to_owned()),
    }
}

fn settlement(id: &str, outcome: Outcome) -> Settlement {
    let purchase = purchase(id);
    Settlement { purchase, outcome }
}

/// Saves a document that settles this.
async fn settle(session: &mut Session, id: &str, outcome: Outcome) -> Result<(), StoreError> {
    let write = Write {
        settle: vec![settlement(id, outcome)],
        ..session.write("with it")
    };
    session.store().commit(write.into()).await.map(|_| ())
}

fn is_not_settled(result: Result<(), StoreError>, id: &str) -> bool {
    matches!(result, Err(StoreError::NotSettled { purchase: named, .. }) if named == id)
}

async fn a_receipt_is_stored_as_it_was_handed_in(rows: Rows) {
    let store = rows.connect();
    let new = NewReceipt {
        payload: document("an order"),
        ..receipt("p1", ADA)
    };
    let enqueued = store.enqueue(new.clone(), Notice::Paid).await.unwrap();
    assert!(enqueued.is_new);
    let receipt = stored(&*rows.connect(), "p1").await;
    assert_eq!(receipt, enqueued.receipt);
    assert_eq!(
        (receipt.number, receipt.player, receipt.product),
        (1, Some(ADA), Some(new.product))
    );
    assert_eq!(
        (receipt.state, receipt.refund_requested),
        (ReceiptState::Pending, false)
    );
    assert_eq!(
        (receipt.settled_fence, receipt.settled_at, receipt.note),
        (None, None, None)
    );
    assert_eq!(receipt.payload, new.payload);
    assert!(receipt.received_at > 0);
}

async fn a_receipt_that_is_handed_in_again_changes_nothing(rows: Rows) {
    let (store, other) = (rows.connect(), rows.connect());
    let first = pay(&*store, "p1", ADA).await;
    for store in [store, other] {
        let again = store.enqueue(receipt("p1", ADA), Notice::Paid).await.unwrap();
        assert!(!again.is_new);
        assert_eq!(again.receipt, first);
    }
}

async fn a_purchase_id_belongs_to_one_player_and_one_product(rows: Rows) {
    let store = rows.connect();
    let first = pay(&*store, "p1", ADA).await;
    let other_product = NewReceipt {
        product: "coat".parse().unwrap(),
        ..receipt("p1", ADA)
    };
    for other in [receipt("p1", BOB), other_product] {
        for notice in [Notice::Paid, Notice::Refund] {
            let conflict = store.enqueue(other.clone(), notice).await;
            let purchase = purchase("p1");
            assert_eq!(conflict, Err(StoreError::Conflict { purchase }));
        }
    }
    assert_eq!(stored(&*store, "p1").await, first);
}

async fn the_first_payload_stays_and_too_large_a_one_is_rejected(rows: Rows) {
    let store = rows.connect();
    let with = |size: usize| NewReceipt {
        payload: Some(vec![7; size].into()),
        ..receipt("p1", ADA)
    };
    let too_large = store
        .enqueue(with(NewReceipt::PAYLOAD_LIMIT + 1), Notice::Paid)
        .await;
    assert!(
        matches!(too_large, Err(StoreError::Rejected { .. })),
        "{too_large:?}"
    );
    assert_eq!(store.receipt(purchase("p1")).await, Ok(None));
    store
        .enqueue(with(NewReceipt::PAYLOAD_LIMIT), Notice::Paid)
        .await
        .unwrap();
    assert!(!store.enqueue(with(1), Notice::Paid).await.unwrap().is_new);
    let payload = stored(&*store, "p1").await.payload.unwrap();
    assert_eq!(payload.len(), NewReceipt::PAYLOAD_LIMIT);
}

async fn a_refund_marks_the_receipt_once(rows: Rows) {
    let store = rows.connect();
    pay(&*store, "p1", ADA).await;
    assert!(refund(&*store, "p1", ADA).await);
    assert!(!refund(&*store, "p1", ADA).await);
    let receipt = stored(&*store, "p1").await;
    assert_eq!(
        receipt.state,
        ReceiptState::Pending,
        "the state is the lock holder's to change"
    );
}

async fn a_refund_that_comes_first_is_remembered(rows: Rows) {
    let store = rows.connect();
    assert!(refund(&*store, "p1", ADA).await);
    let paid = store.enqueue(receipt("p1", ADA), Notice::Paid).await.unwrap();
    assert!(!paid.is_new);
    assert!(paid.receipt.refund_requested);
}

async fn a_purchase_that_nobody_knows_is_not_there(rows: Rows) {
    let store = rows.connect();
    assert_eq!(store.receipt(purchase("p1")).await, Ok(None));
    assert_eq!(store.open_receipts(ADA).await, Ok(Vec::new()));
    assert_eq!(store.receipts_of(ADA, None, 10).await, Ok(Vec::new()));
}

async fn receipts_are_numbered_in_the_order_in_which_they_came_in(rows: Rows) {
    let store = rows.connect();
    for (n, (id, player)) in [("z", ADA), ("a", BOB), ("m", ADA)].into_iter().enumerate() {
        assert_eq!(pay(&*store, id, player).await.number, n as u64 + 1);
    }
    assert_eq!(open(&*store, ADA).await, ["z", "m"]);
}

async fn what_is_open_is_pending_or_granted_with_a_refund_asked_for(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    for id in ["pending", "granted", "to refund", "refused", "refunded"] {
        pay(&*a.store, id, ADA).await;
    }
    pay(&*a.store, "bob's", BOB).await;
    refund(&*a.store, "refunded", ADA).await;
    settle(&mut ada, "granted", granted()).await.unwrap();
    settle(&mut ada, "to refund", granted()).await.unwrap();
    settle(&mut ada, "refused", refused()).await.unwrap();
    settle(&mut ada, "refunded", refunded()).await.unwrap();
    assert_eq!(open(&*a.store, ADA).await, ["pending"]);
    refund(&*a.store, "to refund", ADA).await;
    refund(&*a.store, "refused", ADA).await;
    assert_eq!(open(&*rows.connect(), ADA).await, ["pending", "to refund"]);
}

async fn a_history_is_paged_from_the_newest(rows: Rows) {
    let store = rows.connect();
    for n in 1..=5 {
        pay(&*store, &format!("p{n}"), ADA).await;
        pay(&*store, &format!("b{n}"), BOB).await;
    }
    let mut pages = Vec::new();
    let mut before = None;
    loop {
        let page = store.receipts_of(ADA, before, 2).await.unwrap();
        let Some(last) = page.last() else { break };
        before = Some(last.number);
        pages.push(
            page.iter()
                .map(|receipt| receipt.purchase.to_string())
                .collect::<Vec<_>>(),
        );
    }
    assert_eq!(pages, [vec!["p5", "p4"], vec!["p3", "p2"], vec!["p1"]]);
}

async fn arrivals_are_reported_once_and_to_everybody_who_looks(rows: Rows) {
    let (store, other) = (rows.connect(), rows.connect());
    pay(&*store, "old", ADA).await;
    let base = other.arrivals(None).await.unwrap();
    assert_eq!(base.players, [], "a first look reports nobody");
    let nothing = other.arrivals(Some(base.newest)).await.unwrap();
    assert_eq!(nothing, base, "nothing has happened since");

    pay(&*store, "p1", ADA).await;
    pay(&*store, "p2", ADA).await;
    pay(&*store, "p3", BOB).await;
    for looker in [&store, &other] {
        let mut arrivals = looker.arrivals(Some(base.newest)).await.unwrap();
        arrivals.players.sort_unstable();
        assert_eq!(arrivals.players, [ADA, BOB], "each once");
        assert!(arrivals.newest > base.newest);
    }
    let newest = other.arrivals(Some(base.newest)).await.unwrap().newest;
    store.enqueue(receipt("p1", ADA), Notice::Paid).await.unwrap();
    assert_eq!(
        other.arrivals(Some(newest)).await.unwrap().players,
        [],
        "a repetition is no news"
    );
    refund(&*store, "old", ADA).await;
    let refunds = other.arrivals(Some(newest)).await.unwrap();
    assert_eq!(refunds.players, [ADA]);
    // Other changes of the rows are none either.
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    settle(&mut ada, "p1", granted()).await.unwrap();
    assert_eq!(other.arrivals(Some(refunds.newest)).await.unwrap().players, []);
}

async fn many_arrivals_are_reported_over_several_looks(rows: Rows) {
    let store = rows.connect();
    let base = store.arrivals(None).await.unwrap().newest;
    for n in 0..1100 {
        let player = PlayerId::from_name(&n.to_string());
        pay(&*store, &format!("p{n}"), player).await;
    }
    let mut found = std::collections::BTreeSet::new();
    let mut since = base;
    loop {
        let look = store.arrivals(Some(since)).await.unwrap();
        if look.players.is_empty() {
            assert_eq!(look.newest, since);
            break;
        }
        assert!(look.newest > since);
        since = look.newest;
        found.extend(look.players);
    }
    assert_eq!(found.len(), 1100);
}

async fn arrivals_of_the_erased_hide_nobody_elses(rows: Rows) {
    let store = rows.connect();
    let base = store.arrivals(None).await.unwrap().newest;
    let mut under_way = tokio::task::JoinSet::new();
    for n in 0..1000 {
        let store = Arc::clone(&store);
        under_way.spawn(async move { pay(&*store, &format!("p{n}"), ADA).await });
    }
    under_way.join_all().await;
    store.erase(ADA).await.unwrap();
    pay(&*store, "bob's", BOB).await;

    let mut found = Vec::new();
    let mut since = base;
    loop {
        let look = store.arrivals(Some(since)).await.unwrap();
        found.extend(look.players);
        if look.newest == since {
            break;
        }
        since = look.newest;
    }
    assert!(
        found.contains(&BOB),
        "a full look at nobody's is not the last one"
    );
}

async fn an_award_is_granted_together_with_its_document(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    settle(&mut ada, "p1", granted()).await.unwrap();
    let receipt = stored(&*rows.connect(), "p1").await;
    assert_eq!(receipt.state, ReceiptState::Granted);
    assert_eq!(receipt.settled_fence, Some(ada.fence));
    assert!(receipt.settled_at.is_some() && receipt.note.is_none());
    assert_eq!(ada.record().await.document, document("with it"));
}

async fn a_pending_receipt_can_be_granted_refused_or_refunded(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    let cases = [
        ("p1", granted(), ReceiptState::Granted, None),
        ("p2", refused(), ReceiptState::Refused, Some("wallet full")),
        (
            "p3",
            refunded(),
            ReceiptState::Refunded,
            Some("40 of 100 coins were spent"),
        ),
    ];
    for (id, outcome, state, note) in cases {
        pay(&*a.store, id, ADA).await;
        if state == ReceiptState::Refunded {
            let asked = settle(&mut ada, id, outcome.clone()).await;
            assert!(is_not_settled(asked, id), "nobody has asked for a refund");
            refund(&*a.store, id, ADA).await;
        }
        settle(&mut ada, id, outcome).await.unwrap();
        let receipt = stored(&*a.store, id).await;
        assert_eq!((receipt.state, receipt.note.as_deref()), (state, note));
    }
}

async fn a_granted_receipt_can_only_be_refunded_and_only_if_that_was_asked_for(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    settle(&mut ada, "p1", granted()).await.unwrap();
    assert!(is_not_settled(settle(&mut ada, "p1", refused()).await, "p1"));
    assert!(is_not_settled(settle(&mut ada, "p1", refunded()).await, "p1"));
    refund(&*a.store, "p1", ADA).await;
    settle(&mut ada, "p1", refunded()).await.unwrap();
    assert_eq!(stored(&*a.store, "p1").await.state, ReceiptState::Refunded);
}

async fn what_is_refused_or_refunded_stays_so(rows: Rows) {
    let a = rows.server("a").await;
    let mut first = a.session(ADA).await;
    for (id, outcome) in [("p1", refused()), ("p2", refunded())] {
        pay(&*a.store, id, ADA).await;
        refund(&*a.store, id, ADA).await;
        settle(&mut first, id, outcome).await.unwrap();
    }
    first.release().await.unwrap();
    let mut ada = a.session(ADA).await;
    for id in ["p1", "p2"] {
        let before = stored(&*a.store, id).await;
        for outcome in [granted(), refused(), refunded()] {
            assert!(is_not_settled(settle(&mut ada, id, outcome).await, id));
        }
        assert_eq!(stored(&*a.store, id).await, before);
    }
}

async fn only_the_players_own_receipts_can_be_settled(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "bob's", BOB).await;
    assert!(is_not_settled(
        settle(&mut ada, "bob's", granted()).await,
        "bob's"
    ));
    assert!(is_not_settled(
        settle(&mut ada, "nobody's", granted()).await,
        "nobody's"
    ));
    assert_eq!(stored(&*a.store, "bob's").await.state, ReceiptState::Pending);
}

async fn a_settlement_that_is_refused_takes_the_whole_commit_with_it(rows: Rows) {
    let a = rows.server("a").await;
    let (mut ada, mut bob) = (a.session(ADA).await, a.session(BOB).await);
    ada.save("ada").await.unwrap();
    bob.save("bob").await.unwrap();
    pay(&*a.store, "p1", ADA).await;
    let before = (ada.record().await, bob.record().await);
    let good = Write {
        settle: vec![settlement("p1", granted())],
        ..ada.write("sold")
    };
    let bad = Write {
        settle: vec![settlement("nobody's", granted())],
        ..bob.write("bought")
    };
    for writes in [vec![good.clone(), bad.clone()], vec![bad, good]] {
        let refused = a.store.commit(Commit { writes }).await.map(|_| ());
        assert!(is_not_settled(refused, "nobody's"));
        assert_eq!((ada.record().await, bob.record().await), before);
        assert_eq!(stored(&*a.store, "p1").await.state, ReceiptState::Pending);
    }
}

async fn a_session_may_settle_again_what_it_has_settled(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    settle(&mut ada, "p1", granted()).await.unwrap();
    let once = stored(&*a.store, "p1").await;
    settle(&mut ada, "p1", granted())
        .await
        .expect("its answer may have been lost");
    assert_eq!(stored(&*a.store, "p1").await, once);
    refund(&*a.store, "p1", ADA).await;
    let both = vec![settlement("p1", granted()), settlement("p1", refunded())];
    for _ in 0..2 {
        let write = Write {
            settle: both.clone(),
            ..ada.write("without it")
        };
        a.store
            .commit(write.into())
            .await
            .expect("the first half is settled already");
        assert_eq!(stored(&*a.store, "p1").await.state, ReceiptState::Refunded);
    }
}

async fn a_session_may_refuse_or_refund_again_and_the_first_time_counts(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    for id in ["p1", "p2"] {
        pay(&*a.store, id, ADA).await;
        refund(&*a.store, id, ADA).await;
    }
    let for_another_reason = Outcome::Refused {
        reason: "something else".to_owned(),
    };
    let in_full = Outcome::Refunded { shortfall: None };
    for (id, first, again) in [("p1", refused(), for_another_reason), ("p2", refunded(), in_full)] {
        settle(&mut ada, id, first).await.unwrap();
        let once = stored(&*a.store, id).await;
        settle(&mut ada, id, again)
            .await
            .expect("its answer may have been lost");
        assert_eq!(stored(&*a.store, id).await, once);
    }
}

async fn what_was_refunded_before_it_was_granted_is_not_granted_afterwards(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    refund(&*a.store, "p1", ADA).await;
    settle(&mut ada, "p1", refunded()).await.unwrap();
    let award = settle(&mut ada, "p1", granted()).await;
    assert!(
        is_not_settled(award, "p1"),
        "the same session, but nothing that it did before"
    );
    assert_eq!(stored(&*a.store, "p1").await.state, ReceiptState::Refunded);
}

async fn a_later_session_may_not(rows: Rows) {
    let a = rows.server("a").await;
    let mut first = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    settle(&mut first, "p1", granted()).await.unwrap();
    first.release().await.unwrap();
    let mut second = a.session(ADA).await;
    let again = settle(&mut second, "p1", granted()).await;
    assert!(is_not_settled(again, "p1"), "that would be a second award");
    assert_eq!(second.record().await.document, document("with it"));
}

async fn receipts_are_settled_in_the_order_of_the_write(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    refund(&*a.store, "p1", ADA).await;
    let write = Write {
        settle: vec![settlement("p1", refunded()), settlement("p1", refused())],
        ..ada.write("nothing")
    };
    let refused = a.store.commit(write.into()).await.map(|_| ());
    assert!(is_not_settled(refused, "p1"), "it is refunded by then");
    let write = Write {
        settle: vec![settlement("p1", granted()), settlement("p1", refunded())],
        ..ada.write("nothing")
    };
    a.store.commit(write.into()).await.unwrap();
    assert_eq!(stored(&*a.store, "p1").await.state, ReceiptState::Refunded);
}

async fn a_write_that_has_landed_settles_nothing_again(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    ada.save("first").await.unwrap();
    pay(&*a.store, "p1", ADA).await;
    let landed = Write {
        seq: ada.seq,
        settle: vec![settlement("p1", granted())],
        ..ada.write("second")
    };
    a.store.commit(landed.into()).await.unwrap();
    assert_eq!(stored(&*a.store, "p1").await.state, ReceiptState::Pending);
    assert_eq!(ada.record().await.document, document("first"));
}

async fn a_write_whose_lock_is_lost_settles_nothing(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    pay(&*a.store, "p1", ADA).await;
    a.store.retire(a.id).await.unwrap();
    let b = rows.server("b").await;
    let mut taken = b.session(ADA).await;
    assert_eq!(settle(&mut ada, "p1", granted()).await, Err(lock_lost(ADA)));
    assert_eq!(stored(&*b.store, "p1").await.state, ReceiptState::Pending);
    settle(&mut taken, "p1", granted()).await.unwrap();
}

async fn a_receipt_is_settled_without_a_document_and_with_the_locks_release(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    ada.save("first").await.unwrap();
    for (id, then) in [("p1", Then::Keep), ("p2", Then::Release)] {
        pay(&*a.store, id, ADA).await;
        let write = Write {
            document: None,
            settle: vec![settlement(id, refused())],
            then,
            ..ada.write("")
        };
        a.store.commit(write.into()).await.unwrap();
        assert_eq!(stored(&*a.store, id).await.state, ReceiptState::Refused);
    }
    let record = ada.record().await;
    assert_eq!((record.document, record.lock), (document("first"), None));
}

async fn two_players_receipts_are_settled_together(rows: Rows) {
    let a = rows.server("a").await;
    let (mut ada, mut bob) = (a.session(ADA).await, a.session(BOB).await);
    pay(&*a.store, "ada's", ADA).await;
    pay(&*a.store, "bob's", BOB).await;
    let writes = vec![
        Write {
            settle: vec![settlement("ada's", granted())],
            ..ada.write("ada")
        },
        Write {
            settle: vec![settlement("bob's", granted())],
            ..bob.write("bob")
        },
    ];
    a.store.commit(Commit { writes }).await.unwrap();
    for (id, session) in [("ada's", &ada), ("bob's", &bob)] {
        let receipt = stored(&*a.store, id).await;
        assert_eq!(receipt.state, ReceiptState::Granted);
        assert_eq!(receipt.settled_fence, Some(session.fence));
    }
}

async fn an_erased_players_purchase_ids_are_still_known(rows: Rows) {
    let a = rows.server("a").await;
    let mut ada = a.session(ADA).await;
    for id in ["granted", "pending", "refused"] {
        let new = NewReceipt {
            payload: document("her address"),
            ..receipt(id, ADA)
        };
        a.store.enqueue(new, Notice::Paid).await.unwrap();
    }
    pay(&*a.store, "bob's", BOB).await;
    settle(&mut ada, "granted", granted()).await.unwrap();
    settle(&mut ada, "refused", refused()).await.unwrap();
    ada.release().await.unwrap();
    assert_eq!(a.store.erase(ADA).await, Ok(true));
    for (id, state) in [
        ("granted", ReceiptState::Granted),
        ("pending", ReceiptState::Pending),
        ("refused", ReceiptState::Refused),
    ] {
        let left = stored(&*a.store, id).await;
        assert_eq!(
            (left.player, left.product, left.payload, left.note),
            (None, None, None, None)
        );
        assert_eq!(left.state, state);
        let again = a.store.enqueue(receipt(id, ADA), Notice::Paid).await.unwrap();
        assert!(!again.is_new, "it is known for good");
    }
    assert_eq!(a.store.open_receipts(ADA).await, Ok(Vec::new()));
    assert_eq!(a.store.receipts_of(ADA, None, 10).await, Ok(Vec::new()));
    assert_eq!(stored(&*a.store, "bob's").await.player, Some(BOB));
    // Somebody new with the same id starts over.
    let mut ada = a.session(ADA).await;
    assert!(is_not_settled(
        settle(&mut ada, "pending", granted()).await,
        "pending"
    ));
}

async fn nothing_that_is_handed_in_again_brings_an_erased_player_back(rows: Rows) {
    let store = rows.connect();
    pay(&*store, "p1", ADA).await;
    store.erase(ADA).await.unwrap();
    let left = stored(&*store, "p1").await;
    let newest = store.arrivals(None).await.unwrap().newest;
    let other_product = NewReceipt {
        product: "coat".parse().unwrap(),
        payload: document("her address"),
        ..receipt("p1", ADA)
    };
    for again in [receipt("p1", ADA), other_product, receipt("p1", BOB)] {
        for notice in [Notice::Paid, Notice::Refund] {
            let enqueued = store.enqueue(again.clone(), notice).await;
            let enqueued = enqueued.expect("nothing is left to disagree with");
            assert!(!enqueued.is_new);
            assert_eq!(enqueued.receipt, left);
        }
    }
    assert_eq!(stored(&*store, "p1").await, left);
    assert_eq!(store.arrivals(None).await.unwrap().newest, newest);
}

async fn a_buyer_without_a_record_is_erased_as_well(rows: Rows) {
    let store = rows.connect();
    pay(&*store, "p1", ADA).await;
    pay(&*store, "bob's", BOB).await;
    assert_eq!(store.erase(ADA).await, Ok(false), "there was no record");
    let left = stored(&*store, "p1").await;
    assert_eq!((left.player, left.product), (None, None));
    assert_eq!(open(&*store, BOB).await, ["bob's"]);
}

async fn a_player_in_a_session_keeps_their_receipts(rows: Rows) {
    let a = rows.server("a").await;
    let _ada = a.session(ADA).await;
    let before = pay(&*a.store, "p1", ADA).await;
    let refused = a.store.erase(ADA).await;
    assert!(
        matches!(refused, Err(StoreError::SessionLocked { .. })),
        "{refused:?}"
    );
    assert_eq!(stored(&*a.store, "p1").await, before);
}
