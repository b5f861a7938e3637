//! Two servers on one store, with one clock that moves only when a test says so.

use std::{sync::Arc, time::Duration};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Faults, FaultyStore, Record},
};
use tokio::{runtime::Runtime, time};

use super::{at_once::AtOnce, support::*};

/// One update of both servers.
pub const TICK: Duration = Duration::from_millis(16);

/// What the game says when it is asked for a player, and how often it was.
#[derive(Resource, Default)]
pub struct Game {
    pub keeps: bool,
    pub asked: Vec<(PlayerId, String)>,
    /// What came of `TransferPlayer`.
    pub transferred: Vec<(String, Result<(), SaveError>)>,
}

pub struct Side {
    pub app: App,
    pub faults: Faults,
}

pub struct Scene {
    pub runtime: Arc<Runtime>,
    pub rows: AtOnce,
    pub a: Side,
    pub b: Side,
}

/// Settings with which nothing is ignored for being too early.
pub fn prompt(name: &str) -> ServerSettings {
    ServerSettings {
        hand_off: HandOffSettings {
            min_session: Duration::ZERO,
            ..default()
        },
        ..quick(name)
    }
}

impl Scene {
    /// Servers `a` and `b`.
    pub fn new() -> Self {
        Self::with(prompt("a"), prompt("b"))
    }

    pub fn with(a: ServerSettings, b: ServerSettings) -> Self {
        let (runtime, rows) = (paused_runtime(), AtOnce::default());
        let [a, b] = [a, b].map(|settings| Side::new(&runtime, &rows, settings));
        let mut scene = Self { runtime, rows, a, b };
        // Until both have their leases.
        scene.run(TICK * 10);
        scene
    }

    /// With ada on server a, who has this many coins there that were never saved.
    pub fn with_ada(coins: u64) -> (Self, Entity) {
        let mut scene = Self::new();
        let ada = scene.join_a("ada");
        scene.a.app.set(ada, Coins(coins));
        (scene, ada)
    }

    pub fn join_a(&mut self, name: &str) -> Entity {
        let entity = self.a.app.join(name);
        self.until("the player is on a", |scene| scene.a.has_session(entity));
        entity
    }

    pub fn tick(&mut self) {
        self.a.app.update();
        self.b.app.update();
        self.runtime.block_on(async { time::sleep(TICK).await });
    }

    pub fn run(&mut self, time: Duration) {
        for _ in 0..time.as_millis().div_ceil(TICK.as_millis()) {
            self.tick();
        }
    }

    /// Lets time pass until `condition` holds, and says how much that was.
    #[track_caller]
    pub fn until(&mut self, what: &str, mut condition: impl FnMut(&mut Self) -> bool) -> Duration {
        let mut passed = Duration::ZERO;
        while !condition(self) {
            assert!(passed < Duration::from_secs(100), "waited in vain until {what}");
            self.tick();
            passed += TICK;
        }
        passed
    }

    pub fn record(&self, name: &str) -> Record {
        row(&self.rows, name).expect("the player has a row")
    }

    pub fn is_free(&self, name: &str) -> bool {
        !is_locked(&self.rows, name)
    }

    pub fn stored_coins(&self, name: &str) -> Option<Coins> {
        stored_value(&self.rows, name)
    }
}

impl Side {
    pub fn new(runtime: &Arc<Runtime>, rows: &AtOnce, settings: ServerSettings) -> Self {
        // Which player a client is, the tests say themselves.
        let settings = ServerSettings {
            auto_join: false,
            ..settings
        };
        let store = FaultyStore::new(rows.connect(), 1);
        let faults = store.faults();
        let mut app = bevy_player_data::testing::headless_app();
        app.insert_resource(bevy::time::TimeUpdateStrategy::ManualDuration(TICK))
            .add_plugins(
                PlayerDataPlugin::server(store)
                    .with_settings(settings)
                    .driven_by(Arc::clone(runtime)),
            )
            .add_plugins(shared_data)
            .init_resource::<Game>()
            .add_observer(|mut request: On<HandOffRequested>, mut game: ResMut<Game>| {
                game.asked.push((request.player, request.to.clone()));
                if game.keeps {
                    request.refuse("the game keeps everybody");
                }
            })
            .add_observer(|on: On<PlayerTransferred>, mut game: ResMut<Game>| {
                game.transferred.push((on.to.clone(), on.result.clone()));
            });
        observe(&mut app);
        run_on_one_thread(&mut app);
        Self { app, faults }
    }

    pub fn has_session(&self, entity: Entity) -> bool {
        self.app.world().get::<PlayerSession>(entity).is_some()
    }

    pub fn is_here(&self, entity: Entity) -> bool {
        self.app.world().get_entity(entity).is_ok()
    }

    pub fn game(&mut self) -> Mut<'_, Game> {
        self.app.world_mut().resource_mut::<Game>()
    }

    pub fn asked(&mut self) -> usize {
        self.game().asked.len()
    }

    pub fn coins(&self, entity: Entity) -> Option<u64> {
        self.app.component::<Coins>(entity).map(|coins| coins.0)
    }

    pub fn transfer(&mut self, entity: Entity, to: &str) {
        let to = to.to_owned();
        self.app.world_mut().trigger(TransferPlayer { entity, to });
        self.app.world_mut().flush();
    }

    /// What the game heard about ends of sessions and final saves.
    pub fn ends(&self) -> Vec<Told> {
        let heard = self.app.heard();
        heard
            .into_iter()
            .filter(|told| matches!(told, Told::Ended { .. } | Told::Saved { is_final: true, .. }))
            .collect()
    }
}
