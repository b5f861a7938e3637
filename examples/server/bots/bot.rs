//! One bot: a whole client app, and somebody who plays on it.
//!
//! It logs in, plays, buys and trades, waits until it has all that it has paid for, retires from the field, waits until
//! its own data says that the server has heard of it, leaves, and comes back. Nothing changes after that confirmation,
//! so what it finds on its return has to be equal. If it knows several servers, it doesn't leave each time: it logs in
//! on another one while it still is on the first, which then has to give it up.

use std::time::{Duration, Instant};

use bevy::{ecs::schedule::SingleThreadedExecutor, prelude::*, time::TimePlugin};
use bevy_player_data::{PurchaseId, prelude::*};
use bevy_renet::{
    RenetClient, RenetClientPlugin,
    netcode::{NetcodeClientPlugin, NetcodeClientTransport},
};

use super::{
    Tally,
    belongings::{Belongings, Expectation},
    purse::Purse,
};
use crate::{
    game::{
        data::{Cell, Paint, shared_data},
        login::LoginService,
        net::{self, Direction, FieldView, Wish},
    },
    status::say,
};

/// How long one visit lasts, and how long it is till the next.
const VISIT: std::ops::Range<f32> = 0.5..4.0;
const PAUSE: std::ops::Range<f32> = 0.05..1.0;
/// How long it takes to make a step; less than what the server allows.
const STEP: Duration = Duration::from_millis(100);
/// How long a bot waits to be let in, and to hear that it has retired. Longer than the server waits for its store.
const PATIENCE: Duration = Duration::from_secs(60);

pub struct Bot {
    name: String,
    app: App,
    /// On which of the servers that it knows the bot is, or was.
    place: usize,
    /// The client that was on another server when the bot hopped, until that one has closed the connection.
    former: Option<(App, Instant)>,
    stage: Stage,
    expectation: Expectation,
    purse: Purse,
    view: FieldView,
    next_step: Instant,
    tally: Tally,
}

enum Stage {
    Away { until: Instant },
    Joining { since: Instant },
    Playing { until: Instant },
    Settling { since: Instant },
    Retiring { since: Instant, round: u32 },
}

/// How the load ended, as the client was told.
#[derive(Resource)]
enum Arrival {
    Loaded { first_join: bool },
    Failed { error: LoadError },
}

/// The purchases that the client was told are granted, since somebody last looked.
#[derive(Resource, Default)]
struct Granted(Vec<PurchaseId>);

impl Bot {
    pub fn new(name: String, purse: Purse) -> Self {
        let now = Instant::now();
        Self {
            name,
            app: client_app(),
            place: 0,
            former: None,
            stage: Stage::Away {
                until: now + seconds(PAUSE),
            },
            expectation: Expectation::Nothing,
            purse,
            view: FieldView::default(),
            next_step: now,
            tally: Tally::default(),
        }
    }

    pub const fn tally(&self) -> Tally {
        Tally {
            purchases: self.purse.purchases,
            refunds: self.purse.refunds,
            ..self.tally
        }
    }

    /// Does what there is to do now.
    pub fn live(&mut self, logins: &[LoginService]) {
        self.app.update();
        let now = Instant::now();
        self.look_back(now);
        if is_cut_off(&self.app) {
            // The server is going down, or the connection broke. What was seen last still counts.
            self.go_away(now);
        }
        match self.stage {
            Stage::Away { until } if now >= until => self.join(logins, fastrand::usize(..logins.len()), now),
            Stage::Away { .. } => {}
            Stage::Joining { since } => self.arrive(now, since),
            Stage::Playing { until } if now >= until => self.stage = Stage::Settling { since: now },
            Stage::Playing { .. } => self.play(now),
            Stage::Settling { since } => self.retire_once_settled(now, since),
            Stage::Retiring { since, round } => self.leave_once_confirmed(logins, now, since, round),
        }
    }

    fn join(&mut self, logins: &[LoginService], place: usize, now: Instant) {
        self.place = place;
        let token = logins[place]
            .log_in(&self.name)
            .map_err(|error| error.to_string());
        match token.and_then(|token| net::connect(token).map_err(|error| error.to_string())) {
            Ok((client, transport)) => {
                self.world().insert_resource(client);
                self.world().insert_resource(transport);
                self.stage = Stage::Joining { since: now };
            }
            Err(problem) => {
                self.mismatch(format_args!("can't join: {problem}"));
                self.go_away(now);
            }
        }
    }

    /// Compares what the bot gets with what it counts on, once it gets something.
    fn arrive(&mut self, now: Instant, since: Instant) {
        match self.world().remove_resource::<Arrival>() {
            None if now - since < PATIENCE => return,
            None => self.mismatch(format_args!("is not let in")),
            Some(Arrival::Failed { error }) => self.mismatch(format_args!("plays on defaults: {error}")),
            Some(Arrival::Loaded { first_join }) => return self.compare(now, first_join),
        }
        self.go_away(now);
    }

    fn compare(&mut self, now: Instant, first_join: bool) {
        let Some(got) = Belongings::read(self.world()) else {
            return self.mismatch(format_args!("is loaded and sees nothing"));
        };
        self.tally.visits += 1;
        if !matches!(self.expectation, Expectation::Nothing) {
            self.tally.returns += 1;
            if first_join {
                self.mismatch(format_args!("is taken for somebody new"));
            }
        }
        if let Err(problem) = self.expectation.check(&got) {
            self.mismatch(format_args!("{problem}"));
        }
        self.purse.arrive();
        self.expectation = Expectation::in_any_case(&got, false);
        self.stage = Stage::Playing {
            until: now + seconds(VISIT),
        };
    }

    fn play(&mut self, now: Instant) {
        let Some(seen) = self.look_at_belongings() else {
            return;
        };
        self.look_around();
        if now >= self.next_step {
            self.next_step = now + STEP;
            let wish = match fastrand::u8(0..50) {
                0 => Wish::Wear(fastrand::choice(Paint::ALL).unwrap_or_default()),
                1..4 => Wish::Trade,
                4..11 => Wish::Step(somewhere()),
                _ => Wish::Step(self.towards_a_find(seen.cell)),
            };
            self.ask_for(wish);
            if fastrand::u8(0..15) == 0 {
                self.purse.shop(&seen.bought);
            }
        }
    }

    /// Reads what the bot has, and brings its accounts up to date.
    fn look_at_belongings(&mut self) -> Option<Belongings> {
        let seen = Belongings::read(self.world())?;
        for purchase in std::mem::take(&mut self.world().resource_mut::<Granted>().0) {
            self.purse.note_granted(&purchase, &seen.bought);
        }
        if let Err(problem) = self.purse.collect() {
            self.mismatch(format_args!("can't buy {problem}"));
        }
        let is_settled = self.purse.agrees_with(&seen.bought);
        self.expectation = Expectation::in_any_case(&seen, is_settled);
        Some(seen)
    }

    fn retire_once_settled(&mut self, now: Instant, since: Instant) {
        let Some(seen) = self.look_at_belongings() else {
            return;
        };
        if !self.purse.agrees_with(&seen.bought) {
            if now - since < PATIENCE {
                return;
            }
            let complaint = self.purse.complaint(&seen.bought);
            self.mismatch(format_args!("{complaint}"));
        }
        if fastrand::bool() {
            // At the very last moment.
            self.ask_for(Wish::Trade);
        }
        self.ask_for(Wish::Retire);
        self.stage = Stage::Retiring {
            since: now,
            round: seen.career.rounds + 1,
        };
    }

    fn leave_once_confirmed(&mut self, logins: &[LoginService], now: Instant, since: Instant, round: u32) {
        match Belongings::read(self.world()) {
            Some(confirmed) if confirmed.career.rounds == round => {
                self.expectation = Expectation::Exactly(confirmed);
            }
            Some(_) if now - since < PATIENCE => return,
            _ => self.mismatch(format_args!("is not told that round {round} is over")),
        }
        if logins.len() > 1 && self.former.is_none() && fastrand::bool() {
            return self.hop(logins, now);
        }
        if let Some(mut transport) = self.world().get_resource_mut::<NetcodeClientTransport>() {
            transport.disconnect();
        }
        self.go_away(now);
    }

    /// Goes to another server with a client of its own, while the one on this server stays where it is.
    fn hop(&mut self, logins: &[LoginService], now: Instant) {
        let former = std::mem::replace(&mut self.app, client_app());
        self.former = Some((former, now));
        self.tally.hops += 1;
        let others = self.place + fastrand::usize(1..logins.len());
        self.join(logins, others % logins.len(), now);
    }

    /// The server that the bot has hopped away from closes the connection by itself.
    fn look_back(&mut self, now: Instant) {
        let Some((former, since)) = &mut self.former else {
            return;
        };
        former.update();
        let is_late = now - *since >= PATIENCE;
        if is_cut_off(former) || is_late {
            self.former = None;
        }
        if is_late {
            self.mismatch(format_args!(
                "is still on the server that it has hopped away from"
            ));
        }
    }

    fn go_away(&mut self, now: Instant) {
        self.world().remove_resource::<RenetClient>();
        self.world().remove_resource::<NetcodeClientTransport>();
        self.world().remove_resource::<Arrival>();
        self.stage = Stage::Away {
            until: now + seconds(PAUSE),
        };
    }

    fn ask_for(&mut self, wish: Wish) {
        if let Some(mut client) = self.world().get_resource_mut::<RenetClient>() {
            client.send_message(net::WISHES, net::encode(&wish));
        }
    }

    fn look_around(&mut self) {
        let Some(mut client) = self.world().get_resource_mut::<RenetClient>() else {
            return;
        };
        let newest = std::iter::from_fn(|| client.receive_message(net::VIEWS)).last();
        if let Some(view) = newest.and_then(|view| net::decode(&view)) {
            self.view = view;
        }
    }

    fn towards_a_find(&self, Cell { x, y }: Cell) -> Direction {
        let distance = |find: &&Cell| find.x.abs_diff(x) as u16 + find.y.abs_diff(y) as u16;
        match self
            .view
            .finds
            .iter()
            .filter(|find| distance(find) > 0)
            .min_by_key(distance)
        {
            Some(find) if find.x > x => Direction::Right,
            Some(find) if find.x < x => Direction::Left,
            Some(find) if find.y > y => Direction::Down,
            Some(_) => Direction::Up,
            None => somewhere(),
        }
    }

    fn mismatch(&mut self, problem: std::fmt::Arguments<'_>) {
        self.tally.mismatches += 1;
        say(format_args!("MISMATCH: {} {problem}", self.name));
    }

    fn world(&mut self) -> &mut World {
        self.app.world_mut()
    }
}

fn is_cut_off(app: &App) -> bool {
    app.world()
        .get_resource::<RenetClient>()
        .is_some_and(|client| client.is_disconnected())
}

/// What a client needs, and no more: no window, and one thread for all bots instead of many for one.
fn client_app() -> App {
    let mut app = App::new();
    app.add_plugins((
        TimePlugin,
        RenetClientPlugin,
        NetcodeClientPlugin,
        PlayerDataPlugin::client(),
        shared_data,
    ))
    .add_observer(|loaded: On<PlayerLoaded>, mut commands: Commands| {
        commands.insert_resource(Arrival::Loaded {
            first_join: loaded.first_join,
        });
    })
    .init_resource::<Granted>()
    .add_observer(|processed: On<PurchaseProcessed>, mut granted: ResMut<Granted>| {
        if processed.decision == PurchaseDecision::PurchaseGranted {
            granted.0.push(processed.purchase.clone());
        }
    })
    .add_observer(|failed: On<PlayerLoadFailed>, mut commands: Commands| {
        commands.insert_resource(Arrival::Failed {
            error: failed.error.clone(),
        });
    });
    app.finish();
    app.cleanup();
    for (_, schedule) in app.world_mut().resource_mut::<Schedules>().iter_mut() {
        schedule.set_executor(SingleThreadedExecutor::new());
    }
    app
}

fn somewhere() -> Direction {
    [Direction::Up, Direction::Down, Direction::Left, Direction::Right][fastrand::usize(0..4)]
}

fn seconds(range: std::ops::Range<f32>) -> Duration {
    Duration::from_secs_f32(range.start + fastrand::f32() * (range.end - range.start))
}
