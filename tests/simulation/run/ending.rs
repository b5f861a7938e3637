//! The end of a history: the faults are over, and everything has to come to its end.

use std::collections::{BTreeMap, BTreeSet};

use bevy::prelude::*;
use bevy_player_data::{
    prelude::*,
    store::{Notice, ReceiptState, Store, StoredReceipt},
    testing::FaultRates,
};

use super::{PLAYERS, SERVERS, Simulation};
use crate::{
    driven::Presence,
    game::{self, Build, NEVER, NotNow},
    oracle::{Check, Oracle},
    stored::look,
};

/// After how many ticks without faults everything has to be settled.
const PATIENCE: usize = 300;

impl Simulation {
    /// The faults are over, every server runs the newest version, the providers repeat what was not acknowledged, and
    /// everybody comes back: now everything has to come to its end.
    pub(super) fn settle(&mut self) -> Check {
        self.wire.tell("settle");
        self.wire.heal();
        self.rates = FaultRates::default();
        for server in 0..SERVERS {
            self.go_on(server);
            self.heal(server);
            if self.servers[server]
                .as_ref()
                .is_some_and(|server| server.build == Build::Old)
            {
                self.exit(server)?;
            }
            while self.servers[server]
                .as_ref()
                .is_none_or(|server| server.build == Build::Old)
            {
                self.servers[server] = None;
                self.start(server);
            }
            self.with_faults(server, |faults| faults.clear());
            if let Some(server) = &mut self.servers[server] {
                server.app.world_mut().resource_mut::<NotNow>().0 = 0;
            }
        }
        self.verdict()?;
        self.repeat_unacknowledged()?;
        for ticks in 0.. {
            if self.is_settled() {
                break;
            }
            if ticks == PATIENCE {
                return Err(self.what_is_open());
            }
            self.bring_back();
            self.ticks(1)?;
        }
        self.mirrors_are_equal()?;
        self.everybody_leaves()?;
        self.close()
    }

    fn repeat_unacknowledged(&mut self) -> Check {
        for n in 0..self.purchases.len() {
            let purchase = &self.purchases[n];
            let (paid, refund) = (
                !purchase.paid_is_known,
                purchase.refunded && !purchase.refund_is_known,
            );
            let notices = [paid.then_some(Notice::Paid), refund.then_some(Notice::Refund)];
            for notice in notices.into_iter().flatten() {
                let answer = look(self.wire.rows().enqueue(self.receipt(n), notice));
                self.take_answer(n, notice, answer.map(drop))?;
            }
        }
        Ok(())
    }

    fn open_receipts(&self, player: PlayerId) -> Vec<StoredReceipt> {
        look(self.wire.rows().open_receipts(player)).expect("the rows can be read")
    }

    /// Everybody is in a session somewhere, and nothing is left to do about their receipts.
    fn is_settled(&mut self) -> bool {
        let everybody = self.everybody.0.clone();
        // A session that was taken over while its server stood still notices that when it has something to save.
        let mut in_session = BTreeSet::new();
        for server in self.servers.iter_mut().flatten() {
            let players = server.players().into_iter();
            let players = players.filter(|(.., presence)| *presence == Presence::InSession);
            in_session.extend(players.map(|(_, player, _)| player));
        }
        self.asked.is_empty()
            && in_session.len() == PLAYERS
            && everybody
                .into_iter()
                .all(|player| self.open_receipts(player).is_empty())
    }

    /// Who is on no server, or on defaults, joins one.
    fn bring_back(&mut self) {
        for n in 0..PLAYERS {
            let player = self.everybody.0[n];
            let mut is_there = false;
            for server in self.servers.iter_mut().flatten() {
                for (entity, who, presence) in server.players() {
                    if who == player && presence == Presence::OnFallback {
                        server.app.world_mut().despawn(entity);
                    } else if who == player && is_there && presence == Presence::Loading {
                        // Waiting for a session that goes on elsewhere.
                        server.app.world_mut().despawn(entity);
                    } else {
                        is_there |= who == player;
                    }
                }
            }
            if !is_there {
                self.disconnect(n);
                self.join(n, n % SERVERS);
            }
        }
    }

    fn what_is_open(&mut self) -> String {
        let mut players = Vec::new();
        for server in self.servers.iter_mut().flatten() {
            players.push(server.players());
        }
        let open: Vec<_> = self
            .everybody
            .0
            .iter()
            .map(|&player| self.open_receipts(player))
            .collect();
        let asked: Vec<_> = self
            .asked
            .iter()
            .map(|(purchase, _)| &self.purchases[*purchase].id)
            .collect();
        format!(
            "I5 or I7: after {PATIENCE} ticks without any fault not everybody is in a session, or a receipt is open: \
             {open:?}; not answered: {asked:?}; players: {players:?} of {:?}",
            self.everybody.0
        )
    }

    /// What clients see is what their server has.
    fn mirrors_are_equal(&mut self) -> Check {
        self.ticks(10)?;
        for n in 0..PLAYERS {
            let player = self.everybody.0[n];
            let Some(number) = self.clients[n].server() else {
                continue;
            };
            let Some(server) = self.servers[number].as_mut() else {
                continue;
            };
            let clients: Vec<_> = {
                let world = server.app.world_mut();
                let mut query = world.query_filtered::<(&PersistentPlayer, &game::Journal), (With<PlayerSession>, With<PlayerClient>)>();
                query
                    .iter(world)
                    .filter(|(who, _)| who.0 == player)
                    .map(|(_, journal)| journal.0.clone())
                    .collect()
            };
            let mirror = self.clients[n].journal();
            let [journal] = &clients[..] else { continue };
            if let Some(mirror) = mirror {
                if mirror != *journal {
                    return Err(format!(
                        "{player} has {journal:?}, and their client shows {mirror:?}"
                    ));
                }
                self.wire
                    .oracle(|oracle| oracle.tally.count("in the end", "mirror is equal"));
            }
        }
        Ok(())
    }

    /// Everybody leaves. No lock stays behind, and what they left with is stored: now nothing excuses a loss.
    fn everybody_leaves(&mut self) -> Check {
        let mut left_with = BTreeMap::new();
        self.wire.oracle(Oracle::everybody_leaves);
        for (number, server) in self.servers.iter_mut().enumerate() {
            let Some(server) = server else { continue };
            for (entity, player, presence) in server.players() {
                let holder = look(self.wire.rows().peek(player)).expect("the rows can be read");
                let holder = holder.and_then(|record| record.lock?.name);
                // A session that was taken over while its server stood still has nothing to say.
                let is_real = holder == Some(format!("server {number}"));
                if let Some(journal) = server
                    .journal(entity)
                    .filter(|_| is_real && presence == Presence::InSession)
                {
                    left_with.insert(player, journal.to_vec());
                }
            }
            for (entity, ..) in server.players() {
                server.app.world_mut().despawn(entity);
            }
        }
        for _ in 0..PATIENCE {
            let is_locked = |&player: &PlayerId| {
                let record = look(self.wire.rows().peek(player)).expect("the rows can be read");
                // A lock whose server has no row is free.
                record
                    .and_then(|record| record.lock)
                    .is_some_and(|holder| holder.name.is_some())
            };
            if !self.everybody.0.iter().any(is_locked) {
                self.ticks(1)?;
                return self.all_is_stored(&left_with);
            }
            self.ticks(1)?;
        }
        Err(format!(
            "I7: a lock of {:?} was never given back",
            self.everybody.0
        ))
    }

    fn all_is_stored(&self, left_with: &BTreeMap<PlayerId, Vec<u32>>) -> Check {
        for (player, journal) in left_with {
            // A lock that its server asked for long ago may have been granted late, behind another server's session: the
            // lock is that server's again, and the session that it still had is none any more.
            if self.wire.oracle(|oracle| oracle.was_taken_over(*player)) {
                continue;
            }
            let stored = self.wire.oracle(|oracle| oracle.journal(*player).to_vec());
            if stored != *journal {
                return Err(format!(
                    "I6: {player} left with {journal:?}, and stored is {stored:?}"
                ));
            }
            self.wire
                .oracle(|oracle| oracle.tally.count("in the end", "saved on leaving"));
        }
        Ok(())
    }

    /// Granted is what was paid, less what was refunded and what was refused, each once.
    fn close(&mut self) -> Check {
        for &player in &self.everybody.0 {
            self.wire.oracle(|oracle| oracle.receipts_agree(player))?;
        }
        for purchase in &self.purchases {
            let row = look(self.wire.rows().receipt(purchase.id.clone())).expect("the rows can be read");
            let state = row.as_ref().map(|row| row.state);
            let never = purchase.id.as_str().ends_with(NEVER);
            let expected = match (never, purchase.refunded) {
                (false, false) => state == Some(ReceiptState::Granted),
                (false, true) => state == Some(ReceiptState::Refunded),
                (true, false) => state == Some(ReceiptState::Refused),
                (true, true) => matches!(state, Some(ReceiptState::Refused | ReceiptState::Refunded)),
            };
            if !expected {
                return Err(format!(
                    "I5: `{}` (never: {never}, refunded: {}) is {row:?} in the end",
                    purchase.id, purchase.refunded
                ));
            }
            if let Some(state) = state {
                self.wire
                    .oracle(|oracle| oracle.tally.count("in the end", state.name()));
            }
        }
        Ok(())
    }
}
