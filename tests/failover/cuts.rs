//! A network between server and database that is cut, and a database that hangs: no second accepted writer, sessions that
//! go on, and an exit that keeps its deadline.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bevy_player_data::{
    PlayerId,
    document::Document,
    player::SaveError,
    prelude::{PersistentPlayer, PlayerDataPlugin, PlayerSession, ServerSettings},
    session::{LeaseState, Opened, SaveError as SessionSaveError, Saved, Session, SessionSettings, Sessions},
    store::{PostgresSettings, PostgresStore, Store},
    testing::{headless_app, update_until},
};
use tokio::{
    runtime::Handle,
    sync::oneshot::{self, error::TryRecvError},
    time::sleep,
};

use super::{
    books::Diary,
    players::settings,
    postgres::shared,
    proxy::{Mode, Proxy},
};

const TTL: Duration = Duration::from_secs(2);

/// A server of its own, behind a cable of its own.
struct Far {
    cable: Proxy,
    store: Arc<dyn Store>,
    sessions: Sessions,
}

impl Far {
    async fn start(url: &str, name: &str) -> Self {
        Self::start_with(url, name, TTL).await
    }

    async fn start_with(url: &str, name: &str, ttl: Duration) -> Self {
        let cable = Proxy::to(shared().port);
        let store = connect(&behind(&cable, url));
        let settings = SessionSettings {
            beat: ttl / 8,
            lease_ttl: ttl,
            load_timeout: ttl * 20,
            ..settings(name)
        };
        let sessions = Sessions::new(Arc::clone(&store), settings, Handle::current());
        let beating = sessions.clone();
        tokio::spawn(async move {
            loop {
                beating.tick();
                sleep(Duration::from_millis(20)).await;
            }
        });
        let far = Self {
            cable,
            store,
            sessions,
        };
        wait_until("it has a lease", || {
            far.sessions.status().state == LeaseState::Held
        })
        .await;
        far
    }

    async fn join(&self, player: PlayerId) -> Opened {
        let (done, answer) = oneshot::channel();
        let _opening = self.sessions.open(player, move |answer| drop(done.send(answer)));
        answer.await.unwrap().expect("the player joins")
    }
}

fn behind(cable: &Proxy, url: &str) -> String {
    url.replace(&format!(":{}/", shared().port), &format!(":{}/", cable.port))
}

fn connect(url: &str) -> Arc<dyn Store> {
    let settings = PostgresSettings {
        connections: 4,
        timeout: Duration::from_millis(600),
    };
    Arc::new(PostgresStore::connect_with(url, settings).unwrap())
}

async fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_so() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: never");
        sleep(Duration::from_millis(10)).await;
    }
}

fn diary(saves: u64) -> Document {
    Diary {
        saves,
        awarded: Vec::new(),
    }
    .document()
}

async fn save(session: &mut Session, saves: u64) -> Result<Saved, SessionSaveError> {
    let (done, answer) = oneshot::channel();
    session.save(diary(saves), move |answer| drop(done.send(answer)));
    answer.await.unwrap()
}

async fn stored(store: &dyn Store, player: PlayerId) -> u64 {
    let record = store.peek(player).await.unwrap().unwrap();
    Diary::read(&Document::decode(&record.document.unwrap()).unwrap()).saves
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_survives_a_cut_that_is_shorter_than_its_lease() {
    // So much longer than the cuts that no busy machine makes up the difference.
    let ttl = Duration::from_secs(12);
    let url = shared().new_schema();
    let far = Far::start_with(&url, "far", ttl).await;
    let near = Far::start_with(&url, "near", ttl).await;
    let player = PlayerId::from_name("ada");
    let mut session = far.join(player).await.session;
    save(&mut session, 1).await.unwrap();
    // All the while somebody else would like to have the player.
    let (done, mut wanted) = oneshot::channel();
    let wanting = near
        .sessions
        .open(player, move |answer| drop(done.send(answer.map(drop))));
    for (round, mode) in (2..).zip([Mode::IsCut, Mode::Hangs, Mode::IsCut]) {
        far.cable.set(mode);
        let cut = Instant::now();
        let (done, answer) = oneshot::channel();
        session.save(diary(round), move |answer| drop(done.send(answer)));
        sleep(Duration::from_secs(1)).await;
        far.cable.set(Mode::Carries);
        answer
            .await
            .unwrap()
            .expect("it is saved when the network is back");
        assert!(!session.is_over(), "the session ended after {:?}", cut.elapsed());
        assert_eq!(stored(&*near.store, player).await, round);
        assert_eq!(
            wanted.try_recv(),
            Err(TryRecvError::Empty),
            "nobody else gets the player"
        );
    }
    drop(wanting);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_cut_off_for_longer_loses_its_players_and_can_write_to_none_of_them() {
    let url = shared().new_schema();
    let (far, near) = (Far::start(&url, "far").await, Far::start(&url, "near").await);
    let player = PlayerId::from_name("ada");
    let mut session = far.join(player).await.session;
    save(&mut session, 1).await.unwrap();
    far.cable.set(Mode::Hangs);
    // On its way when the network hung, and may come through later.
    let (done, late) = oneshot::channel();
    session.save(diary(100), move |answer| drop(done.send(answer)));

    let opened = near.join(player).await;
    assert_eq!(opened.taken_from.as_deref(), Some("far"));
    let mut taken = opened.session;
    save(&mut taken, 2).await.unwrap();
    far.cable.set(Mode::Carries);
    let refused = late.await.unwrap();
    // With an attempt that was never answered, and another server's save behind it, nobody can tell what became of it.
    assert!(
        matches!(
            refused,
            Err(SessionSaveError::LockLost { .. } | SessionSaveError::Unconfirmed { .. })
        ),
        "the one that was cut off was told {refused:?}"
    );
    assert!(session.is_over());
    assert_eq!(stored(&*near.store, player).await, 2);
    save(&mut taken, 3).await.unwrap();
    assert_eq!(stored(&*far.store, player).await, 3);
}

#[test]
fn an_exit_keeps_its_deadline_while_the_database_hangs_and_names_who_was_not_saved() {
    let url = shared().new_schema();
    let cable = Proxy::to(shared().port);
    let settings = ServerSettings {
        name: "arena".to_owned(),
        autosave: None,
        handle_signals: false,
        exit_deadline: Duration::from_millis(800),
        ..ServerSettings::default()
    };
    let mut app = headless_app();
    app.add_plugins(PlayerDataPlugin::server(connect(&behind(&cable, &url))).with_settings(settings));
    let ada = app
        .world_mut()
        .spawn(PersistentPlayer(PlayerId::from_name("ada")))
        .id();
    update_until(&mut app, "ada is loaded", |world| {
        world.entity(ada).contains::<PlayerSession>()
    });

    cable.set(Mode::Hangs);
    let start = Instant::now();
    app.add_observer(
        |flushed: bevy::prelude::On<bevy_player_data::prelude::PlayerDataFlushed>,
         mut commands: bevy::prelude::Commands| {
            commands.insert_resource(Named(
                flushed
                    .unsaved
                    .iter()
                    .map(|one| (one.player, one.error.clone()))
                    .collect(),
            ));
        },
    );
    app.world_mut().write_message(bevy::prelude::AppExit::Success);
    app.update();
    let exit = app.should_exit().expect("it was asked to");
    let named = app.world().resource::<Named>().0.clone();
    drop(app);
    assert!(exit.is_error(), "the exit code must tell");
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "the deadline was not kept: {:?}",
        start.elapsed()
    );
    assert_eq!(named, [(PlayerId::from_name("ada"), SaveError::Deadline)]);
}

#[derive(bevy::prelude::Resource)]
struct Named(Vec<(PlayerId, SaveError)>);
