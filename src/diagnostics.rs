//! Figures for Bevy's own [`DiagnosticsStore`](bevy::diagnostic::DiagnosticsStore): what the server, or the client, is
//! doing.
//!
//! The module owns the plugin and the paths. It only reads what the other modules count anyway, once per
//! [interval](PlayerDataDiagnosticsPlugin::interval), so an app without the plugin pays nothing.

use std::time::Duration;

use bevy::{
    diagnostic::{Diagnostic, DiagnosticPath, Diagnostics, RegisterDiagnostic},
    platform::time::Instant,
    prelude::*,
};

#[cfg(feature = "client")]
use crate::client::MirrorStats;
#[cfg(feature = "server")]
use crate::{
    player::{PlayerLoading, PlayerSession},
    replication::ReplicationStats,
    server::{PlayerDataServer, ServerStats},
};

/// Keeps this crate's figures in Bevy's [`DiagnosticsStore`](bevy::diagnostic::DiagnosticsStore), from where overlays,
/// logs and metrics exporters take them. Add it beside the plugin of either side; the figures of a side that isn't
/// there have no measurements.
///
/// ```
/// # use bevy::{diagnostic::DiagnosticsStore, prelude::*};
/// # use bevy_player_data::prelude::*;
/// fn status(diagnostics: Res<DiagnosticsStore>) {
///     let sessions = diagnostics.get(&PlayerDataDiagnosticsPlugin::SESSIONS);
///     if let Some(sessions) = sessions.and_then(|sessions| sessions.value()) {
///         println!("{sessions} players are in a session");
///     }
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct PlayerDataDiagnosticsPlugin {
    /// How often the figures are taken. Default: 1 s.
    pub interval: Duration,
}

impl Default for PlayerDataDiagnosticsPlugin {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(1),
        }
    }
}

macro_rules! paths {
    ($(#[cfg($side:meta)] $name:ident = $path:literal, $suffix:literal, $what:literal;)*) => {
        impl PlayerDataDiagnosticsPlugin {
            $(
                #[cfg($side)]
                #[doc = $what]
                pub const $name: DiagnosticPath = DiagnosticPath::const_new(concat!("player_data/", $path));
            )*
        }

        fn register(app: &mut App) {
            $(
                #[cfg($side)]
                app.register_diagnostic(
                    Diagnostic::new(PlayerDataDiagnosticsPlugin::$name).with_suffix($suffix),
                );
            )*
        }
    };
}

paths! {
    #[cfg(feature = "server")] SESSIONS = "sessions", "",
        "On a server: players whose data is loaded, with a session.";
    #[cfg(feature = "server")] LOADING = "loading", "",
        "On a server: players whose data is on its way.";
    #[cfg(feature = "server")] QUEUED_REQUESTS = "queued_requests", "",
        "On a server: loads and saves that wait for the store, or for its answer.";
    #[cfg(feature = "server")] SAVES_PER_SECOND = "saves_per_second", "/s",
        "On a server: durable saves a second, final ones included.";
    #[cfg(feature = "server")] SAVE_LATENCY = "save_latency", " ms",
        "On a server: milliseconds from a save's capture until it is durable, the mean of the interval. No measurement \
         while nothing is saved.";
    #[cfg(feature = "server")] FAILURES = "failures", "/s",
        "On a server: loads and saves that failed, a second.";
    #[cfg(feature = "server")] REPLICATED_BYTES = "replicated_bytes", " B/s",
        "On a server: bytes a second in messages to clients, without renet's own headers.";
    #[cfg(feature = "client")] RECEIVED_BYTES = "received_bytes", " B/s",
        "On a client: bytes a second in messages from the server, without renet's own headers.";
    #[cfg(feature = "client")] RECEIVED_MESSAGES = "received_messages", "/s",
        "On a client: messages a second from the server.";
}

impl Plugin for PlayerDataDiagnosticsPlugin {
    fn build(&self, app: &mut App) {
        register(app);
        app.insert_resource(Interval {
            length: self.interval,
            began: Instant::now(),
            passed: None,
        })
        .add_systems(PostUpdate, begin_or_end_interval);
        #[cfg(feature = "server")]
        app.add_systems(
            PostUpdate,
            measure_server
                .after(begin_or_end_interval)
                .run_if(resource_exists::<ServerStats>),
        );
        #[cfg(feature = "client")]
        app.add_systems(
            PostUpdate,
            measure_client
                .after(begin_or_end_interval)
                .run_if(resource_exists::<MirrorStats>),
        );
    }
}

/// Over what the figures are taken.
#[derive(Resource)]
struct Interval {
    length: Duration,
    began: Instant,
    /// How long the interval was that has ended in this update, in seconds.
    passed: Option<f64>,
}

fn begin_or_end_interval(mut interval: ResMut<Interval>) {
    let passed = interval.began.elapsed();
    interval.passed = (passed >= interval.length).then(|| passed.as_secs_f64().max(f64::MIN_POSITIVE));
    if interval.passed.is_some() {
        interval.began = Instant::now();
    }
}

/// By how much a counter has risen since the last time.
fn rise(last: &mut u64, now: u64) -> f64 {
    now.saturating_sub(std::mem::replace(last, now)) as f64
}

/// What the counters were when the last interval ended.
#[cfg(feature = "server")]
#[derive(Default)]
struct ServerCounters {
    saves: u64,
    failures: u64,
    bytes: u64,
    save_time: Duration,
}

#[cfg(feature = "server")]
fn measure_server(
    mut last: Local<ServerCounters>,
    interval: Res<Interval>,
    stats: Res<ServerStats>,
    replication: Res<ReplicationStats>,
    server: PlayerDataServer,
    (sessions, loading): (Query<(), With<PlayerSession>>, Query<(), With<PlayerLoading>>),
    mut diagnostics: Diagnostics,
) {
    type Paths = PlayerDataDiagnosticsPlugin;
    let Some(seconds) = interval.passed else { return };
    let saves = rise(&mut last.saves, stats.saves);
    let failures = rise(&mut last.failures, stats.load_failures + stats.save_failures);
    let bytes = rise(&mut last.bytes, replication.total.sent_bytes);
    let save_time = stats.save_time.saturating_sub(last.save_time);
    last.save_time = stats.save_time;

    diagnostics.add_measurement(&Paths::SESSIONS, || sessions.iter().len() as f64);
    diagnostics.add_measurement(&Paths::LOADING, || loading.iter().len() as f64);
    diagnostics.add_measurement(&Paths::QUEUED_REQUESTS, || server.queue_len() as f64);
    diagnostics.add_measurement(&Paths::SAVES_PER_SECOND, || saves / seconds);
    diagnostics.add_measurement(&Paths::FAILURES, || failures / seconds);
    diagnostics.add_measurement(&Paths::REPLICATED_BYTES, || bytes / seconds);
    if saves > 0.0 {
        diagnostics.add_measurement(&Paths::SAVE_LATENCY, || save_time.as_secs_f64() * 1e3 / saves);
    }
}

/// What the counters were when the last interval ended.
#[cfg(feature = "client")]
#[derive(Default)]
struct ClientCounters {
    bytes: u64,
    messages: u64,
}

#[cfg(feature = "client")]
fn measure_client(
    mut last: Local<ClientCounters>,
    interval: Res<Interval>,
    stats: Res<MirrorStats>,
    mut diagnostics: Diagnostics,
) {
    type Paths = PlayerDataDiagnosticsPlugin;
    let Some(seconds) = interval.passed else { return };
    let bytes = rise(&mut last.bytes, stats.received_bytes);
    let messages = rise(&mut last.messages, stats.received_messages);
    diagnostics.add_measurement(&Paths::RECEIVED_BYTES, || bytes / seconds);
    diagnostics.add_measurement(&Paths::RECEIVED_MESSAGES, || messages / seconds);
}
