//! Replies that are lost, and requests of which nobody knows what became.

use bevy_player_data::store::{NewReceipt, Notice, Outcome, ReceiptState, Settlement, Write};

use super::*;

#[tokio::test]
async fn a_commit_whose_reply_was_lost_is_known_when_it_is_repeated() {
    let url = shared().new_schema();
    let proxy = Proxy::to(shared().port);
    let far = Server::start(connect(&through(&proxy, shared(), &url)), "far").await;
    let near = connect(&url);
    let receipt = NewReceipt::new("p1".parse().unwrap(), ADA, "hat".parse().unwrap());
    near.enqueue(receipt, Notice::Paid).await.unwrap();
    let mut session = far.session(ADA).await;
    let write = Write {
        settle: vec![Settlement {
            purchase: "p1".parse().unwrap(),
            outcome: Outcome::Granted,
        }],
        ..session.write("hat")
    };

    proxy.set(Mode::LosesACommit);
    assert_unavailable(far.store.commit(write.clone().into()).await);
    assert_eq!(proxy.losses(), 1);
    assert_eq!(
        near.peek(ADA).await.unwrap().unwrap().version,
        1,
        "it had landed all the same"
    );
    let repeated = far.store.commit(write.into()).await.unwrap();
    assert_eq!(repeated.versions, [1], "once");
    let receipt = near.receipt("p1".parse().unwrap()).await.unwrap().unwrap();
    assert_eq!(receipt.state, ReceiptState::Granted);
}

#[tokio::test]
async fn wherever_the_connection_is_cut_a_repetition_settles_it() {
    let url = shared().new_schema();
    let proxy = Proxy::to(shared().port);
    let far_url = through(&proxy, shared(), &url);
    let near = Server::start(connect(&url), "near").await;
    let far = Server::start(connect(&far_url), "far").await;
    let mut losses = 0;
    // From the first byte of a new connection to beyond the last one of a commit.
    for (round, bytes) in (0u32..).zip((0..6000).step_by(97)) {
        let player = ADA.slot(round);
        let purchase: bevy_player_data::PurchaseId = format!("p{round}").parse().unwrap();
        let receipt = NewReceipt::new(purchase.clone(), player, "hat".parse().unwrap());
        near.store.enqueue(receipt, Notice::Paid).await.unwrap();
        // All that are open end, so that the next one is cut at that byte.
        proxy.set(Mode::IsCut);
        proxy.set(Mode::IsCutAfter(bytes));
        let request = far.request(player);
        let acquired = loop {
            match far.store.acquire(request.clone()).await {
                Ok(acquired) => break acquired,
                Err(error) => drop(assert_unavailable::<()>(Err(error))),
            }
        };
        assert_eq!(acquired.fence, 1, "cut after {bytes} bytes: one lock was granted");
        let mut session = Session::new(&far, &request, acquired.fence);
        let write = Write {
            settle: vec![Settlement {
                purchase: purchase.clone(),
                outcome: Outcome::Granted,
            }],
            ..session.write("hat")
        };
        proxy.set(Mode::IsCut);
        proxy.set(Mode::IsCutAfter(bytes));
        let committed = loop {
            match far.store.commit(write.clone().into()).await {
                Ok(committed) => break committed,
                Err(error) => drop(assert_unavailable::<()>(Err(error))),
            }
        };
        assert_eq!(
            committed.versions,
            [1],
            "cut after {bytes} bytes: one commit landed"
        );
        let receipt = near.store.receipt(purchase).await.unwrap().unwrap();
        assert_eq!(receipt.state, ReceiptState::Granted);
        losses = proxy.losses();
    }
    assert!(losses > 60, "only {losses} connections were cut");
}

#[tokio::test]
async fn what_a_lost_server_holds_open_is_given_up_by_the_database() {
    let url = shared().new_schema();
    let proxy = Proxy::to(shared().port);
    let far = Server::start(connect(&through(&proxy, shared(), &url)), "far").await;
    let mut session = far.session(ADA).await;
    let mut admin = stranger(&url).await;
    let transaction = admin.transaction().await.unwrap();
    transaction
        .query("SELECT 1 FROM players FOR UPDATE", &[])
        .await
        .unwrap();
    let write = session.write("late");
    let attempt = {
        let (store, write) = (Arc::clone(&far.store), write.clone());
        tokio::spawn(async move { store.commit(write.into()).await })
    };
    let observer = stranger(&url).await;
    wait_until(&observer, SOMEBODY_WAITS).await;
    // It gets the row's lock, and will never hear of it.
    proxy.set(Mode::Hangs);
    transaction.rollback().await.unwrap();
    assert_unavailable(attempt.await.unwrap());
    // Another way to the same database gets through as soon as that is over, and finds out what happened.
    let near = connect(&url);
    let settled = loop {
        match near.commit(write.clone().into()).await {
            Ok(committed) => break committed,
            Err(error) => drop(assert_unavailable::<()>(Err(error))),
        }
    };
    assert_eq!(settled.versions, [1]);
    let newer = session.write("newer");
    assert_eq!(near.commit(newer.into()).await.unwrap().versions, [2]);
    proxy.set(Mode::Carries);
    assert_eq!(
        far.store.commit(write.into()).await,
        Err(StoreError::Superseded { player: ADA }),
        "the late attempt"
    );
    assert_eq!(near.peek(ADA).await.unwrap().unwrap().document, document("newer"));
}
