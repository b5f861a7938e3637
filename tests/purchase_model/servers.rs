//! The system under test: two servers with real apps on one store, and a third process that runs no game.
//!
//! Each server has a runtime of its own with a paused clock, so that nothing happens but what a step lets happen, and so
//! that a crash ends whatever was under way, as the end of a process does.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use bevy::{
    prelude::*,
    time::{TimePlugin, TimeUpdateStrategy},
};
use bevy_player_data::{
    PurchaseId,
    prelude::*,
    server::WaitForPurchase,
    session::{Attempts, RetryPolicy},
    store::{Enqueued, Notice, Store, StoreError, StoredReceipt},
    testing::{Fault, FaultRates, Faults, FaultyStore, Op},
};
use tokio::{runtime::Runtime, time};

use crate::{
    at_once::AtOnce,
    driven::{self, Presence, paused_runtime, run_on_one_thread},
    late_replies::{Delays, LateReplies},
    market::{SERVERS, Via},
    shop::{self, Mishaps},
    split_store::{Split, SplitStore},
    stored::{is_true, look},
    tally::Tally,
};

/// How much time passes with each tick.
const TICK: Duration = Duration::from_millis(50);
/// How long a provider waits for the answer to a callback.
const CALLBACK_TIMEOUT: Duration = Duration::from_millis(100);

/// Whether the store does what it promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Soundness {
    Sound,
    /// It saves awards and their settlements one after the other.
    Split,
}

pub struct Cluster {
    /// For looking at the rows only.
    pub rows: AtOnce,
    elsewhere: ReceiptInbox,
    pub servers: [Option<Server>; SERVERS],
    soundness: Soundness,
}

impl Cluster {
    pub fn start(soundness: Soundness) -> Self {
        let rows = AtOnce::default();
        Self {
            elsewhere: ReceiptInbox::new(rows.connect()),
            servers: std::array::from_fn(|n| Some(Server::start(n, &rows, soundness))),
            rows,
            soundness,
        }
    }

    /// Starts a server that is down.
    pub fn restart(&mut self, server: usize) {
        let place = &mut self.servers[server];
        place.get_or_insert_with(|| Server::start(server, &self.rows, self.soundness));
    }

    pub fn running(&mut self) -> impl Iterator<Item = &mut Server> {
        self.servers.iter_mut().flatten()
    }

    /// A provider's callback. `None` for a process that does not run.
    pub fn call_back(
        &mut self,
        via: Via,
        receipt: NewReceipt,
        notice: Notice,
    ) -> Option<Result<Enqueued, StoreError>> {
        match via {
            Via::Elsewhere => Some(look(self.elsewhere.enqueue(receipt, notice))),
            Via::Server(server) => {
                let Server { runtime, inbox, .. } = self.servers[server].as_ref()?;
                let call = async { time::timeout(CALLBACK_TIMEOUT, inbox.enqueue(receipt, notice)).await };
                let answer = runtime.block_on(call);
                Some(answer.unwrap_or_else(|_| Err(StoreError::unavailable("the provider waits no longer"))))
            }
        }
    }

    pub fn receipt(&self, purchase: &PurchaseId) -> Option<StoredReceipt> {
        look(self.rows.receipt(purchase.clone())).expect("the rows can be read")
    }
}

/// A server process.
pub struct Server {
    // In the order in which they go in a crash: first whatever is under way.
    inbox: ReceiptInbox,
    runtime: Arc<Runtime>,
    pub app: App,
    faults: Faults,
    delays: Delays,
    /// The faults that were asked for and not met yet, and how many of each kind of request have met one.
    scripts: BTreeMap<&'static str, VecDeque<(Fault, usize)>>,
    met: BTreeMap<&'static str, u64>,
}

/// The requests that are failed on purpose.
pub const OPS: [(Op, &str); 6] = [
    (Op::Commit, "commit"),
    (Op::Acquire, "acquire"),
    (Op::Enqueue, "enqueue"),
    (Op::Receipts, "receipts"),
    (Op::Arrivals, "arrivals"),
    (Op::Lease, "lease"),
];

/// What is counted beside the faults of [`OPS`].
pub const LATE_REPLY: &str = "receipts: reply late";

pub fn op_name(op: Op) -> &'static str {
    OPS.iter()
        .find(|(known, _)| *known == op)
        .map_or("another", |(_, name)| name)
}

pub fn fault_name(fault: Fault) -> &'static str {
    match fault {
        Fault::Before => "before",
        Fault::After => "after",
        Fault::Late(_) => "late",
        Fault::Hang => "hang",
    }
}

impl Server {
    fn start(n: usize, rows: &AtOnce, soundness: Soundness) -> Self {
        let runtime = paused_runtime();
        let store = FaultyStore::new(rows.connect(), 1);
        let faults = store.faults();
        let store = LateReplies::new(store);
        let delays = store.delays();
        let plugin = match soundness {
            Soundness::Sound => PlayerDataPlugin::server(store),
            Soundness::Split => {
                PlayerDataPlugin::server(SplitStore::new(Arc::new(store), Split::Purchases, || {}))
            }
        };
        let mut app = App::new();
        app.add_plugins(TimePlugin)
            .insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
            .add_plugins(plugin.with_settings(settings(n)).driven_by(Arc::clone(&runtime)))
            .insert_resource(Answers::new(rows))
            .add_observer(hear)
            .add_observer(|on: On<PlayerSessionEnded>, mut answers: ResMut<Answers>| {
                answers.ended.push(on.reason);
            })
            .add_plugins(shop::open_shop);
        run_on_one_thread(&mut app);
        let inbox = driven::inbox(app.world_mut());
        Self {
            inbox,
            runtime,
            app,
            faults,
            delays,
            scripts: BTreeMap::new(),
            met: BTreeMap::new(),
        }
    }

    /// Lets the next requests of a kind meet a fault.
    pub fn fail(&mut self, op: Op, fault: Fault, times: usize) {
        self.faults.fail_next(op, times, fault);
        self.scripts
            .entry(op_name(op))
            .or_default()
            .push_back((fault, times));
    }

    /// Lets the reply be late when open receipts are read for the next time.
    pub fn delay_reply(&self, delay: Duration) {
        self.delays.push(delay);
    }

    pub fn slow(&self, latency: Duration) {
        self.faults.set_rates(FaultRates {
            latency: latency..=latency,
            ..FaultRates::default()
        });
    }

    /// From now on the store is there, or not.
    pub fn set_store(&self, is_up: bool) {
        if is_up {
            self.faults.up();
        } else {
            self.faults.down();
        }
    }

    /// Ends all faults, and lets what hangs go on.
    pub fn heal(&mut self) {
        self.faults.clear();
        self.delays.clear();
        self.scripts.clear();
    }

    /// How many requests have not been answered yet.
    pub fn under_way(&mut self) -> usize {
        driven::queue_len(self.app.world_mut()) + self.faults.late()
    }

    /// Counts the faults that were met since the last call, and the accidents of handlers.
    pub fn count(&mut self, tally: &mut Tally) {
        for (op, name) in OPS {
            let injected = self.faults.injected(op);
            let met = self.met.insert(name, injected).unwrap_or_default();
            let script = self.scripts.entry(name).or_default();
            for _ in met..injected {
                // What was asked for comes before what a store that is down does.
                let fault = match script.front_mut() {
                    Some((fault, times)) => {
                        let fault = *fault;
                        *times -= 1;
                        if *times == 0 {
                            script.pop_front();
                        }
                        fault_name(fault)
                    }
                    None => "store down",
                };
                tally.count("faults", format!("{name}: {fault}"));
            }
        }
        tally.add("faults", LATE_REPLY, self.delays.take_met());
        for mishap in self.app.world_mut().resource_mut::<Mishaps>().done.drain(..) {
            tally.count("mishaps", format!("{mishap:?}"));
        }
    }

    pub fn tick(&mut self) {
        self.app.update();
        self.run(TICK);
    }

    pub fn run(&self, time: Duration) {
        self.runtime.block_on(async { time::sleep(time).await });
    }

    /// Exits in order. What is left of the process is to be dropped.
    pub fn exit(&mut self) {
        self.app.world_mut().write_message(AppExit::Success);
        self.app.update();
    }

    pub fn submit(&mut self, receipt: NewReceipt) -> WaitForPurchase {
        driven::submit(self.app.world_mut(), receipt)
    }

    pub fn join(&mut self, player: PlayerId) -> Entity {
        self.app.world_mut().spawn(PersistentPlayer(player)).id()
    }

    /// Everybody who is a player here, in whatever state.
    pub fn players(&mut self) -> Vec<(Entity, PlayerId, Presence)> {
        driven::players(self.app.world_mut())
    }

    /// The newest entity of a player.
    pub fn entity_of(&mut self, player: PlayerId) -> Option<Entity> {
        let mut players = self.players();
        players.retain(|&(_, who, _)| who == player);
        players.last().map(|&(entity, ..)| entity)
    }
}

/// Times that fit the tick: every pause ends within a few.
fn settings(n: usize) -> ServerSettings {
    ServerSettings {
        name: format!("server {n}"),
        beat: Duration::from_millis(100),
        lease_ttl: Duration::from_millis(400),
        autosave: Some(Duration::from_millis(300)),
        load_timeout: Duration::from_millis(1500),
        // Of the wall clock's time, alas.
        exit_deadline: Duration::from_millis(300),
        retry: RetryPolicy {
            first: Duration::from_millis(10),
            max: Duration::from_millis(80),
            jitter: 0.0,
            attempts: Attempts::Limited(3),
            attempt_timeout: Duration::from_millis(150),
            ..RetryPolicy::default()
        },
        auto_join: false,
        handle_signals: false,
        purchases: PurchaseSettings {
            poll: Duration::from_millis(150),
            first_retry: Duration::from_millis(20),
            longest_retry: Duration::from_millis(40),
            ..default()
        },
        ..default()
    }
}

/// What the game was told about purchases, judged at that very moment.
#[derive(Resource)]
pub struct Answers {
    rows: AtOnce,
    pub heard: Vec<PurchaseDecision>,
    /// Why sessions have ended.
    pub ended: Vec<SessionEnd>,
    pub problems: Vec<String>,
}

impl Answers {
    fn new(rows: &AtOnce) -> Self {
        Self {
            rows: rows.clone(),
            heard: Vec::new(),
            ended: Vec::new(),
            problems: Vec::new(),
        }
    }
}

fn hear(on: On<PurchaseProcessed>, mut answers: ResMut<Answers>) {
    let row = look(answers.rows.receipt(on.purchase.clone())).expect("the rows can be read");
    if let Err(problem) = is_true(&on.decision, row.as_ref()) {
        answers.problems.push(format!(
            "`{}` was answered with \"{}\", but {problem}",
            on.purchase, on.decision
        ));
    }
    answers.heard.push(on.decision.clone());
}
