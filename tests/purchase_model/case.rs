//! One case: its steps, each followed by a look at the books, and the end, where everything has to settle.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    server::WaitForPurchase,
    store::{Enqueued, Notice, Store, StoreError, StoredReceipt},
};

use crate::{
    books::{Books, Check, Purchase},
    driven::Presence,
    market::{Market, Order, PLAYERS, SERVERS, Step, Via},
    servers::{Answers, Cluster, Server},
    shop::{Mishaps, NEVER, PRODUCTS, Score, give_gem, play},
    stored::{is_true, look, name_of},
    tally::Tally,
};

/// After how many ticks without faults everything has to be settled.
const PATIENCE: usize = 200;

/// After how many ticks of another server's own it sees that a lease has lapsed.
const TICKS_TO_LAPSE: usize = 14;

pub struct Case<'a> {
    cluster: &'a mut Cluster,
    /// Makes the case's names its own.
    number: u64,
    books: Books,
    asked: Vec<Asked>,
    pub tally: Tally,
}

/// A purchase that was submitted and not answered yet.
struct Asked {
    purchase: u8,
    answer: Pin<Box<WaitForPurchase>>,
}

impl<'a> Case<'a> {
    pub fn new(cluster: &'a mut Cluster, number: u64) -> Self {
        let player = |n| PlayerId::from_name(&format!("{number}/{n}"));
        Self {
            cluster,
            number,
            books: Books::new(std::array::from_fn(player)),
            asked: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Brings everybody in who is there from the beginning.
    pub fn open(&mut self) -> Check {
        for (player, server) in Market::opening().present() {
            self.join(player, server);
        }
        self.tick();
        self.cluster.running().for_each(|server| server.app.update());
        self.check()
    }

    /// Takes a step, and looks at what has come of it.
    pub fn step(&mut self, step: &Step) -> Check {
        self.tally.count("steps", step.name());
        self.take(step)?;
        self.check()
    }

    /// Whether there was something to withstand, and something to lose.
    pub fn counts(&mut self) -> bool {
        self.count();
        let crashes = self.tally.get("steps", "crash");
        let faults = self.tally.sum("faults");
        let commits = self.books.commits(self.cluster);
        self.tally.add("commits", "before everything settles", commits);
        crashes + faults > 0 && commits > 0
    }

    fn check(&mut self) -> Check {
        self.books.check(self.cluster)?;
        self.hear()
    }

    /// Takes in what was answered, and whether it is true.
    fn hear(&mut self) -> Check {
        for server in self.cluster.servers.iter_mut().flatten() {
            let mut answers = server.app.world_mut().resource_mut::<Answers>();
            for decision in answers.heard.drain(..) {
                self.tally.count("events", name_of(&decision));
            }
            for reason in answers.ended.drain(..) {
                self.tally.count("ends of sessions", format!("{reason:?}"));
                // With a trade, the partner may have been taken over. Otherwise a session settles only what it may.
                if reason == SessionEnd::CommitRefused && self.tally.get("steps", "trade") == 0 {
                    return Err("the store refused a settlement".to_owned());
                }
            }
            if let Some(problem) = answers.problems.pop() {
                return Err(problem);
            }
        }
        let mut waiting = Vec::new();
        for mut asked in std::mem::take(&mut self.asked) {
            match asked
                .answer
                .as_mut()
                .poll(&mut Context::from_waker(Waker::noop()))
            {
                Poll::Pending => waiting.push(asked),
                Poll::Ready(Ok(PurchaseDecision::NotProcessedYet)) => {
                    self.tally.count(
                        "answers to submissions",
                        name_of(&PurchaseDecision::NotProcessedYet),
                    );
                }
                Poll::Ready(Ok(decision)) => {
                    self.tally.count("answers to submissions", name_of(&decision));
                    let purchase = self.purchase(asked.purchase);
                    is_true(&decision, purchase.row.as_ref()).map_err(|problem| {
                        format!(
                            "`{}` was submitted and answered with \"{decision}\", but {problem}",
                            purchase.id
                        )
                    })?;
                    purchase.paid_is_known = true;
                }
                Poll::Ready(Err(error)) => {
                    let purchase = self.purchase(asked.purchase);
                    return Err(format!("submitting `{}` failed: {error}", purchase.id));
                }
            }
        }
        self.asked = waiting;
        Ok(())
    }

    fn purchase(&mut self, purchase: u8) -> &mut Purchase {
        self.books.purchases.get_mut(&purchase).expect("it was bought")
    }

    fn server(&mut self, server: usize) -> &mut Server {
        self.cluster.servers[server]
            .as_mut()
            .expect("only servers that run are asked for something")
    }

    fn count(&mut self) {
        for server in self.cluster.servers.iter_mut().flatten() {
            server.count(&mut self.tally);
        }
    }

    fn tick(&mut self) {
        self.cluster.running().for_each(Server::tick);
    }

    fn take(&mut self, step: &Step) -> Check {
        match *step {
            Step::Tick { updates } => (0..updates).for_each(|_| self.tick()),
            Step::Stall { but, updates } => (0..updates).for_each(|_| self.server(but).tick()),
            Step::Update { server } => self.server(server).app.update(),
            Step::Run { server, millis } => self.server(server).run(Duration::from_millis(millis.into())),
            Step::Join { player, server } => self.join(player, server),
            Step::Leave { player, server } => self.leave(player, server),
            Step::Hop { player, from } => {
                self.leave(player, from);
                self.join(player, SERVERS - 1 - from);
            }
            Step::TakeOver { player, from } => {
                let to = SERVERS - 1 - from;
                self.join(player, to);
                (0..TICKS_TO_LAPSE).for_each(|_| self.server(to).tick());
            }
            Step::Save { player, server } => self.of_player(player, server, |world, entity| {
                world.trigger(SavePlayer { entity });
            }),
            Step::Play { player, server } => self.of_player(player, server, play),
            Step::Trade { from, to, server } => self.trade(from, to, server),
            Step::Deliver { purchase, order, via } => {
                self.buy(purchase, order);
                self.call_back(purchase, Notice::Paid, via)?;
            }
            Step::RefundFirst { purchase, order, via } => {
                self.buy(purchase, order);
                self.call_back(purchase, Notice::Refund, via)?;
            }
            Step::Repeat { purchase, via } => {
                let state = self.purchase(purchase).row.as_ref().map(|row| row.state.name());
                self.tally
                    .count("repetitions of a receipt that is", state.unwrap_or("not stored"));
                self.call_back(purchase, Notice::Paid, via)?;
            }
            Step::Refund { purchase, via } => {
                let state = self.purchase(purchase).row.as_ref().map(|row| row.state.name());
                self.tally
                    .count("refunds of a receipt that is", state.unwrap_or("not stored"));
                self.call_back(purchase, Notice::Refund, via)?;
            }
            Step::Submit {
                purchase,
                order,
                server,
            } => {
                self.buy(purchase, order);
                self.submit(purchase, server);
            }
            Step::SubmitAgain { purchase, server } => self.submit(purchase, server),
            Step::Conflict { purchase, via } => self.contradict(purchase, via)?,
            Step::Mishap { server, mishap } => {
                self.server(server)
                    .app
                    .world_mut()
                    .resource_mut::<Mishaps>()
                    .next
                    .push_back(mishap);
            }
            Step::Fail {
                server,
                op,
                fault,
                times,
            } => {
                self.count();
                self.server(server).fail(op, fault, times);
            }
            Step::DelayReply { server, millis } => {
                self.server(server)
                    .delay_reply(Duration::from_millis(millis.into()));
            }
            Step::Slow { server, millis } => self.server(server).slow(Duration::from_millis(millis.into())),
            Step::Down { server } => self.set_store(server, false),
            Step::Up { server } => self.set_store(server, true),
            Step::Crash { server } => {
                self.count();
                let is_busy = self.server(server).under_way() > 0;
                self.tally.count(
                    "crashes",
                    if is_busy {
                        "with requests under way"
                    } else {
                        "at rest"
                    },
                );
                self.cluster.servers[server] = None;
            }
            Step::Exit { server } => {
                self.count();
                self.server(server).exit();
                self.check()?;
                self.cluster.servers[server] = None;
            }
            Step::Start { server } => self.cluster.restart(server),
        }
        Ok(())
    }

    fn set_store(&mut self, server: usize, is_up: bool) {
        self.count();
        self.server(server).set_store(is_up);
    }

    fn join(&mut self, player: usize, server: usize) {
        let player = self.books.players[player];
        self.server(server).join(player);
    }

    fn leave(&mut self, player: usize, server: usize) {
        self.of_player(player, server, |world, entity| {
            world.despawn(entity);
        });
    }

    /// Does something to a player's entity, if it is (still) there.
    fn of_player(&mut self, player: usize, server: usize, act: impl FnOnce(&mut World, Entity)) {
        let player = self.books.players[player];
        let server = self.server(server);
        if let Some(entity) = server.entity_of(player) {
            let world = server.app.world_mut();
            act(world, entity);
            world.flush();
        }
    }

    fn trade(&mut self, from: usize, to: usize, server: usize) {
        let players = [from, to].map(|player| self.books.players[player]);
        let server = self.server(server);
        if let [Some(from), Some(to)] = players.map(|player| server.entity_of(player)) {
            let world = server.app.world_mut();
            for entity in [from, to] {
                if let Some(mut score) = world.get_mut::<Score>(entity) {
                    score.0 += 1;
                }
            }
            world.commands().trade([from, to], give_gem);
            world.flush();
        }
    }

    fn buy(&mut self, purchase: u8, order: Order) {
        let never = if order.never { NEVER } else { "" };
        let id = format!("{}-{purchase}{never}", self.number);
        let purchase_of = Purchase {
            id: id.parse().expect("a purchase id"),
            order,
            paid_is_known: false,
            refunded: false,
            refund_is_known: false,
            row: None,
        };
        self.books.purchases.insert(purchase, purchase_of);
    }

    fn receipt(&mut self, purchase: u8) -> NewReceipt {
        let Purchase { id, order, .. } = self.purchase(purchase);
        let (id, order) = (id.clone(), *order);
        let product = PRODUCTS[order.product].parse().expect("a product id");
        NewReceipt::new(id, self.books.players[order.player], product)
    }

    /// The provider says what has become of a purchase, and remembers whether it was heard.
    fn call_back(&mut self, purchase: u8, notice: Notice, via: Via) -> Check {
        let receipt = self.receipt(purchase);
        self.purchase(purchase).refunded |= notice == Notice::Refund;
        let answer = self.cluster.call_back(via, receipt, notice);
        let purchase = self.books.purchases.get_mut(&purchase).expect("it was bought");
        match answer {
            Some(Ok(Enqueued { is_new, .. })) => {
                self.tally.count(
                    "answers to callbacks",
                    if is_new { "stored" } else { "known already" },
                );
                if is_new && notice == Notice::Paid && purchase.row.is_some() {
                    return Err(format!(
                        "`{}` was stored before, and is new all the same",
                        purchase.id
                    ));
                }
                purchase.paid_is_known = true;
                purchase.refund_is_known |= notice == Notice::Refund;
                Ok(())
            }
            None | Some(Err(StoreError::Unavailable { .. })) => {
                self.tally.count("answers to callbacks", "unavailable");
                Ok(())
            }
            Some(Err(error)) => Err(format!("handing in `{}` failed: {error}", purchase.id)),
        }
    }

    /// Says that a known purchase is of another product.
    fn contradict(&mut self, purchase: u8, via: Via) -> Check {
        let mut receipt = self.receipt(purchase);
        let id = receipt.purchase.clone();
        if self.cluster.receipt(&id).is_none() {
            return Ok(()); // What comes first stands.
        }
        let other = (self.purchase(purchase).order.product + 1) % PRODUCTS.len();
        receipt.product = PRODUCTS[other].parse().expect("a product id");
        match self.cluster.call_back(via, receipt, Notice::Refund) {
            Some(Err(StoreError::Conflict { .. })) => {
                self.tally.count("answers to callbacks", "conflict");
                Ok(())
            }
            None | Some(Err(StoreError::Unavailable { .. })) => Ok(()),
            other => Err(format!(
                "a contradiction about `{id}` was answered with {other:?}"
            )),
        }
    }

    fn submit(&mut self, purchase: u8, server: usize) {
        let receipt = self.receipt(purchase);
        let answer = Box::pin(self.server(server).submit(receipt));
        self.asked.push(Asked { purchase, answer });
    }

    /// The faults are over, the providers repeat what was not acknowledged, and everybody comes back: now everything
    /// has to come to its end.
    pub fn settle(&mut self) -> Check {
        for server in 0..SERVERS {
            self.cluster.restart(server);
            let server = self.server(server);
            server.heal();
            server.app.world_mut().resource_mut::<Mishaps>().next.clear();
        }
        self.repeat_unacknowledged()?;
        let mut ticks = 0;
        while !self.is_settled() {
            if ticks == PATIENCE {
                return Err(self.what_is_not_settled());
            }
            ticks += 1;
            self.bring_back();
            self.tick();
            self.check()?;
        }
        self.everybody_leaves()?;
        self.books.close(self.cluster)?;
        for purchase in self.books.purchases.values() {
            if let Some(row) = &purchase.row {
                let short = if row.state.name() == "refunded" && row.note.is_some() {
                    ", not fully"
                } else {
                    ""
                };
                self.tally
                    .count("receipts in the end", format!("{}{short}", row.state));
            }
        }
        Ok(())
    }

    fn repeat_unacknowledged(&mut self) -> Check {
        let purchases: Vec<u8> = self.books.purchases.keys().copied().collect();
        for n in purchases {
            let purchase = self.purchase(n);
            let (paid, refund) = (
                !purchase.paid_is_known,
                purchase.refunded && !purchase.refund_is_known,
            );
            if paid {
                self.call_back(n, Notice::Paid, Via::Elsewhere)?;
            }
            if refund {
                self.call_back(n, Notice::Refund, Via::Elsewhere)?;
            }
        }
        self.check()
    }

    fn is_settled(&self) -> bool {
        self.asked.is_empty() && !(0..PLAYERS).any(|player| self.books.has_open(player))
    }

    /// Who has something to be given comes to some server, if they are on none or on defaults.
    fn bring_back(&mut self) {
        for n in 0..PLAYERS {
            let player = self.books.players[n];
            let mut is_there = false;
            for server in self.cluster.running() {
                for (entity, who, presence) in server.players() {
                    if who == player && presence == Presence::OnFallback {
                        server.app.world_mut().despawn(entity);
                    } else if who == player {
                        is_there = true;
                    }
                }
            }
            if !is_there && self.books.has_open(n) {
                let home = (self.number as usize + n) % SERVERS;
                self.server(home).join(player);
            }
        }
    }

    fn what_is_not_settled(&mut self) -> String {
        let open = self
            .books
            .purchases
            .iter()
            .filter(|(_, purchase)| purchase.row.as_ref().is_none_or(StoredReceipt::is_open));
        let open: Vec<_> = open.map(|(n, purchase)| (n, &purchase.row)).collect();
        let asked: Vec<_> = self.asked.iter().map(|asked| asked.purchase).collect();
        let who: Vec<_> = self
            .cluster
            .servers
            .iter_mut()
            .flatten()
            .map(Server::players)
            .collect();
        format!(
            "after {PATIENCE} ticks without any fault these receipts are open: {open:?}; these submissions are not \
             answered: {asked:?}; players: {who:?}, who are {:?}",
            self.books.players
        )
    }

    /// Everybody leaves, and no lock stays behind.
    fn everybody_leaves(&mut self) -> Check {
        for server in self.cluster.running() {
            for (entity, ..) in server.players() {
                // A despawn may take others along.
                let _ = server.app.world_mut().try_despawn(entity);
            }
        }
        for _ in 0..PATIENCE {
            let is_locked = |player| {
                let record = look(self.cluster.rows.peek(player)).expect("the rows can be read");
                record
                    .and_then(|record| record.lock)
                    .is_some_and(|holder| holder.name.is_some())
            };
            if !self.books.players.into_iter().any(is_locked) {
                return self.check();
            }
            self.tick();
            self.check()?;
        }
        Err(format!("a lock of {:?} was never given back", self.books.players))
    }
}
