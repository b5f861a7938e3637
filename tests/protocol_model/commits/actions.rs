//! What may happen in a state of the [model of commits](super).

use super::{Action, Asked, Kind, Request, Seat, Session, State};
use crate::store::{Boot, PLAYERS};

impl State {
    pub(super) fn server_actions(&self, server: u8, actions: &mut Vec<Action>) {
        let at = &self.servers[usize::from(server)];
        if !at.is_up {
            actions.push(Action::Restart { server });
            return;
        }
        if self.left.faults > 0 && (at.seats != [Seat::Free; PLAYERS] || self.has_sent(server, at.boot)) {
            actions.push(Action::Crash { server });
        }
        let mut idle = 0;
        for player in 0..PLAYERS as u8 {
            match &at.seats[usize::from(player)] {
                Seat::Free => {
                    if self.left.loads > 0 {
                        actions.push(Action::Load { server, player });
                    }
                }
                Seat::Loading { .. } => {
                    if self.left.faults > 0 {
                        actions.push(Action::Retry { server, player });
                        actions.push(Action::FailLoad { server, player });
                    }
                }
                Seat::Playing(session) => {
                    idle += usize::from(session.request.is_none());
                    self.session_actions(server, player, session, actions);
                }
            }
        }
        if idle == PLAYERS && self.left.trades > 0 {
            actions.extend((0..PLAYERS as u8).map(|first| Action::Trade { server, first }));
        }
    }

    fn session_actions(&self, server: u8, player: u8, session: &Session, actions: &mut Vec<Action>) {
        let is_ending = |asked: &Asked| matches!(asked.kind, Kind::Close | Kind::Release);
        if session.is_paid && self.left.awards > 0 && !session.request.as_ref().is_some_and(is_ending) {
            actions.push(Action::Award { server, player });
        }
        let Some(asked) = &session.request else {
            if self.left.ops > 0 {
                actions.push(Action::Save {
                    server,
                    player,
                    op: true,
                });
            }
            if self.left.saves > 0 && (session.unsettled || !session.is_stored) {
                actions.push(Action::Save {
                    server,
                    player,
                    op: false,
                });
            }
            actions.push(Action::Close { server, player });
            return;
        };
        // A trade's request belongs to both players: the first one's seat stands for it.
        if matches!(asked.kind, Kind::Trade { first } if first != player) {
            return;
        }
        if self.left.faults > 0 {
            actions.push(Action::Retry { server, player });
        }
        if asked.kind == Kind::Save && self.left.faults > 0 {
            actions.push(Action::GiveUp { server, player });
        }
    }

    /// Whether it makes a difference that the asker has found the holder's lease lapsed.
    fn claims(&self, request: Request) -> bool {
        match request {
            Request::Acquire {
                player, lock, boot, ..
            } => {
                let held = self.rows.players[usize::from(player)].held;
                held.is_some_and(|held| held != (lock, boot) && self.rows.is_registered(held.1))
            }
            _ => false,
        }
    }

    /// Whether somebody still waits for the answer to this attempt.
    pub(super) fn is_awaited(&self, request: Request) -> bool {
        let seat = |boot: Boot, player: u8| {
            let server = &self.servers[usize::from(boot.server)];
            let is_up = server.is_up && server.boot == boot.number;
            is_up.then_some(server.seats[usize::from(player)])
        };
        match request {
            Request::Acquire { player, lock, boot, attempt } => {
                seat(boot, player) == Some(Seat::Loading { lock, attempt })
            }
            Request::Commit { boot, attempt, writes } => writes.iter().flatten().all(|write| {
                matches!(seat(boot, write.player), Some(Seat::Playing(Session { lock, seq, request: Some(asked), .. }))
                    if (lock, seq, asked.attempt) == (write.lock, write.seq, attempt))
            }),
            Request::Settle(_) => false,
        }
    }

    fn has_sent(&self, server: u8, number: u8) -> bool {
        self.network.iter().any(|request| match request {
            Request::Acquire { boot, .. } | Request::Commit { boot, .. } => *boot == Boot { server, number },
            Request::Settle(_) => false,
        })
    }

    pub(super) fn network_actions(&self, actions: &mut Vec<Action>) {
        for (place, &request) in self.network.iter().enumerate() {
            if place > 0 && self.network[place - 1] == request {
                continue;
            }
            let (is_held, is_awaited) = (self.claims(request), self.is_awaited(request));
            for lapsed in [false, true] {
                for doubled in [false, true] {
                    for answered in [false, true] {
                        if lapsed <= is_held && doubled <= (self.left.faults > 0) && answered <= is_awaited {
                            actions.push(Action::Deliver {
                                request,
                                lapsed,
                                doubled,
                                answered,
                            });
                        }
                    }
                }
            }
            if self.left.faults > 0 {
                actions.push(Action::Lose { request });
            }
        }
    }
}
