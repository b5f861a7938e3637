//! One server process: a real app with real sessions, on a runtime whose clock moves only when the simulation says so.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bevy::{
    prelude::*,
    time::{TimePlugin, TimeUpdateStrategy},
};
use bevy_player_data::{
    prelude::*,
    server::WaitForPurchase,
    session::{Attempts, RetryPolicy},
    store::{Enqueued, Notice, StoreError},
    testing::{Fault, FaultRates, Faults, FaultyStore, Op},
};
use bevy_renet::{RenetServer, RenetServerPlugin};
use tokio::{runtime::Runtime, time};

use crate::{
    driven::{self, Presence, paused_runtime, run_on_one_thread},
    ears::{Flushed, Lost, listen},
    game::{self, Build, Deeds, Everybody, Journal},
    split_store::{Split, SplitStore},
    wire::{Sabotage, Wire},
};

/// How much time passes with each tick.
pub const TICK: Duration = Duration::from_millis(50);
/// How long a server may be silent before its locks may be taken over.
pub const LEASE_TTL: Duration = Duration::from_millis(400);
/// How long saving everybody may take on exit.
pub const EXIT_DEADLINE: Duration = Duration::from_millis(300);
/// How long a provider waits for the answer to a callback.
const CALLBACK_TIMEOUT: Duration = Duration::from_millis(100);

/// How a server is to be.
#[derive(Clone, Debug)]
pub struct Make {
    pub number: usize,
    pub build: Build,
    pub seed: u64,
    pub autosave: bool,
    pub rates: FaultRates,
}

pub struct Server {
    // In the order in which they go in a crash: first whatever is under way.
    inbox: ReceiptInbox,
    runtime: Arc<Runtime>,
    pub app: App,
    pub faults: Faults,
    pub build: Build,
    /// Whether it stands still, with everything that is under way.
    pub is_paused: bool,
    met: BTreeMap<&'static str, u64>,
    wire: Wire,
}

/// The requests that fail.
pub const OPS: [(Op, &str); 11] = [
    (Op::Commit, "commit"),
    (Op::Acquire, "acquire"),
    (Op::Enqueue, "enqueue"),
    (Op::Receipts, "receipts"),
    (Op::Arrivals, "arrivals"),
    (Op::Lease, "lease"),
    (Op::Retire, "retire"),
    (Op::Peek, "peek"),
    (Op::Wish, "wish"),
    (Op::Withdraw, "withdraw"),
    (Op::Wishes, "wishes"),
];

impl Server {
    pub fn start(wire: &Wire, make: &Make, everybody: &Everybody, deeds: &Deeds) -> Self {
        let runtime = paused_runtime();
        let store = FaultyStore::new(wire.connect(), make.seed);
        let faults = store.faults();
        faults.set_rates(make.rates.clone());
        let split = |split| PlayerDataPlugin::server(SplitStore::new(Arc::new(store.clone()), split, || {}));
        let plugin = match wire.sabotage() {
            Some(Sabotage::SplitTrades) => split(Split::Trades),
            Some(Sabotage::SplitPurchases) => split(Split::Purchases),
            _ => PlayerDataPlugin::server(store.clone()),
        };
        let mut app = App::new();
        app.add_plugins(TimePlugin)
            .insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
            .add_plugins((
                RenetServerPlugin,
                plugin
                    .with_settings(settings(make))
                    .driven_by(Arc::clone(&runtime)),
            ))
            .insert_resource(RenetServer::new(
                bevy_renet::renet::ConnectionConfig::default().with_player_data(),
            ))
            .insert_resource(everybody.clone())
            .insert_resource(deeds.clone());
        game::server_data(&mut app, make.build, wire.sabotage() == Some(Sabotage::OpenDiary));
        listen(&mut app, wire);
        run_on_one_thread(&mut app);
        let inbox = driven::inbox(app.world_mut());
        wire.tell(&format!("start {make:?}"));
        Self {
            inbox,
            runtime,
            app,
            faults,
            build: make.build,
            is_paused: false,
            met: BTreeMap::new(),
            wire: wire.clone(),
        }
    }

    pub fn tick(&mut self) {
        self.app.update();
        self.run(TICK);
    }

    fn run(&self, time: Duration) {
        self.runtime.block_on(async { time::sleep(time).await });
    }

    /// Exits in order, and says what it said of that: of the flush, and of sessions that were found to be lost in the
    /// very update of the exit. What is left of the process is to be dropped.
    pub fn exit(&mut self) -> (PlayerDataFlushed, Lost, Duration) {
        let before = self.now();
        self.app.insert_resource(Lost::default());
        self.app.world_mut().write_message(AppExit::Success);
        self.app.update();
        let flushed = self.app.world_mut().resource_mut::<Flushed>().0.take();
        let flushed = flushed.expect("an exit flushes");
        let lost = std::mem::take(&mut *self.app.world_mut().resource_mut::<Lost>());
        (flushed, lost, self.now() - before)
    }

    fn now(&self) -> time::Instant {
        self.runtime.block_on(async { time::Instant::now() })
    }

    /// A provider's callback.
    pub fn call_back(&self, receipt: NewReceipt, notice: Notice) -> Result<Enqueued, StoreError> {
        let call = async { time::timeout(CALLBACK_TIMEOUT, self.inbox.enqueue(receipt, notice)).await };
        let answer = self.runtime.block_on(call);
        answer.unwrap_or_else(|_| Err(StoreError::unavailable("the provider waits no longer")))
    }

    pub fn submit(&mut self, receipt: NewReceipt) -> WaitForPurchase {
        driven::submit(self.app.world_mut(), receipt)
    }

    pub fn fail(&mut self, op: Op, fault: Fault, times: usize) {
        self.faults.fail_next(op, times, fault);
    }

    /// Counts the faults that were met since the last call.
    pub fn count(&mut self) {
        for (op, name) in OPS {
            let injected = self.faults.injected(op);
            let met = self.met.insert(name, injected).unwrap_or_default();
            self.wire
                .oracle(|oracle| oracle.tally.add("faults", name, injected - met));
        }
    }

    /// Everybody who is a player here, in whatever state.
    pub fn players(&mut self) -> Vec<(Entity, PlayerId, Presence)> {
        driven::players(self.app.world_mut())
    }

    /// How many requests have not been answered yet.
    pub fn under_way(&mut self) -> usize {
        driven::queue_len(self.app.world_mut()) + self.faults.late()
    }

    pub fn journal(&self, entity: Entity) -> Option<&[u32]> {
        Some(&self.app.world().get::<Journal>(entity)?.0)
    }
}

/// Times that fit the tick: every pause ends within a few.
fn settings(make: &Make) -> ServerSettings {
    ServerSettings {
        name: format!("server {}", make.number),
        beat: Duration::from_millis(100),
        lease_ttl: LEASE_TTL,
        autosave: make.autosave.then_some(Duration::from_millis(300)),
        load_timeout: Duration::from_millis(1500),
        exit_deadline: EXIT_DEADLINE,
        retry: RetryPolicy {
            first: Duration::from_millis(10),
            max: Duration::from_millis(80),
            attempts: Attempts::Limited(3),
            attempt_timeout: Duration::from_millis(150),
            ..RetryPolicy::default()
        },
        auto_join: false,
        handle_signals: false,
        hand_off: HandOffSettings {
            poll: TICK / 2,
            min_session: Duration::from_millis(150),
            ask_again: Duration::from_millis(200),
            ..default()
        },
        purchases: PurchaseSettings {
            poll: Duration::from_millis(150),
            first_retry: Duration::from_millis(20),
            longest_retry: Duration::from_millis(40),
            ..default()
        },
        ..default()
    }
}
