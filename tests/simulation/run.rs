//! One history: what happens is drawn from a seed, and then everything has to come to its end.

mod ending;

use std::{
    collections::BTreeMap,
    fmt,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    server::WaitForPurchase,
    store::{Notice, Store, StoreError},
    testing::{Fault, FaultRates, Faults, follow_seed},
};

use crate::{
    client::Client,
    driven::Presence,
    ears::Leaving,
    game::{self, Build, Deeds, Everybody, NEVER, NotNow, PRODUCT, give_relic, play},
    oracle::Check,
    server::{EXIT_DEADLINE, Make, OPS, Server, TICK},
    step::Step,
    stored::{is_true, look, name_of},
    tally::Tally,
    wire::{Sabotage, Wire},
};

/// How many servers and players there are.
const SERVERS: usize = 3;
const PLAYERS: usize = 4;
/// How many steps a history has.
const STEPS: std::ops::RangeInclusive<usize> = 40..=120;

/// What came of a history.
pub struct Outcome {
    pub history: String,
    pub tally: Tally,
    pub verdict: Check,
    /// Whether there was something to withstand, and something to lose.
    pub counts: bool,
}

/// Lets a whole history happen, on a store of this kind.
pub fn run(seed: u64, store: &str, sabotage: Option<Sabotage>) -> Outcome {
    follow_seed(Some(seed));
    let mut simulation = Simulation::new(seed, store, sabotage);
    let verdict = simulation.play();
    let outcome = simulation.conclude(verdict);
    follow_seed(None);
    outcome
}

struct Simulation {
    random: fastrand::Rng,
    wire: Wire,
    everybody: Everybody,
    deeds: Deeds,
    servers: [Option<Server>; SERVERS],
    clients: Vec<Client>,
    next_client: u64,
    purchases: Vec<Purchase>,
    asked: Vec<(usize, Pin<Box<WaitForPurchase>>)>,
    /// What random faults all servers of this history meet.
    rates: FaultRates,
    autosave: bool,
    counts: bool,
}

/// A purchase, as the payment provider knows it.
struct Purchase {
    id: PurchaseId,
    player: PlayerId,
    paid_is_known: bool,
    refunded: bool,
    refund_is_known: bool,
}

impl Simulation {
    fn new(seed: u64, store: &str, sabotage: Option<Sabotage>) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let wire = Wire::new(store, sabotage);
        let players: Vec<_> = (0..PLAYERS)
            .map(|n| PlayerId::from_name(&format!("player {n}")))
            .collect();
        let rates = if random.u8(..4) == 0 {
            FaultRates {
                before: 0.03,
                after: 0.03,
                late: 0.02,
                late_by: Duration::from_millis(20)..=Duration::from_millis(1200),
                latency: Duration::ZERO..=Duration::from_millis(30),
            }
        } else {
            FaultRates::default()
        };
        let clients = players.iter().map(|&player| Client::new(player, &wire)).collect();
        let mut simulation = Self {
            clients,
            everybody: Everybody(players),
            deeds: Deeds::default(),
            servers: Default::default(),
            next_client: 0,
            purchases: Vec::new(),
            asked: Vec::new(),
            rates,
            autosave: random.u8(..4) > 0,
            counts: false,
            random,
            wire,
        };
        for server in 0..SERVERS {
            simulation.start(server);
        }
        simulation
    }

    fn play(&mut self) -> Check {
        let steps = self.random.usize(STEPS);
        self.ticks(2)?;
        for _ in 0..steps {
            let step = Step::draw(&mut self.random);
            self.wire.oracle(|oracle| {
                oracle.tally.count("steps", format!("{step:?}"));
                oracle.tell(&format!("step {step:?}"));
            });
            self.take(step)?;
            self.verdict()?;
            let ticks = self.random.usize(0..3);
            self.ticks(ticks)?;
        }
        self.count();
        let (commits, faults) = self.wire.oracle(|oracle| {
            let faults = oracle.tally.sum("faults") + oracle.tally.sum("crashes");
            (oracle.commits(), faults)
        });
        self.counts = commits > 0 && faults > 0;
        self.settle()
    }

    fn conclude(mut self, verdict: Check) -> Outcome {
        self.count();
        // A violation that was seen on the way comes before what followed from it.
        let verdict = self.verdict().and(verdict);
        let counts = self.counts;
        drop(self.servers);
        self.wire.oracle(|oracle| Outcome {
            history: std::mem::take(&mut oracle.history),
            tally: std::mem::take(&mut oracle.tally),
            verdict,
            counts,
        })
    }

    fn verdict(&self) -> Check {
        self.wire.oracle(|oracle| oracle.verdict())
    }

    fn count(&mut self) {
        self.servers.iter_mut().flatten().for_each(Server::count);
    }

    fn ticks(&mut self, ticks: usize) -> Check {
        for _ in 0..ticks {
            self.tick();
            self.verdict()?;
            self.hear()?;
        }
        Ok(())
    }

    fn tick(&mut self) {
        self.wire.tick();
        for server in self
            .servers
            .iter_mut()
            .flatten()
            .filter(|server| !server.is_paused)
        {
            server.tick();
        }
        for client in &mut self.clients {
            let server = client.server().and_then(|server| self.servers[server].as_mut());
            let server = server.filter(|server| !server.is_paused);
            client.tick(server, &self.everybody.0);
        }
    }

    /// Takes in what was answered to those who submitted a receipt, and whether it is true.
    fn hear(&mut self) -> Check {
        for (purchase, mut answer) in std::mem::take(&mut self.asked) {
            match answer.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Pending => self.asked.push((purchase, answer)),
                Poll::Ready(Ok(decision)) => {
                    let purchase = &mut self.purchases[purchase];
                    let row =
                        look(self.wire.rows().receipt(purchase.id.clone())).expect("the rows can be read");
                    self.wire
                        .oracle(|oracle| oracle.tally.count("submissions", name_of(&decision)));
                    // A receipt that could not be stored is not processed either.
                    if row.is_some() || decision != PurchaseDecision::NotProcessedYet {
                        is_true(&decision, row.as_ref()).map_err(|problem| {
                            format!("I6: `{}` is said to be {decision}, but {problem}", purchase.id)
                        })?;
                    }
                    purchase.paid_is_known |= row.is_some();
                }
                // The server is gone, and nothing was promised.
                Poll::Ready(Err(_)) => {}
            }
        }
        Ok(())
    }

    fn take(&mut self, step: Step) -> Check {
        let server = self.random.usize(..SERVERS);
        let player = self.random.usize(..PLAYERS);
        match step {
            Step::Join => self.join(player, server),
            Step::Leave => self.leave(player),
            Step::Hop => {
                self.leave(player);
                self.join(player, server);
            }
            Step::HandOff => {
                if self.where_is(player).is_some_and(|from| from != server) {
                    self.join(player, server);
                    self.ticks(8)?;
                }
            }
            Step::Transfer => {
                self.of_player(player, |world, entity, _| {
                    let to = "another server".to_owned();
                    world.trigger(TransferPlayer { entity, to });
                });
                self.ticks(2)?;
                self.join(player, server);
            }
            Step::TakeOver => {
                if let Some(from) = self.where_is(player).filter(|&from| from != server) {
                    self.pause(from);
                    self.join(player, server);
                    self.ticks(14)?;
                }
            }
            Step::Play => {
                let is_mixed_up = self.wire.sabotage() == Some(Sabotage::SavedFallbacks);
                self.of_player(player, |world, entity, presence| {
                    play(world, entity, presence == Presence::InSession && !is_mixed_up);
                });
            }
            Step::Save => self.of_player(player, |world, entity, _| world.trigger(SavePlayer { entity })),
            Step::Trade => self.trade(server),
            Step::Buy => {
                self.buy(player);
                self.call_back(self.purchases.len() - 1, Notice::Paid, server)?;
            }
            Step::Repeat | Step::Refund => {
                let notice = if step == Step::Refund {
                    Notice::Refund
                } else {
                    Notice::Paid
                };
                if !self.purchases.is_empty() {
                    let purchase = self.random.usize(..self.purchases.len());
                    self.call_back(purchase, notice, server)?;
                }
            }
            Step::Submit => self.submit(player, server),
            Step::NotNow => {
                if let Some(server) = &mut self.servers[server] {
                    server.app.world_mut().resource_mut::<NotNow>().0 += 1;
                }
            }
            Step::Fail => self.fail(server),
            Step::HoldBack => {
                let (others, ticks) = (self.random.usize(..3), self.random.u64(1..40));
                self.wire.hold_back(others, ticks);
            }
            Step::Slow => self.slow(server),
            Step::Down => self.with_faults(server, |faults| faults.down()),
            Step::Hang => self.with_faults(server, |faults| faults.hang()),
            Step::Heal => self.heal(server),
            Step::Pause => self.pause(server),
            Step::GoOn => self.go_on(server),
            Step::Crash => self.crash(server),
            Step::Exit => self.exit(server)?,
            Step::Start => self.start(server),
            Step::Wait => {
                let ticks = self.random.usize(2..10);
                self.ticks(ticks)?;
            }
        }
        Ok(())
    }

    // Players

    /// A server that runs and doesn't stand still.
    fn awake(&mut self, server: usize) -> Option<&mut Server> {
        self.servers[server].as_mut().filter(|server| !server.is_paused)
    }

    /// The first server that takes the player for present.
    fn where_is(&mut self, player: usize) -> Option<usize> {
        let player = self.everybody.0[player];
        (0..SERVERS).find(|&server| {
            self.awake(server)
                .is_some_and(|server| server.players().iter().any(|&(_, who, _)| who == player))
        })
    }

    /// Sometimes with a client, sometimes without one.
    fn join(&mut self, player: usize, server: usize) {
        let has_client = self.random.u8(..3) > 0;
        let id = self.everybody.0[player];
        if self.awake(server).is_none() {
            return;
        }
        if has_client {
            self.disconnect(player);
        }
        let Some(place) = self.servers[server].as_mut() else {
            return;
        };
        if has_client {
            self.next_client += 1;
            self.clients[player].connect(server, place, self.next_client);
            let components = (PersistentPlayer(id), PlayerClient(self.next_client));
            place.app.world_mut().spawn(components);
        } else {
            place.app.world_mut().spawn(PersistentPlayer(id));
        }
    }

    fn disconnect(&mut self, player: usize) {
        let server = self.clients[player].server();
        let server = server.and_then(|server| self.servers[server].as_mut());
        self.clients[player].disconnect(server);
    }

    fn leave(&mut self, player: usize) {
        self.of_player(player, |world, entity, presence| {
            if presence == Presence::InSession
                && let Some(journal) = world
                    .get::<game::Journal>(entity)
                    .map(|journal| journal.0.clone())
            {
                let PersistentPlayer(player) = *world.get(entity).expect("a player");
                world
                    .resource_mut::<Leaving>()
                    .0
                    .insert(entity, (player, journal));
            }
            world.despawn(entity);
        });
    }

    /// Does something to a player's newest entity, wherever they are.
    fn of_player(&mut self, player: usize, act: impl FnOnce(&mut World, Entity, Presence)) {
        let id = self.everybody.0[player];
        let Some(server) = self.where_is(player).and_then(|server| self.awake(server)) else {
            return;
        };
        let mut players = server.players();
        players.retain(|&(_, who, _)| who == id);
        if let Some(&(entity, _, presence)) = players.last() {
            let world = server.app.world_mut();
            act(world, entity, presence);
            world.flush();
        }
    }

    /// A relic goes from one player in a session to another on the same server.
    fn trade(&mut self, first: usize) {
        for server in (first..SERVERS).chain(0..first) {
            let Some(place) = self.servers[server].as_mut().filter(|server| !server.is_paused) else {
                continue;
            };
            let mut players = place.players();
            players.retain(|&(.., presence)| presence == Presence::InSession);
            if players.len() < 2 {
                continue;
            }
            self.random.shuffle(&mut players);
            let world = place.app.world_mut();
            world.commands().trade([players[0].0, players[1].0], give_relic);
            world.flush();
            return;
        }
    }

    // Purchases

    fn buy(&mut self, player: usize) {
        let never = if self.random.u8(..6) == 0 { NEVER } else { "" };
        let id = format!("p{}{never}", self.purchases.len());
        self.purchases.push(Purchase {
            id: id.parse().expect("a purchase id"),
            player: self.everybody.0[player],
            paid_is_known: false,
            refunded: false,
            refund_is_known: false,
        });
    }

    fn receipt(&self, purchase: usize) -> NewReceipt {
        let Purchase { id, player, .. } = &self.purchases[purchase];
        NewReceipt::new(id.clone(), *player, PRODUCT.parse().expect("a product id"))
    }

    /// The provider says what has become of a purchase, and remembers whether it was heard.
    fn call_back(&mut self, purchase: usize, notice: Notice, server: usize) -> Check {
        let receipt = self.receipt(purchase);
        self.purchases[purchase].refunded |= notice == Notice::Refund;
        let answer = match self.awake(server) {
            Some(server) => server.call_back(receipt, notice),
            None => return Ok(()),
        };
        self.take_answer(purchase, notice, answer.map(drop))
    }

    fn take_answer(&mut self, purchase: usize, notice: Notice, answer: Result<(), StoreError>) -> Check {
        let purchase = &mut self.purchases[purchase];
        match answer {
            Ok(()) => {
                purchase.paid_is_known = true;
                purchase.refund_is_known |= notice == Notice::Refund;
                Ok(())
            }
            Err(StoreError::Unavailable { .. }) => Ok(()),
            Err(error) => Err(format!("I5: handing in `{}` failed: {error}", purchase.id)),
        }
    }

    fn submit(&mut self, player: usize, server: usize) {
        if self.awake(server).is_none() {
            return;
        }
        if self.purchases.is_empty() || self.random.bool() {
            self.buy(player);
        }
        let purchase = self.purchases.len() - 1;
        let receipt = self.receipt(purchase);
        if let Some(server) = self.awake(server) {
            let answer = Box::pin(server.submit(receipt));
            self.asked.push((purchase, answer));
        }
    }

    // Servers and their store

    fn with_faults(&mut self, server: usize, act: impl FnOnce(&Faults)) {
        if let Some(server) = &self.servers[server] {
            act(&server.faults);
        }
    }

    fn fail(&mut self, server: usize) {
        let (op, name) = OPS[self.random.usize(..OPS.len())];
        // Most of all where it hurts.
        let (op, _) = if self.random.bool() { OPS[0] } else { (op, name) };
        let fault = match self.random.u8(..4) {
            0 => Fault::Before,
            1 => Fault::After,
            2 => Fault::Late(Duration::from_millis(self.random.u64(10..1500))),
            _ => Fault::Hang,
        };
        let times = self.random.usize(1..5);
        if let Some(server) = &mut self.servers[server] {
            server.fail(op, fault, times);
        }
    }

    fn slow(&mut self, server: usize) {
        let latency = Duration::from_millis(self.random.u64(20..200));
        let rates = FaultRates {
            latency: latency / 4..=latency,
            ..self.rates.clone()
        };
        self.with_faults(server, |faults| faults.set_rates(rates));
    }

    fn heal(&mut self, server: usize) {
        let rates = self.rates.clone();
        self.with_faults(server, |faults| {
            faults.clear();
            faults.set_rates(rates);
        });
    }

    fn pause(&mut self, server: usize) {
        if let Some(server) = &mut self.servers[server] {
            server.is_paused = true;
        }
    }

    fn go_on(&mut self, server: usize) {
        if let Some(server) = &mut self.servers[server] {
            server.is_paused = false;
        }
    }

    fn start(&mut self, server: usize) {
        if self.servers[server].is_some() {
            return;
        }
        let build = if self.random.u8(..4) == 0 {
            Build::Old
        } else {
            Build::New
        };
        let make = Make {
            number: server,
            build,
            seed: self.random.u64(..),
            autosave: self.autosave,
            rates: self.rates.clone(),
        };
        self.servers[server] = Some(Server::start(&self.wire, &make, &self.everybody, &self.deeds));
    }

    fn crash(&mut self, server: usize) {
        let Some(mut dead) = self.servers[server].take() else {
            return;
        };
        dead.count();
        let is_busy = dead.under_way() > 0;
        drop(dead);
        self.cut_off(server);
        self.wire.oracle(|oracle| {
            let name = if is_busy {
                "with requests under way"
            } else {
                "at rest"
            };
            oracle.tally.count("crashes", name);
        });
    }

    /// The clients of a server that is gone notice it.
    fn cut_off(&mut self, server: usize) {
        for client in &mut self.clients {
            if client.server() == Some(server) {
                client.disconnect(None);
            }
        }
    }

    /// Whoever is not named as not saved is saved, and it ends in time.
    fn exit(&mut self, server: usize) -> Check {
        let Some(mut place) = self.servers[server].take_if(|server| !server.is_paused) else {
            return Ok(());
        };
        place.count();
        let mut present = BTreeMap::new();
        for (entity, player, presence) in place.players() {
            if presence == Presence::InSession
                && let Some(journal) = place.journal(entity)
            {
                present.insert(player, journal.to_vec());
            }
        }
        let (flushed, lost, elapsed) = place.exit();
        let unanswered = std::mem::take(&mut place.app.world_mut().resource_mut::<Leaving>().0);
        place.count();
        drop(place);
        self.cut_off(server);
        let unsaved: Vec<PlayerId> = if self.wire.sabotage() == Some(Sabotage::SilentExit) {
            Vec::new()
        } else {
            flushed.unsaved.iter().map(|unsaved| unsaved.player).collect()
        };
        self.wire.oracle(|oracle| {
            oracle.tell(&format!("exit: {} of {}, unsaved {:?}", flushed.saved(), flushed.total, flushed.unsaved));
            let name = if unsaved.is_empty() { "all saved" } else { "some named as not saved" };
            oracle.tally.count("exits", name);
            if elapsed > EXIT_DEADLINE + 2 * TICK {
                oracle.judge(Err(format!("I8: an exit took {elapsed:?}")));
            }
            for (player, journal) in unanswered.into_values() {
                oracle.judge(Err(format!(
                    "I8: {player} left with {journal:?} before the exit, and nobody said what became of it"
                )));
            }
            for (player, journal) in present {
                if !unsaved.contains(&player) && !lost.0.contains(&player) && !oracle.journal(player).starts_with(&journal) {
                    let stored = oracle.journal(player).to_vec();
                    oracle.judge(Err(format!(
                        "I8: {player} was not saved on exit, and nobody said so: {journal:?} was in memory, and stored \
                         is {stored:?}"
                    )));
                }
            }
        });
        self.verdict()
    }
}

impl fmt::Debug for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outcome")
            .field("verdict", &self.verdict)
            .finish_non_exhaustive()
    }
}
