//! The rules on wishes: when one stands, for whom, and what ends it.

use std::time::Duration;

use bevy_player_data::store::{Wish, Wished, Wishes};

use super::*;

conformance! {
    a_wish_is_seen_by_the_holder_and_by_whoever_wishes,
    a_wish_changes_nothing_about_the_player,
    a_wish_that_is_repeated_is_one_wish_with_the_newer_limit,
    wishes_of_several_loads_stand_side_by_side,
    a_wish_that_is_taken_back_is_gone_and_no_other_is,
    a_wish_about_another_lock_is_not_left,
    a_wish_ends_with_the_session_that_it_is_about,
    a_lock_that_is_taken_over_clears_the_wishes,
    an_acquire_that_is_refused_or_repeated_clears_no_wish,
    a_wish_of_a_server_without_a_row_does_not_stand,
    a_wish_ends_when_its_server_has_gone_on_without_repeating_it,
    nobody_wishes_for_a_player_of_their_own,
    erasing_a_player_clears_the_wishes,
}

/// The last beat that fits every store's columns.
const EVER: u64 = i64::MAX as u64;

/// Two servers; the first has ada.
struct Scene {
    a: Server,
    b: Server,
    ada: Session,
}

impl Scene {
    async fn new(rows: &Rows) -> Self {
        let (a, b) = (rows.server("a").await, rows.server("b").await);
        let ada = a.session(ADA).await;
        Self { a, b, ada }
    }

    /// What b would like.
    fn wish(&self) -> Wish {
        Wish {
            player: ADA,
            held: self.ada.lock,
            lock: LockId::random(),
            server: self.b.id,
            until_beat: EVER,
        }
    }

    /// Looks until it is seen what is wanted: a look may rest on what the store knew a moment ago.
    async fn sees(&self, server: &Server, wanted: Wishes) {
        let mut seen = server.store.wishes(server.id).await.unwrap();
        for _ in 0..200 {
            if seen == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
            seen = server.store.wishes(server.id).await.unwrap();
        }
        assert_eq!(seen, wanted, "server `{}`", server.name);
    }

    async fn both_see(&self, wishes: &[Wish]) {
        let for_us = wishes.iter().map(|&wish| Wished {
            wish,
            name: "b".to_owned(),
        });
        let a_sees = Wishes {
            for_us: for_us.collect(),
            ours: Vec::new(),
        };
        let b_sees = Wishes {
            for_us: Vec::new(),
            ours: wishes.iter().map(|wish| wish.lock).collect(),
        };
        self.sees(&self.a, a_sees).await;
        self.sees(&self.b, b_sees).await;
    }
}

async fn a_wish_is_seen_by_the_holder_and_by_whoever_wishes(rows: Rows) {
    let scene = Scene::new(&rows).await;
    scene.both_see(&[]).await;
    let wish = scene.wish();
    assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    scene.both_see(&[wish]).await;
    let c = rows.server("c").await;
    assert_eq!(
        c.store.wishes(c.id).await,
        Ok(Wishes::default()),
        "it is nobody else's business"
    );
}

async fn a_wish_changes_nothing_about_the_player(rows: Rows) {
    let mut scene = Scene::new(&rows).await;
    scene.ada.save("one").await.unwrap();
    let before = scene.ada.record().await;
    assert_eq!(scene.b.store.wish(scene.wish()).await, Ok(true));
    assert_eq!(scene.ada.record().await, before);
    scene.ada.save("two").await.unwrap();
    assert!(
        matches!(scene.b.acquire(ADA).await, Err(StoreError::SessionLocked { .. })),
        "the holder decides, not the wish"
    );
}

async fn a_wish_that_is_repeated_is_one_wish_with_the_newer_limit(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let wish = scene.wish();
    let first = Wish {
        until_beat: 1,
        ..wish
    };
    assert_eq!(scene.b.store.wish(first).await, Ok(true));
    assert_eq!(scene.b.store.wish(first).await, Ok(true));
    let second = Wish {
        until_beat: 2,
        ..wish
    };
    assert_eq!(scene.b.store.wish(second).await, Ok(true));
    scene.both_see(&[second]).await;
}

async fn wishes_of_several_loads_stand_side_by_side(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let mut wishes = [scene.wish(), scene.wish()];
    wishes.sort_by_key(|wish| wish.lock);
    for wish in wishes {
        assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    }
    scene.both_see(&wishes).await;
}

async fn a_wish_that_is_taken_back_is_gone_and_no_other_is(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let (first, second) = (scene.wish(), scene.wish());
    for wish in [first, second] {
        assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    }
    for _ in 0..2 {
        assert_eq!(scene.b.store.withdraw(ADA, first.lock).await, Ok(()));
    }
    scene.both_see(&[second]).await;
}

async fn a_wish_about_another_lock_is_not_left(rows: Rows) {
    let mut scene = Scene::new(&rows).await;
    let about_older = scene.wish();
    scene.ada.release().await.unwrap();
    assert_eq!(
        scene.b.store.wish(about_older).await,
        Ok(false),
        "the player is free"
    );
    scene.ada = scene.a.session(ADA).await;
    assert_eq!(
        scene.b.store.wish(about_older).await,
        Ok(false),
        "it was about the session before"
    );
    let nobodys = Wish {
        player: BOB,
        ..scene.wish()
    };
    assert_eq!(scene.b.store.wish(nobodys).await, Ok(false), "nobody has bob");
    scene.both_see(&[]).await;
}

async fn a_wish_ends_with_the_session_that_it_is_about(rows: Rows) {
    let mut scene = Scene::new(&rows).await;
    assert_eq!(scene.b.store.wish(scene.wish()).await, Ok(true));
    scene.ada.release().await.unwrap();
    scene.both_see(&[]).await;
    scene.ada = scene.a.session(ADA).await;
    scene.both_see(&[]).await;
}

async fn a_lock_that_is_taken_over_clears_the_wishes(rows: Rows) {
    let mut scene = Scene::new(&rows).await;
    let wish = scene.wish();
    assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    // a's own next session takes the lock over as an orphan's, and is then given the very id that was wished about.
    let again = Acquire {
        orphan: Some(scene.ada.lock),
        ..scene.a.request(ADA)
    };
    let fence = scene.a.store.acquire(again.clone()).await.unwrap().fence;
    scene.ada = Session::new(&scene.a, &again, fence);
    scene.ada.release().await.unwrap();
    let same_lock = Acquire {
        lock: wish.held,
        ..scene.a.request(ADA)
    };
    scene.a.store.acquire(same_lock).await.unwrap();
    scene.both_see(&[]).await;
}

async fn an_acquire_that_is_refused_or_repeated_clears_no_wish(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let wish = scene.wish();
    assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    assert!(scene.b.acquire(ADA).await.is_err());
    let repeated = Acquire {
        lock: scene.ada.lock,
        ..scene.a.request(ADA)
    };
    assert!(scene.a.store.acquire(repeated).await.is_ok());
    scene.both_see(&[wish]).await;
}

async fn a_wish_of_a_server_without_a_row_does_not_stand(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let of_nobody = Wish {
        server: ServerId::random(),
        ..scene.wish()
    };
    assert_eq!(scene.b.store.wish(of_nobody).await, Ok(false));
    assert_eq!(scene.b.store.wish(scene.wish()).await, Ok(true));
    scene.b.store.retire(scene.b.id).await.unwrap();
    scene.both_see(&[]).await;
    scene.b.beat().await.unwrap();
    scene.both_see(&[]).await;
}

async fn a_wish_ends_when_its_server_has_gone_on_without_repeating_it(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let wish = Wish {
        until_beat: 2,
        ..scene.wish()
    };
    assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    scene.b.beat().await.unwrap();
    scene.both_see(&[wish]).await;
    scene.b.beat().await.unwrap();
    scene.both_see(&[]).await;
    assert_eq!(
        scene.b.store.wish(wish).await,
        Ok(false),
        "one that was held up on its way comes to nothing"
    );
}

async fn nobody_wishes_for_a_player_of_their_own(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let own = Wish {
        server: scene.a.id,
        ..scene.wish()
    };
    assert_eq!(scene.a.store.wish(own).await, Ok(false));
    scene.both_see(&[]).await;
}

async fn erasing_a_player_clears_the_wishes(rows: Rows) {
    let scene = Scene::new(&rows).await;
    let wish = scene.wish();
    assert_eq!(scene.b.store.wish(wish).await, Ok(true));
    scene.a.store.retire(scene.a.id).await.unwrap();
    assert_eq!(scene.b.store.erase(ADA).await, Ok(true));
    scene.a.beat().await.unwrap();
    let same_lock = Acquire {
        lock: wish.held,
        ..scene.a.request(ADA)
    };
    scene.a.store.acquire(same_lock).await.unwrap();
    scene.both_see(&[]).await;
}
