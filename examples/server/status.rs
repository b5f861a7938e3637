//! What the server tells the person in front of it, on stdout: who comes and goes, a line a second, and how it ended.
//!
//! The log, on stderr, is for operators.

use std::{
    fmt::Display,
    io::{self, Write},
    time::Duration,
};

use bevy::{
    diagnostic::{Diagnostic, DiagnosticPath, DiagnosticsPlugin, DiagnosticsStore},
    prelude::*,
    time::common_conditions::on_timer,
};
use bevy_player_data::{player::PlayerClient, prelude::*, replication::ReplicationStats};
use bevy_renet::netcode::NetcodeServerTransport;

use crate::{
    audit::Audit,
    bots::Bots,
    catalogue::Catalogue,
    database::Database,
    game::data::{Coins, Level},
    login,
    ticks::{Durations, Ticks},
};

/// How many arrivals and departures are told per second, so that a crowd doesn't hide everything else.
const TOLD_PER_SECOND: u8 = 5;

/// How much was told since the last status line, and what the counters said then.
#[derive(Resource, Default)]
struct Told {
    players: u8,
    saves: u64,
    bytes: u64,
}

/// What is audited when bots have played.
#[derive(Resource)]
pub struct Books {
    pub db: Database,
    pub catalogue: Catalogue,
}

/// Says a line. Nobody listening is no reason to fall over.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stdout().lock(), "{line}");
}

pub fn plugin(app: &mut App) {
    app.add_plugins((DiagnosticsPlugin, PlayerDataDiagnosticsPlugin::default()))
        .init_resource::<Told>()
        .add_observer(name_client)
        .add_observer(tell_of_arrival)
        .add_observer(tell_of_failure)
        .add_observer(tell_of_departure)
        .add_observer(tell_the_end)
        .add_systems(Update, tell_status.run_if(on_timer(Duration::from_secs(1))));
}

/// Takes the name over from the connect token, which is there for as long as the client is connected.
fn name_client(
    insert: On<Insert, PlayerClient>,
    clients: Query<&PlayerClient>,
    transport: Res<NetcodeServerTransport>,
    mut commands: Commands,
) -> Result {
    let &PlayerClient(client) = clients.get(insert.entity)?;
    if let Some(user_data) = transport.user_data(client)
        && let Some(name) = login::name_in(&user_data)
    {
        commands.entity(insert.entity).insert(Name::new(name.to_owned()));
    }
    Ok(())
}

fn tell_of_arrival(
    loaded: On<PlayerLoaded>,
    players: Query<(NameOrEntity, &Coins, &Level)>,
    mut told: ResMut<Told>,
) {
    let Ok((name, Coins(coins), level)) = players.get(loaded.entity) else {
        return;
    };
    if !told.may_tell() {
        return;
    }
    if loaded.first_join {
        say(format_args!("{name} is new here"));
    } else {
        say(format_args!(
            "{name} is back with {coins} coins, at level {}",
            level.number
        ));
    }
}

fn tell_of_failure(failed: On<PlayerLoadFailed>, names: Query<NameOrEntity>, mut told: ResMut<Told>) {
    if let Ok(name) = names.get(failed.entity)
        && told.may_tell()
    {
        say(format_args!("{name} plays on defaults: {}", failed.error));
    }
}

/// Observes the state and not [`PlayerSessionEnded`], by which the entity is gone with all that it had.
fn tell_of_departure(
    remove: On<Remove, PlayerSession>,
    players: Query<(NameOrEntity, &Coins)>,
    mut told: ResMut<Told>,
) {
    if let Ok((name, Coins(coins))) = players.get(remove.entity)
        && told.may_tell()
    {
        say(format_args!("{name} leaves with {coins} coins"));
    }
}

impl Told {
    fn may_tell(&mut self) -> bool {
        self.players = self.players.saturating_add(1);
        self.players <= TOLD_PER_SECOND
    }
}

fn tell_status(
    clients: Query<(), With<PlayerClient>>,
    sessions: Query<(), With<PlayerSession>>,
    server: Res<ServerStats>,
    replication: Res<ReplicationStats>,
    diagnostics: Res<DiagnosticsStore>,
    mut ticks: ResMut<Ticks>,
    mut told: ResMut<Told>,
) {
    say(format_args!(
        "{:4} players, {:4} sessions, {:4} saves/s{}, {:7.1} kB/s to their owners, tick {}",
        clients.iter().len(),
        sessions.iter().len(),
        server.saves - told.saves,
        store(&diagnostics),
        (replication.total.sent_bytes - told.bytes) as f64 / 1e3,
        ticks.lately.whole,
    ));
    *told = Told {
        players: 0,
        saves: server.saves,
        bytes: replication.total.sent_bytes,
    };
    ticks.lately = Durations::default();
}

/// How the store does, as the crate's diagnostics have it: how long a save took lately, and what waits or failed, if
/// anything.
fn store(diagnostics: &DiagnosticsStore) -> String {
    let figure = |path: DiagnosticPath| diagnostics.get(&path).and_then(Diagnostic::value);
    let latency = figure(PlayerDataDiagnosticsPlugin::SAVE_LATENCY);
    let latency = latency.map(|millis| format!(" in {millis:.1} ms"));
    let some = |path, what| {
        let number = figure(path).filter(|number| *number >= 0.5);
        number.map(|number| format!(", {number:.0} {what}"))
    };
    let queued = some(PlayerDataDiagnosticsPlugin::QUEUED_REQUESTS, "waiting");
    let failed = some(PlayerDataDiagnosticsPlugin::FAILURES, "failed");
    [latency, queued, failed].into_iter().flatten().collect()
}

/// The last words: `saved N of N players in T ms` is always the last line.
fn tell_the_end(
    flushed: On<PlayerDataFlushed>,
    mut bots: ResMut<Bots>,
    books: Res<Books>,
    server: Res<ServerStats>,
    ticks: Res<Ticks>,
    mut exit: MessageWriter<AppExit>,
) {
    let tally = bots.stop();
    let is_clean = tally.visits == 0 || {
        say(tally);
        tell_audit(&books)
    };
    if tally.mismatches > 0 || !is_clean {
        exit.write(AppExit::error());
    }
    say(format_args!(
        "{} purchases granted, {} refunded, {} refused; {} trades, {} not possible",
        server.purchases_granted,
        server.purchases_refunded,
        server.purchases_refused,
        server.trades,
        server.trades_refused,
    ));
    let Durations {
        whole,
        without_plugin,
    } = &ticks.overall;
    say(format_args!("tick {whole}; without player data {without_plugin}"));
    for unsaved in &flushed.unsaved {
        say(format_args!(
            "player {} is not saved: {}",
            unsaved.player, unsaved.error
        ));
    }
    let (saved, total, millis) = (flushed.saved(), flushed.total, flushed.elapsed.as_millis());
    say(format_args!("saved {saved} of {total} players in {millis} ms"));
}

/// Whether what was saved is as it should be.
fn tell_audit(books: &Books) -> bool {
    match Audit::of(&books.db, &books.catalogue) {
        Ok(audit) => {
            say(&audit);
            audit.is_clean()
        }
        Err(problem) => {
            say(format_args!("there is no audit: {problem}"));
            false
        }
    }
}
