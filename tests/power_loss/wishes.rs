//! What players do: one request after another, each of which makes sense when it is made.

use bevy_player_data::{
    PlayerId,
    store::{
        Acquire, Commit, LockId, NewReceipt, Notice, Outcome, PurchaseId, ReceiptState, Settlement, Then,
        Write,
    },
};

use super::{
    books::{Document, PLAYERS, Request},
    disk_io::random_bytes,
    sabotage::Sabotage,
    workload::{Session, Workload},
};

impl Workload<'_> {
    /// A request that makes sense now.
    pub(crate) fn request(&mut self, server: usize, wish: u32) -> Request {
        let player = self.player(server);
        let session = self.sessions.get(&player).copied();
        let here = session.filter(|session| session.server == server);
        let (Some(_), Some(document)) = (here, self.document(player)) else {
            return match session {
                None if !wish.is_multiple_of(4) => self.acquire(server, player),
                Some(_) if here.is_some() => {
                    self.tally.deed("first save");
                    self.save(player, &Document::first(), Vec::new(), Then::Keep)
                }
                _ => self.buy(player),
            };
        };
        // A control would otherwise have to wait for long until it finds something.
        let wish = match (self.sabotage, wish % 2) {
            (Some(Sabotage::SplitPurchases), 0) => 10,
            (Some(Sabotage::SplitTrades), 0) => 50,
            _ => wish / 2 % 100,
        };
        match wish {
            0..10 => self.buy(player),
            10..30 => self.grant(player, document),
            30..35 => self.refuse(player, document),
            35..50 => self.refund(player, document),
            50..65 => self.trade(server, player, document),
            65..71 => {
                self.tally.deed("leave");
                self.save(player, &document, Vec::new(), Then::Release)
            }
            71..74 => {
                self.tally.deed("leave unsaved");
                let write = self.write(player, None, Vec::new(), Then::Release);
                Request::Commit(write.into())
            }
            74..78 => self.stale(player),
            _ => self.play(player, document),
        }
    }

    /// Mostly somebody who is on this server.
    fn player(&mut self, server: usize) -> PlayerId {
        let here = self
            .sessions
            .iter()
            .filter(|(_, session)| session.server == server);
        let here: Vec<PlayerId> = here.map(|(player, _)| *player).collect();
        match self.rng.choice(here) {
            Some(player) if self.rng.u8(..5) > 0 => player,
            _ => PLAYERS[self.rng.usize(..PLAYERS.len())],
        }
    }

    fn document(&self, player: PlayerId) -> Option<Document> {
        let document = self.books().players.get(&player)?.document.as_ref()?;
        Some(Document::decode(document).expect("the test's own bytes"))
    }

    fn acquire(&mut self, server: usize, player: PlayerId) -> Request {
        self.tally.deed("load");
        let lock = LockId::from_bytes(random_bytes(&mut self.rng));
        let fence = self.books().players.get(&player).map_or(0, |row| row.fence) + 1;
        let session = Session {
            server,
            lock,
            fence,
            seq: 0,
        };
        self.sessions.insert(player, session);
        Request::Acquire(Acquire {
            player,
            lock,
            server: self.servers[server],
            lapsed: Vec::new(),
            orphan: None,
            until_beat: u64::MAX,
        })
    }

    fn play(&mut self, player: PlayerId, mut document: Document) -> Request {
        self.tally.deed("save");
        document.coins += 1;
        self.save(player, &document, Vec::new(), Then::Keep)
    }

    fn save(
        &mut self,
        player: PlayerId,
        document: &Document,
        settle: Vec<Settlement>,
        then: Then,
    ) -> Request {
        Request::Commit(self.write(player, Some(document), settle, then).into())
    }

    fn write(
        &mut self,
        player: PlayerId,
        document: Option<&Document>,
        settle: Vec<Settlement>,
        then: Then,
    ) -> Write {
        let session = self.sessions.get_mut(&player).expect("the player is here");
        session.seq += 1;
        let Session { lock, fence, seq, .. } = *session;
        if then == Then::Release {
            self.sessions.remove(&player);
        }
        // Documents grow, and now and then shrink again.
        let version = self.books().players[&player].version;
        let filler = 1000 + usize::try_from(version % 40).unwrap_or_default() * 450 + self.rng.usize(..400);
        Write {
            player,
            lock,
            fence,
            seq,
            document: document.map(|document| document.encode(filler, &mut self.rng)),
            settle,
            then,
        }
    }

    /// A receipt comes in.
    fn buy(&mut self, player: PlayerId) -> Request {
        self.tally.deed("receipt");
        let purchase = format!("p-{:08x}", self.rng.u32(..));
        let mut new = new_receipt(&purchase, player);
        if self.rng.bool() {
            let mut payload = vec![0; self.rng.usize(..1500)];
            self.rng.fill(&mut payload);
            new.payload = Some(payload.into());
        }
        Request::Enqueue(new, Notice::Paid)
    }

    /// One of a player's receipts that is in such a state.
    fn receipt(&mut self, player: PlayerId, state: ReceiptState, refund_requested: bool) -> Option<String> {
        let receipts = self.books().receipts.iter();
        let fitting: Vec<String> = receipts
            .filter(|(_, receipt)| receipt.player == player)
            .filter(|(_, receipt)| receipt.state == state && receipt.refund_requested == refund_requested)
            .map(|(purchase, _)| purchase.clone())
            .collect();
        self.rng.choice(fitting)
    }

    fn grant(&mut self, player: PlayerId, mut document: Document) -> Request {
        let Some(purchase) = self.receipt(player, ReceiptState::Pending, false) else {
            return match self.sabotage {
                Some(Sabotage::SplitPurchases) => self.buy(player),
                _ => self.play(player, document),
            };
        };
        self.tally.deed("grant");
        document.coins += 100;
        document.awards.insert(purchase.clone());
        self.save(
            player,
            &document,
            vec![settle(&purchase, Outcome::Granted)],
            Then::Keep,
        )
    }

    fn refuse(&mut self, player: PlayerId, document: Document) -> Request {
        let Some(purchase) = self.receipt(player, ReceiptState::Pending, false) else {
            return self.play(player, document);
        };
        self.tally.deed("refuse");
        let reason = "the wallet is full".to_owned();
        let settled = vec![settle(&purchase, Outcome::Refused { reason })];
        Request::Commit(self.write(player, None, settled, Then::Keep).into())
    }

    /// The money goes back, or what was bought does.
    fn refund(&mut self, player: PlayerId, mut document: Document) -> Request {
        if let Some(purchase) = self.receipt(player, ReceiptState::Granted, true) {
            self.tally.deed("refund");
            document.awards.remove(&purchase);
            let settled = vec![settle(&purchase, Outcome::Refunded { shortfall: None })];
            return self.save(player, &document, settled, Then::Keep);
        }
        let Some(purchase) = self.receipt(player, ReceiptState::Granted, false) else {
            return self.play(player, document);
        };
        self.tally.deed("refund asked for");
        Request::Enqueue(new_receipt(&purchase, player), Notice::Refund)
    }

    fn trade(&mut self, server: usize, player: PlayerId, mut document: Document) -> Request {
        let partners = self.sessions.iter();
        let partners: Vec<PlayerId> = partners
            .filter(|(other, session)| **other != player && session.server == server)
            .map(|(other, _)| *other)
            .collect();
        let partner = self.rng.choice(partners);
        let found = partner.and_then(|partner| Some((partner, self.document(partner)?)));
        let Some((partner, mut theirs)) = found.filter(|_| document.relics > 0) else {
            return self.play(player, document);
        };
        self.tally.deed("trade");
        document.relics -= 1;
        theirs.relics += 1;
        let writes = vec![
            self.write(player, Some(&document), Vec::new(), Then::Keep),
            self.write(partner, Some(&theirs), Vec::new(), Then::Keep),
        ];
        Request::Commit(Commit { writes })
    }

    /// A write of a session that has ended.
    fn stale(&mut self, player: PlayerId) -> Request {
        self.tally.deed("stale write refused");
        let Session { lock, fence, seq, .. } = self.sessions[&player];
        let write = Write {
            player,
            lock,
            fence: fence - 1,
            seq: seq + 1,
            document: Some(Document::default().encode(100, &mut self.rng)),
            settle: Vec::new(),
            then: Then::Keep,
        };
        Request::Stale(write.into())
    }
}

fn new_receipt(purchase: &str, player: PlayerId) -> NewReceipt {
    let product = "coins_100".parse().expect("a product's name");
    NewReceipt::new(purchase_id(purchase), player, product)
}

fn purchase_id(purchase: &str) -> PurchaseId {
    purchase.parse().expect("a purchase's id")
}

fn settle(purchase: &str, outcome: Outcome) -> Settlement {
    let purchase = purchase_id(purchase);
    Settlement { purchase, outcome }
}
