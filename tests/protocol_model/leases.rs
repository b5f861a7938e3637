//! The model of leases: three servers that want the same player, beats, pauses, and time.
//!
//! It owns who may take a lock from whom, and whether each lock is given back. Time passes in units of half a TTL. In
//! each unit every server that is up and not paused beats once, or fails to, and every beat that is answered shows it
//! the others' beats; what an observer concludes from them is [`watch`], which is held against the crate's own
//! `LeaseWatch`. Acquires may be delayed for as long as time lasts, answered or not; whatever a server does for the
//! locks that come of them (asking again, suspecting, looking at each beat) is here, as `session/settle.rs` does it.
//!
//! No acquire is doubled here: a store executes an attempt once, early, late or never. (Of an attempt that was
//! answered, a server remembers nothing, so a copy that came into effect later would lock the player for nobody until
//! that server loads them or ends.)
//!
//! A commit is only a close here, or the release of a lock: what commits do to data is [`commits`](crate::commits)'
//! matter.

pub mod oracle;
pub mod step;
pub mod symmetry;
pub mod watch;

use stateright::{Model, Property};

use crate::{
    Mechanism,
    run::Tally,
    store::{AcquireRow, Boot, Rows, SERVERS},
};
use watch::Watch;

/// How much may happen; all servers share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Budget {
    /// How many servers take part.
    pub servers: u8,
    pub loads: u8,
    /// Units of time.
    pub time: u8,
    /// Of these in any mixture: beats that don't arrive, beats whose answer doesn't, looks that fail, pauses, crashes,
    /// loads that are given up, acquires without an answer.
    pub faults: u8,
}

#[derive(Clone, Debug)]
pub struct Leases {
    pub budget: Budget,
    pub without: Option<Mechanism>,
    /// The one property that is looked at; `None` for all.
    pub judged_by: Option<&'static str>,
    pub tally: Tally,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub rows: Rows,
    pub servers: [Server; SERVERS],
    /// Acquires under way, sorted.
    pub network: Vec<AcquireRow>,
    pub left: Budget,
    /// How many units ago each server's last beat arrived; counted up to the TTL.
    pub ages: [u8; SERVERS],
    /// Whether a lock was taken as lapsed from a server whose beat had arrived within the TTL.
    pub robbed: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Server {
    pub boot: u8,
    pub mode: Mode,
    /// Whether its beat of this unit of time is over.
    pub has_beaten: bool,
    /// What its own beat was when the lease was last refreshed.
    pub own_beat: u8,
    /// How many beats since then were not answered. Each may have raised its own by one.
    pub unanswered: u8,
    pub watch: Watch,
    pub seat: Seat,
    /// Locks that an unanswered attempt may still bring about, and the last beat at which it may.
    pub suspects: [Option<(u8, u8)>; 2],
    /// The last lock that it asked for. Each server numbers its own.
    pub last_lock: u8,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    Up,
    Paused,
    Down,
    /// It takes no part.
    Absent,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Seat {
    #[default]
    Free,
    /// Asks for the lock; `waits` says up to which beat the attempt under way may be granted.
    Loading {
        lock: u8,
        waits: Option<u8>,
        orphan: Option<u8>,
    },
    /// Given up, but an attempt may have been granted: asks for the same lock, to give it back.
    Settling {
        lock: u8,
        waits: Option<u8>,
    },
    Playing {
        lock: u8,
        fence: u8,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    Beat {
        server: u8,
        outcome: Beat,
    },
    Pause {
        server: u8,
    },
    Resume {
        server: u8,
    },
    Crash {
        server: u8,
    },
    Restart {
        server: u8,
    },
    Load {
        server: u8,
    },
    Ask {
        server: u8,
    },
    /// No answer within the time that an attempt has.
    TimeOut {
        server: u8,
    },
    GiveUp {
        server: u8,
    },
    Close {
        server: u8,
    },
    Deliver {
        acquire: AcquireRow,
        answered: bool,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    Answered,
    /// It raised the beat, but the server doesn't know.
    Unanswered,
    Lost,
    /// Answered, but the look for late locks that follows it was not.
    Blind,
}

impl Leases {
    /// The same, for what is only tried.
    fn uncounted(&self) -> Self {
        Self {
            tally: Tally::silent(),
            ..*self
        }
    }
}

impl Model for Leases {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let mut rows = Rows::default();
        let takes_part = |server: u8| server < self.budget.servers;
        for server in (0..SERVERS as u8).filter(|&server| takes_part(server)) {
            rows.register(Boot { server, number: 1 });
        }
        let servers = std::array::from_fn(|server| {
            let mut booted = Server::booted(1, &rows);
            if !takes_part(server as u8) {
                booted.mode = Mode::Absent;
            }
            booted
        });
        vec![State {
            rows,
            servers,
            network: Vec::new(),
            left: self.budget,
            ages: [0; SERVERS],
            robbed: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        let everybody_has_beaten = state
            .servers
            .iter()
            .all(|server| server.mode != Mode::Up || server.has_beaten);
        if state.left.time > 0 && everybody_has_beaten {
            actions.push(Action::Tick);
        }
        for server in 0..SERVERS as u8 {
            state.server_actions(server, actions);
        }
        for (place, &acquire) in state.network.iter().enumerate() {
            if place == 0 || state.network[place - 1] != acquire {
                actions.push(Action::Deliver {
                    acquire,
                    answered: false,
                });
                if state.is_awaited(&acquire) {
                    actions.push(Action::Deliver {
                        acquire,
                        answered: true,
                    });
                }
            }
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

impl Server {
    /// A boot whose first beat was answered.
    pub fn booted(boot: u8, rows: &Rows) -> Self {
        let mut watch = Watch::default();
        watch.read(&rows.leases);
        Self {
            boot,
            mode: Mode::Up,
            has_beaten: true,
            own_beat: 1,
            unanswered: 0,
            watch,
            seat: Seat::Free,
            suspects: [None; 2],
            last_lock: 0,
        }
    }

    /// Whether it runs, if paused.
    pub fn is_there(&self) -> bool {
        matches!(self.mode, Mode::Up | Mode::Paused)
    }

    /// Whether a load or a session answers for this lock.
    pub fn uses(&self, lock: u8) -> bool {
        match self.seat {
            Seat::Free => false,
            Seat::Loading { lock: own, .. }
            | Seat::Settling { lock: own, .. }
            | Seat::Playing { lock: own, .. } => own == lock,
        }
    }

    pub fn suspects(&self, lock: u8) -> bool {
        self.suspects
            .iter()
            .flatten()
            .any(|&(suspect, _)| suspect == lock)
    }
}

impl State {
    pub fn boot(&self, server: u8) -> Boot {
        let number = self.servers[usize::from(server)].boot;
        Boot { server, number }
    }

    /// Whether the boot is the server's and it has not crashed.
    pub fn lives(&self, boot: Boot) -> bool {
        self.servers[usize::from(boot.server)].mode != Mode::Down && self.boot(boot.server) == boot
    }

    /// Whether a server waits for the answer to this attempt.
    fn is_awaited(&self, acquire: &AcquireRow) -> bool {
        let server = &self.servers[usize::from(acquire.boot.server)];
        let (Seat::Loading {
            lock,
            waits: Some(until),
            ..
        }
        | Seat::Settling {
            lock,
            waits: Some(until),
        }) = server.seat
        else {
            return false;
        };
        self.lives(acquire.boot)
            && server.mode == Mode::Up
            && (lock, until) == (acquire.lock, acquire.until_beat)
    }

    fn server_actions(&self, server: u8, actions: &mut Vec<Action>) {
        let at = &self.servers[usize::from(server)];
        let may_fail = self.left.faults > 0;
        match at.mode {
            Mode::Down => return actions.push(Action::Restart { server }),
            Mode::Paused => return actions.push(Action::Resume { server }),
            Mode::Absent => return,
            Mode::Up => {}
        }
        if !at.has_beaten {
            actions.push(Action::Beat {
                server,
                outcome: Beat::Answered,
            });
            if may_fail {
                let outcomes = [Beat::Unanswered, Beat::Lost, Beat::Blind];
                actions.extend(outcomes.map(|outcome| Action::Beat { server, outcome }));
            }
        }
        if may_fail {
            actions.push(Action::Pause { server });
            actions.push(Action::Crash { server });
        }
        match at.seat {
            Seat::Free if self.left.loads > 0 => actions.push(Action::Load { server }),
            Seat::Free => {}
            Seat::Loading { waits, .. } => {
                actions.push(if waits.is_some() {
                    Action::TimeOut { server }
                } else {
                    Action::Ask { server }
                });
                if waits.is_none() {
                    actions.push(Action::GiveUp { server });
                }
            }
            Seat::Settling { waits, .. } => {
                actions.push(if waits.is_some() {
                    Action::TimeOut { server }
                } else {
                    Action::Ask { server }
                });
            }
            Seat::Playing { .. } => actions.push(Action::Close { server }),
        }
        if !may_fail {
            actions.retain(|action| !matches!(action, Action::TimeOut { .. }));
        }
    }
}
