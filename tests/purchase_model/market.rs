//! The reference: what the world outside asks for, and which requests make sense when.
//!
//! A [`Market`] knows who paid for what, what was refunded, who is where and which servers run, as far as that was asked
//! for. It knows nothing of outcomes: these depend on the faults, and are judged by the books.

use std::{collections::BTreeSet, time::Duration};

use bevy_player_data::testing::{Fault, Op};
use proptest::prelude::*;
use proptest_state_machine::ReferenceStateMachine;

use crate::shop::{Mishap, PRODUCTS};

pub const SERVERS: usize = 2;
pub const PLAYERS: usize = 3;
/// How many purchases one case has at most.
const PURCHASES: u8 = 6;

/// What happens next.
#[derive(Clone, Debug)]
pub enum Step {
    /// Every server updates, and its tasks run, so often.
    Tick {
        updates: u8,
    },
    /// Only this one does; the other stands still.
    Stall {
        but: usize,
        updates: u8,
    },
    /// One update, in which no task runs.
    Update {
        server: usize,
    },
    /// Only the tasks run, for so long.
    Run {
        server: usize,
        millis: u8,
    },
    /// A player comes, even if they are there already, here or elsewhere.
    Join {
        player: usize,
        server: usize,
    },
    Leave {
        player: usize,
        server: usize,
    },
    /// A player leaves one server and comes to the other at once.
    Hop {
        player: usize,
        from: usize,
    },
    /// A server stands still with a player on it, until the other one takes the player over.
    TakeOver {
        player: usize,
        from: usize,
    },
    Save {
        player: usize,
        server: usize,
    },
    Play {
        player: usize,
        server: usize,
    },
    Trade {
        from: usize,
        to: usize,
        server: usize,
    },
    /// The provider's callback: paid.
    Deliver {
        purchase: u8,
        order: Order,
        via: Via,
    },
    /// Its callback for a refund overtakes the one for the payment.
    RefundFirst {
        purchase: u8,
        order: Order,
        via: Via,
    },
    /// The callback for the payment comes once more, or late.
    Repeat {
        purchase: u8,
        via: Via,
    },
    Refund {
        purchase: u8,
        via: Via,
    },
    /// The platform asks the game itself.
    Submit {
        purchase: u8,
        order: Order,
        server: usize,
    },
    SubmitAgain {
        purchase: u8,
        server: usize,
    },
    /// A callback with a known id and another product.
    Conflict {
        purchase: u8,
        via: Via,
    },
    /// The next handler that runs there has an accident.
    Mishap {
        server: usize,
        mishap: Mishap,
    },
    /// The next requests of this kind meet this fault.
    Fail {
        server: usize,
        op: Op,
        fault: Fault,
        times: usize,
    },
    /// Open receipts are read, and the reply is late.
    DelayReply {
        server: usize,
        millis: u8,
    },
    /// Each request takes so long.
    Slow {
        server: usize,
        millis: u8,
    },
    /// The store can't be reached.
    Down {
        server: usize,
    },
    Up {
        server: usize,
    },
    /// The process ends without a word.
    Crash {
        server: usize,
    },
    Exit {
        server: usize,
    },
    /// It is started again under its old name.
    Start {
        server: usize,
    },
}

/// What is bought by whom.
#[derive(Clone, Copy, Debug)]
pub struct Order {
    pub player: usize,
    pub product: usize,
    /// The handler refuses it for good.
    pub never: bool,
}

/// Which process a callback goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Via {
    Server(usize),
    /// One that runs no game.
    Elsewhere,
}

type Kind = (&'static str, u32, fn(&Market, &mut Dice) -> Option<Step>);

/// Every kind of step, how often it is drawn, and how; `None` when it makes no sense now.
const KINDS: [Kind; 27] = [
    ("tick", 40, |_, dice| {
        Some(Step::Tick {
            updates: 1 + dice.below(3) as u8,
        })
    }),
    ("stall", 3, |_, dice| {
        Some(Step::Stall {
            but: dice.server(),
            updates: [1, 2, 12][dice.below(3)],
        })
    }),
    ("update", 5, |_, dice| {
        Some(Step::Update {
            server: dice.server(),
        })
    }),
    ("run", 6, |_, dice| {
        Some(Step::Run {
            server: dice.server(),
            millis: [1, 5, 30][dice.below(3)],
        })
    }),
    ("join", 14, |_, dice| {
        Some(Step::Join {
            server: dice.server(),
            player: dice.player(),
        })
    }),
    ("leave", 7, |market, dice| {
        let (player, server) = dice.one_of(&market.present)?;
        Some(Step::Leave { player, server })
    }),
    ("hop", 4, |market, dice| {
        let (player, from) = dice.one_of(&market.present)?;
        Some(Step::Hop { player, from })
    }),
    ("save", 4, |market, dice| {
        let (player, server) = dice.one_of(&market.present)?;
        Some(Step::Save { player, server })
    }),
    ("play", 4, |market, dice| {
        let (player, server) = dice.one_of(&market.present)?;
        Some(Step::Play { player, server })
    }),
    ("trade", 4, |market, dice| {
        let (from, server) = dice.one_of(&market.present)?;
        Some(Step::Trade {
            from,
            to: (from + 1 + dice.below(PLAYERS - 1)) % PLAYERS,
            server,
        })
    }),
    ("deliver", 16, |market, dice| {
        Some(Step::Deliver {
            purchase: market.next()?,
            order: market.order(dice),
            via: dice.via(),
        })
    }),
    ("refund before paid", 3, |market, dice| {
        Some(Step::RefundFirst {
            purchase: market.next()?,
            order: market.order(dice),
            via: dice.via(),
        })
    }),
    ("deliver again", 6, |market, dice| {
        Some(Step::Repeat {
            purchase: market.any(dice)?,
            via: dice.via(),
        })
    }),
    ("refund", 8, |market, dice| {
        Some(Step::Refund {
            purchase: market.any(dice)?,
            via: dice.via(),
        })
    }),
    ("submit", 7, |market, dice| {
        Some(Step::Submit {
            purchase: market.next()?,
            order: market.order(dice),
            server: dice.server(),
        })
    }),
    ("submit again", 5, |market, dice| {
        Some(Step::SubmitAgain {
            purchase: market.any(dice)?,
            server: dice.server(),
        })
    }),
    ("conflict", 2, |market, dice| {
        Some(Step::Conflict {
            purchase: market.any(dice)?,
            via: dice.via(),
        })
    }),
    ("mishap", 6, |_, dice| {
        Some(Step::Mishap {
            server: dice.server(),
            mishap: Mishap::ALL[dice.below(Mishap::ALL.len())],
        })
    }),
    ("fail", 22, |_, dice| {
        let (op, fault) = FAULTS[dice.below(FAULTS.len())];
        Some(Step::Fail {
            server: dice.server(),
            op,
            fault,
            times: [1, 1, 2, 5][dice.below(4)],
        })
    }),
    ("slow", 2, |_, dice| {
        Some(Step::Slow {
            server: dice.server(),
            millis: [2, 20, 60][dice.below(3)],
        })
    }),
    ("down", 2, |_, dice| {
        Some(Step::Down {
            server: dice.server(),
        })
    }),
    ("up", 3, |_, dice| {
        Some(Step::Up {
            server: dice.server(),
        })
    }),
    ("crash", 3, |_, dice| {
        Some(Step::Crash {
            server: dice.server(),
        })
    }),
    ("exit", 1, |_, dice| {
        Some(Step::Exit {
            server: dice.server(),
        })
    }),
    ("start", 3, |market, _| {
        (0..SERVERS)
            .find(|server| !market.running[*server])
            .map(|server| Step::Start { server })
    }),
    ("take over", 3, |market, dice| {
        let (player, from) = dice.one_of(&market.present)?;
        Some(Step::TakeOver { player, from })
    }),
    ("delay a reply", 5, |_, dice| {
        Some(Step::DelayReply {
            server: dice.server(),
            millis: [60, 120][dice.below(2)],
        })
    }),
];

const LATE: Fault = Fault::Late(Duration::from_millis(70));
/// Later than a request is waited for, but within a lease's TTL: for locks that are granted later nobody looks.
const VERY_LATE: Fault = Fault::Late(Duration::from_millis(250));

/// What can happen to requests. Commits come first: they are what it is all about.
pub const FAULTS: [(Op, Fault); 20] = [
    (Op::Commit, Fault::Before),
    (Op::Commit, Fault::After),
    (Op::Commit, LATE),
    (Op::Commit, Fault::Hang),
    (Op::Commit, Fault::Before),
    (Op::Commit, Fault::After),
    (Op::Commit, Fault::After),
    (Op::Commit, LATE),
    (Op::Acquire, Fault::Before),
    (Op::Acquire, Fault::After),
    (Op::Acquire, LATE),
    (Op::Acquire, VERY_LATE),
    (Op::Enqueue, Fault::Before),
    (Op::Enqueue, Fault::After),
    (Op::Enqueue, LATE),
    (Op::Receipts, Fault::Before),
    (Op::Receipts, Fault::Hang),
    (Op::Arrivals, Fault::Before),
    (Op::Lease, Fault::Before),
    (Op::Lease, Fault::After),
];

/// What was asked for so far.
#[derive(Clone, Debug)]
pub struct Market {
    bought: BTreeSet<u8>,
    /// Who was told to be where: player and server.
    present: BTreeSet<(usize, usize)>,
    running: [bool; SERVERS],
}

impl Market {
    /// Each server runs and has a player; who else comes, comes later.
    pub fn opening() -> Self {
        Self {
            bought: BTreeSet::new(),
            present: (0..SERVERS).map(|server| (server, server)).collect(),
            running: [true; SERVERS],
        }
    }

    /// Who is where: player and server.
    pub fn present(&self) -> impl Iterator<Item = (usize, usize)> {
        self.present.iter().copied()
    }

    /// Most of what is bought is bought by those who are there.
    fn order(&self, dice: &mut Dice) -> Order {
        let anybody = dice.player();
        let player = match dice.one_of(&self.present) {
            Some((player, _)) if dice.below(4) > 0 => player,
            _ => anybody,
        };
        let product = dice.below(PRODUCTS.len());
        // Only the last product is ever refused.
        let never = product == PRODUCTS.len() - 1 && dice.below(2) == 1;
        Order {
            player,
            product,
            never,
        }
    }

    fn next(&self) -> Option<u8> {
        let next = self.bought.last().map_or(0, |last| last + 1);
        (next < PURCHASES).then_some(next)
    }

    fn any(&self, dice: &mut Dice) -> Option<u8> {
        dice.one_of(&self.bought)
    }

    fn is_reachable(&self, via: Via) -> bool {
        match via {
            Via::Server(server) => self.running[server],
            Via::Elsewhere => true,
        }
    }

    fn leave_server(&mut self, server: usize) {
        self.running[server] = false;
        self.present.retain(|&(_, there)| there != server);
    }
}

/// A source of small numbers.
struct Dice(u64);

impl Dice {
    fn below(&mut self, sides: usize) -> usize {
        let sides = sides as u64;
        let thrown = self.0 % sides;
        self.0 /= sides;
        usize::try_from(thrown).expect("a small number")
    }

    fn server(&mut self) -> usize {
        self.below(SERVERS)
    }

    fn player(&mut self) -> usize {
        self.below(PLAYERS)
    }

    fn via(&mut self) -> Via {
        match self.below(SERVERS + 1) {
            SERVERS => Via::Elsewhere,
            server => Via::Server(server),
        }
    }

    fn one_of<T: Copy>(&mut self, set: &BTreeSet<T>) -> Option<T> {
        let nth = self.below(set.len().max(1));
        set.iter().nth(nth).copied()
    }
}

impl Step {
    /// The names of all kinds of step.
    pub fn names() -> impl Iterator<Item = &'static str> {
        KINDS.into_iter().map(|(name, ..)| name)
    }

    pub fn name(&self) -> &'static str {
        let place = match self {
            Self::Tick { .. } => 0,
            Self::Stall { .. } => 1,
            Self::Update { .. } => 2,
            Self::Run { .. } => 3,
            Self::Join { .. } => 4,
            Self::Leave { .. } => 5,
            Self::Hop { .. } => 6,
            Self::Save { .. } => 7,
            Self::Play { .. } => 8,
            Self::Trade { .. } => 9,
            Self::Deliver { .. } => 10,
            Self::RefundFirst { .. } => 11,
            Self::Repeat { .. } => 12,
            Self::Refund { .. } => 13,
            Self::Submit { .. } => 14,
            Self::SubmitAgain { .. } => 15,
            Self::Conflict { .. } => 16,
            Self::Mishap { .. } => 17,
            Self::Fail { .. } => 18,
            Self::Slow { .. } => 19,
            Self::Down { .. } => 20,
            Self::Up { .. } => 21,
            Self::Crash { .. } => 22,
            Self::Exit { .. } => 23,
            Self::Start { .. } => 24,
            Self::TakeOver { .. } => 25,
            Self::DelayReply { .. } => 26,
        };
        KINDS[place].0
    }

    /// The server that has to run for this.
    fn needs(&self) -> Option<usize> {
        match *self {
            Self::Stall { but: server, .. }
            | Self::Update { server }
            | Self::Run { server, .. }
            | Self::Join { server, .. }
            | Self::Submit { server, .. }
            | Self::SubmitAgain { server, .. }
            | Self::Mishap { server, .. }
            | Self::Fail { server, .. }
            | Self::Slow { server, .. }
            | Self::DelayReply { server, .. }
            | Self::Down { server }
            | Self::Up { server }
            | Self::Crash { server }
            | Self::Exit { server } => Some(server),
            _ => None,
        }
    }
}

impl ReferenceStateMachine for Market {
    type State = Self;
    type Transition = Step;

    fn init_state() -> BoxedStrategy<Self> {
        Just(Self::opening()).boxed()
    }

    fn transitions(market: &Self) -> BoxedStrategy<Step> {
        let market = market.clone();
        let weights = KINDS.iter().map(|(_, weight, _)| weight).sum::<u32>();
        let draw = move |(place, dice): (u32, u64)| {
            let mut place = place;
            let drawn = KINDS.iter().find(|(_, weight, _)| {
                let here = place < *weight;
                place = place.saturating_sub(*weight);
                here
            });
            let step = drawn.and_then(|(.., draw)| draw(&market, &mut Dice(dice)));
            step.filter(|step| Self::preconditions(&market, step))
                .unwrap_or(Step::Tick { updates: 1 })
        };
        (0..weights, 0..1_u64 << 40).prop_map(draw).boxed()
    }

    fn preconditions(market: &Self, step: &Step) -> bool {
        let runs = step.needs().is_none_or(|server| market.running[server]);
        runs && match *step {
            Step::Leave { player, server }
            | Step::Save { player, server }
            | Step::Play { player, server } => market.present.contains(&(player, server)),
            Step::Hop { player, from } | Step::TakeOver { player, from } => {
                market.present.contains(&(player, from)) && market.running[SERVERS - 1 - from]
            }
            Step::Trade { from, to, server } => {
                market.present.contains(&(from, server)) && market.present.contains(&(to, server))
            }
            Step::Deliver { purchase, via, .. } | Step::RefundFirst { purchase, via, .. } => {
                !market.bought.contains(&purchase) && market.is_reachable(via)
            }
            Step::Submit { purchase, .. } => !market.bought.contains(&purchase),
            Step::SubmitAgain { purchase, .. } => market.bought.contains(&purchase),
            Step::Repeat { purchase, via }
            | Step::Refund { purchase, via }
            | Step::Conflict { purchase, via } => {
                market.bought.contains(&purchase) && market.is_reachable(via)
            }
            Step::Start { server } => !market.running[server],
            _ => true,
        }
    }

    fn apply(mut market: Self, step: &Step) -> Self {
        match *step {
            Step::Join { player, server } => {
                market.present.insert((player, server));
            }
            Step::Leave { player, server } => {
                market.present.remove(&(player, server));
            }
            Step::Hop { player, from } => {
                market.present.remove(&(player, from));
                market.present.insert((player, SERVERS - 1 - from));
            }
            // The old server will hear of it in time.
            Step::TakeOver { player, from } => {
                market.present.insert((player, SERVERS - 1 - from));
            }
            Step::Deliver { purchase, .. }
            | Step::RefundFirst { purchase, .. }
            | Step::Submit { purchase, .. } => {
                market.bought.insert(purchase);
            }
            Step::Crash { server } | Step::Exit { server } => market.leave_server(server),
            Step::Start { server } => market.running[server] = true,
            _ => {}
        }
        market
    }
}
