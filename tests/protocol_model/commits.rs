//! The model of commits: three servers, two players with one purchase each and one trade, and a network that loses,
//! doubles, delays and reorders whatever the servers send.
//!
//! It owns what a state is; [`actions`] says what may happen in it, [`step`] and [`answer`] what each event does,
//! [`oracle`] what must hold, and [`recovery`] that every player can be loaded again from there. Leases are left to
//! [`leases`](crate::leases): here any server may find any other's lease lapsed at any moment, a paused server's, a
//! cut-off one's or a healthy one's alike. Whatever observers really conclude is among it, so what holds here does not
//! rest on leases.
//!
//! An answer arrives with the delivery of its request, or never: what a server does when a late one arrives, it might
//! have done at once, since nobody else sees the difference. A pause of a server is that the others go on without it,
//! which is always possible. What a server sent before a pause or a crash stays under way.

mod actions;
mod answer;
pub mod oracle;
pub mod recovery;
pub mod step;
pub mod symmetry;

use stateright::{Model, Property};

use crate::{
    Mechanism,
    run::Tally,
    store::{Boot, Document, PLAYERS, Rows, SERVERS, WriteRow},
};

/// How often what may happen; all players and servers share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    /// Loads that are begun.
    pub loads: u8,
    /// Operations of players, each of which is in every later save of its session.
    pub ops: u8,
    /// Saves that repeat what an unanswered one said, and saves of an award alone.
    pub saves: u8,
    pub awards: u8,
    pub trades: u8,
    /// Of these in any mixture: requests lost, requests doubled, attempts given up for another one, saves given up for
    /// good, crashes, power cuts. Delays and reordering cost nothing, nor does finding a lease lapsed.
    pub faults: u8,
}

#[derive(Clone, Debug)]
pub struct Commits {
    pub budget: Budget,
    pub without: Option<Mechanism>,
    /// The one property that is looked at; `None` for all.
    pub judged_by: Option<&'static str>,
    pub tally: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub rows: Rows,
    /// What a power cut would leave; `None` where every reply waits for the disk.
    pub on_disk: Option<Rows>,
    pub servers: [Server; SERVERS],
    /// Requests under way, sorted: the network keeps no order.
    pub network: Vec<Request>,
    pub left: Budget,
    pub begun: [Begun; PLAYERS],
    pub seen: Seen,
}

/// How many of a player's loads and operations have begun: they are numbered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Begun {
    pub loads: u8,
    pub ops: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    pub boot: u8,
    pub is_up: bool,
    pub seats: [Seat; PLAYERS],
}

/// What a server knows of a player.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seat {
    #[default]
    Free,
    Loading {
        lock: u8,
        attempt: u8,
    },
    Playing(Session),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Loaded {
    pub fence: u8,
    pub document: Document,
    pub is_paid: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Session {
    pub lock: u8,
    pub fence: u8,
    /// The number of the last write.
    pub seq: u8,
    pub document: Document,
    /// A purchase that is not awarded yet.
    pub is_paid: bool,
    /// An award that is not known to be settled.
    pub unsettled: bool,
    /// Whether the record is known to hold this very document.
    pub is_stored: bool,
    pub request: Option<Asked>,
}

/// A request that a session waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Asked {
    pub kind: Kind,
    pub attempt: u8,
    pub document: Document,
    /// Whether the document is sent, which it is not when the record is known to hold it.
    pub is_written: bool,
    pub settle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Save,
    Close,
    /// The lock's release without a save, after something was refused.
    Release,
    /// The commit of both players; `first` is whose write the store judges first.
    Trade {
        first: u8,
    },
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Request {
    Acquire {
        player: u8,
        lock: u8,
        boot: Boot,
        attempt: u8,
    },
    Commit {
        boot: Boot,
        attempt: u8,
        writes: [Option<WriteRow>; PLAYERS],
    },
    /// Exists only where awards and settlements are two transactions.
    Settle(WriteRow),
}

/// What has been seen from outside, for the oracle.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Seen {
    /// The operations whose saves were acknowledged, a bit for each.
    pub acknowledged: [u8; PLAYERS],
    /// Whose purchase was answered `PurchaseGranted`.
    pub granted: [bool; PLAYERS],
    pub traded: bool,
    /// The fence and the lock of the last write that was accepted.
    pub last_writer: [(u8, u8); PLAYERS],
    pub two_writers: bool,
    pub refused_changed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Load {
        server: u8,
        player: u8,
    },
    FailLoad {
        server: u8,
        player: u8,
    },
    Award {
        server: u8,
        player: u8,
    },
    Save {
        server: u8,
        player: u8,
        op: bool,
    },
    Close {
        server: u8,
        player: u8,
    },
    Trade {
        server: u8,
        first: u8,
    },
    Retry {
        server: u8,
        player: u8,
    },
    GiveUp {
        server: u8,
        player: u8,
    },
    Deliver {
        request: Request,
        lapsed: bool,
        doubled: bool,
        answered: bool,
    },
    Lose {
        request: Request,
    },
    Crash {
        server: u8,
    },
    Restart {
        server: u8,
    },
    PowerCut,
    /// Exists only where replies don't wait for the disk.
    Sync,
}

impl Model for Commits {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut rows = Rows::default();
        for server in 0..SERVERS as u8 {
            rows.register(Boot { server, number: 1 });
        }
        let server = Server {
            boot: 1,
            is_up: true,
            seats: [Seat::Free; PLAYERS],
        };
        vec![State {
            rows,
            on_disk: (self.without == Some(Mechanism::DurableReply)).then_some(rows),
            servers: [server; SERVERS],
            network: Vec::new(),
            left: self.budget,
            begun: [Begun::default(); PLAYERS],
            seen: Seen::default(),
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for server in 0..SERVERS as u8 {
            state.server_actions(server, actions);
        }
        state.network_actions(actions);
        if state.left.faults > 0 && (state.on_disk.is_some() || !state.network.is_empty()) {
            actions.push(Action::PowerCut);
        }
        if state.on_disk.is_some_and(|on_disk| on_disk != state.rows) {
            actions.push(Action::Sync);
        }
    }

    fn next_state(&self, state: &State, action: Action) -> Option<State> {
        let mut next = state.clone();
        step::apply(self, &mut next, action);
        next.network.sort_unstable();
        Some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let mut properties = oracle::properties();
        properties.retain(|property| self.judged_by.is_none_or(|name| property.name == name));
        properties
    }
}

impl std::fmt::Debug for Request {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Acquire {
                player,
                lock,
                boot,
                attempt,
            } => {
                write!(f, "{boot:?} acquires p{player} (lock {lock}, attempt {attempt})")
            }
            Self::Commit {
                boot,
                attempt,
                writes,
            } => {
                write!(f, "{boot:?} commits (attempt {attempt})")?;
                writes
                    .iter()
                    .flatten()
                    .try_for_each(|write| write!(f, " {write:?}"))
            }
            Self::Settle(write) => write!(f, "settle {write:?}"),
        }
    }
}
