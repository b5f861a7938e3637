//! The server that is listened to: its settings, and what its game is told.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bevy::{prelude::*, time::TimeUpdateStrategy};
use bevy_player_data::{
    prelude::*,
    session::{Attempts, RetryPolicy},
};
use bevy_renet::{
    RenetServer, RenetServerPlugin,
    renet::{ClientId, DefaultChannel},
};
use fastrand::Rng;
use tokio::runtime::Runtime;

use crate::{
    device::config, driven::run_on_one_thread, game, run::TICK, sabotage::Sabotage, secret::Secrets,
    store::TalkingStore,
};

/// Which player a client is.
pub type Identities = Arc<Mutex<HashMap<ClientId, PlayerId>>>;

/// What the server's game was told, to be counted.
#[derive(Resource, Default)]
pub struct Heard(pub BTreeMap<String, u64>);

/// Times that fit the tick: every pause ends within a few.
pub fn settings(
    rng: &mut Rng,
    secrets: &mut Secrets,
    identities: &Identities,
    sabotage: Option<Sabotage>,
) -> ServerSettings {
    let identities = Arc::clone(identities);
    // With little room, clients are often told later, and in small parts. What is cut in two on purpose needs to know
    // where.
    let max_outstanding = if sabotage.is_none() && rng.bool() {
        16 * 1024
    } else {
        ReplicationSettings::default().max_outstanding
    };
    let keeps = rng.u8(..4) == 0;
    let name = if keeps {
        // Whose older session ends here is told where the newer one is.
        "an arena".to_owned()
    } else {
        format!("arena {}", secrets.plant("the server's name", None).text())
    };
    ServerSettings {
        name,
        beat: Duration::from_millis(100),
        lease_ttl: Duration::from_millis(600),
        autosave: Some(Duration::from_millis(300)),
        load_timeout: Duration::from_millis(400),
        exit_deadline: Duration::from_millis(300),
        document_limit: 256 * 1024,
        retry: RetryPolicy {
            first: Duration::from_millis(10),
            max: Duration::from_millis(80),
            attempts: Attempts::Limited(3),
            attempt_timeout: Duration::from_millis(150),
            ..default()
        },
        identify: Identify::by(move |client, _| {
            let identities = identities.lock().unwrap_or_else(PoisonError::into_inner);
            identities.get(&client).copied()
        }),
        on_load_failure: if rng.u8(..4) == 0 {
            |_| OnLoadFailure::Disconnect
        } else {
            |_| OnLoadFailure::Fallback
        },
        on_session_lost: if keeps {
            OnSessionLost::KeepAsFallback
        } else {
            OnSessionLost::Disconnect
        },
        handle_signals: false,
        purchases: PurchaseSettings {
            poll: Duration::from_millis(150),
            first_retry: Duration::from_millis(20),
            longest_retry: Duration::from_millis(40),
            unknown_product_grace: Duration::from_millis(100),
        },
        replication: ReplicationSettings {
            max_outstanding,
            // No real time passes.
            farewell_timeout: Duration::ZERO,
            ..default()
        },
        ..default()
    }
}

pub fn server(
    store: TalkingStore,
    settings: ServerSettings,
    runtime: &Arc<Runtime>,
    sabotage: Option<Sabotage>,
) -> App {
    let mut app = App::new();
    app.add_plugins(bevy::time::TimePlugin)
        .insert_resource(TimeUpdateStrategy::ManualDuration(TICK))
        .add_plugins((
            RenetServerPlugin,
            PlayerDataPlugin::server(store)
                .with_settings(settings)
                .driven_by(Arc::clone(runtime)),
        ))
        .insert_resource(RenetServer::new(config()));
    game::server_data(&mut app, sabotage);
    game::products(&mut app);
    listen(&mut app);
    if sabotage == Some(Sabotage::ToldErrors) {
        app.add_observer(
            |failed: On<PlayerLoadFailed>, clients: Query<&PlayerClient>, mut renet: ResMut<RenetServer>| {
                if let Ok(&PlayerClient(client)) = clients.get(failed.entity) {
                    let text = failed.error.to_string();
                    renet.send_message(client, DefaultChannel::ReliableOrdered, text);
                }
            },
        );
    }
    run_on_one_thread(&mut app);
    app
}

fn listen(app: &mut App) {
    app.init_resource::<Heard>()
        .add_observer(|on: On<PlayerLoaded>, mut heard: ResMut<Heard>| {
            heard.count(if on.first_join { "loaded: new" } else { "loaded" });
        })
        .add_observer(|on: On<PlayerLoadFailed>, mut heard: ResMut<Heard>| {
            heard.count(match &on.error {
                LoadError::SessionLocked { .. } => "load failed: locked",
                LoadError::Unavailable { .. } => "load failed: unavailable",
                LoadError::Corrupt { .. } => "load failed: corrupt",
                LoadError::Newer { .. } => "load failed: newer",
                _ => "load failed: otherwise",
            });
        })
        .add_observer(|on: On<PlayerSaved>, mut heard: ResMut<Heard>| {
            heard.count(match &on.result {
                Ok(()) if on.is_final => "saved: at the end",
                Ok(()) => "saved",
                Err(SaveError::Unavailable { .. }) => "not saved: unavailable",
                Err(SaveError::TooLarge { .. }) => "not saved: too large",
                Err(SaveError::Encode { .. }) => "not saved: can't be encoded",
                Err(SaveError::Rejected { .. }) => "not saved: rejected",
                Err(SaveError::LockLost) => "not saved: lock lost",
                Err(_) => "not saved: otherwise",
            });
        })
        .add_observer(|on: On<PlayerSessionEnded>, mut heard: ResMut<Heard>| {
            heard.count(&format!("session ended: {:?}", on.reason));
        })
        .add_observer(|on: On<PurchaseProcessed>, mut heard: ResMut<Heard>| {
            heard.count(match &on.decision {
                PurchaseDecision::PurchaseGranted => "purchase: granted",
                PurchaseDecision::NotProcessedYet => "purchase: not yet",
                PurchaseDecision::Refused { .. } => "purchase: refused",
                PurchaseDecision::Refunded { .. } => "purchase: refunded",
                _ => "purchase: otherwise",
            });
        })
        .add_observer(|on: On<TradeSettled>, mut heard: ResMut<Heard>| {
            heard.count(match &on.result {
                Ok(()) => "trade: done",
                Err(TradeError::Failed { .. }) => "trade: failed",
                Err(_) => "trade: refused",
            });
        });
}

impl Heard {
    fn count(&mut self, what: &str) {
        *self.0.entry(what.to_owned()).or_default() += 1;
    }
}
