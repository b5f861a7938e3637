//! What a server tells its game, and whether it is true.

use std::collections::{BTreeMap, BTreeSet};

use bevy::prelude::*;
use bevy_player_data::{prelude::*, store::Store};

use crate::{
    game::Journal,
    stored::{is_true, look, name_of},
    wire::Wire,
};

/// Where a server's game says what it was told.
#[derive(Resource, Clone)]
struct Ears(Wire);

/// What the flush on exit reported.
#[derive(Resource, Default)]
pub struct Flushed(pub Option<PlayerDataFlushed>);

/// Whose sessions were said to have ended at their last commit.
#[derive(Resource, Default)]
pub struct Lost(pub BTreeSet<PlayerId>);

/// What was in memory when a player left, until the final save is answered.
#[derive(Resource, Default)]
pub struct Leaving(pub BTreeMap<Entity, (PlayerId, Vec<u32>)>);

pub fn listen(app: &mut App, wire: &Wire) {
    app.insert_resource(Ears(wire.clone()))
        .init_resource::<Flushed>()
        .init_resource::<Leaving>()
        .init_resource::<Lost>();
    app.add_observer(hear_loaded)
        .add_observer(hear_saved)
        .add_observer(hear_purchase)
        .add_observer(hear_trade)
        .add_observer(hear_request)
        .add_observer(|on: On<PlayerTransferred>, ears: Res<Ears>| {
            let name = match on.result {
                Ok(()) => "saved and free",
                Err(_) => "failed",
            };
            ears.0.oracle(|oracle| {
                oracle.tally.count("sent to another server", name);
                oracle.tell(&format!("sent: {} {:?}", on.player, on.result));
            });
        })
        .add_observer(|on: On<PlayerLoadFailed>, ears: Res<Ears>| {
            let kind = match &on.error {
                LoadError::SessionLocked { .. } => "SessionLocked",
                LoadError::Unavailable { .. } => "Unavailable",
                LoadError::Newer { .. } => "Newer",
                LoadError::Left => "Left",
                _ => "another",
            };
            ears.0.oracle(|oracle| {
                oracle.tally.count("loads failed", kind);
                oracle.tell(&format!("load failed: {} {}", on.player, on.error));
            });
        })
        .add_observer(
            |on: On<PlayerSessionEnded>, ears: Res<Ears>, mut lost: ResMut<Lost>| {
                if matches!(on.reason, SessionEnd::LockLost | SessionEnd::CommitRefused) {
                    lost.0.insert(on.player);
                }
                ears.0.oracle(|oracle| {
                    oracle.tally.count("sessions ended", format!("{:?}", on.reason));
                    oracle.tell(&format!("session ended: {} {:?}", on.player, on.reason));
                });
            },
        )
        .add_observer(|on: On<PlayerDataFlushed>, mut flushed: ResMut<Flushed>| {
            flushed.0 = Some(on.event().clone());
        });
}

/// A session begins with what is stored.
fn hear_loaded(on: On<PlayerLoaded>, journals: Query<&Journal>, ears: Res<Ears>) {
    let loaded = journals
        .get(on.entity)
        .map(|journal| journal.0.clone())
        .unwrap_or_default();
    ears.0.oracle(|oracle| {
        oracle.tell(&format!(
            "loaded: {} {loaded:?} first {}",
            on.player, on.first_join
        ));
        oracle
            .tally
            .count("loads", if on.first_join { "first join" } else { "again" });
        let stored = oracle.journal(on.player);
        // Another server may have taken the lock, and saved, since it was granted.
        let check = if stored.starts_with(&loaded) {
            Ok(())
        } else {
            Err(format!(
                "I6: {} was loaded with {loaded:?}, and stored is {stored:?}",
                on.player
            ))
        };
        oracle.judge(check);
    });
}

/// Now and then a game refuses. If it doesn't, what the player has now has to be what they leave with.
fn hear_request(
    mut on: On<HandOffRequested>,
    journals: Query<&Journal>,
    mut leaving: ResMut<Leaving>,
    ears: Res<Ears>,
) {
    let journal = journals.get(on.entity).map(|journal| journal.0.clone());
    let keeps = journal.as_ref().is_ok_and(|journal| journal.len() % 4 == 3);
    if keeps {
        on.refuse("not now");
    } else if let Ok(journal) = journal {
        leaving.0.insert(on.entity, (on.player, journal));
    }
    ears.0.oracle(|oracle| {
        let name = if keeps { "keeps them" } else { "gives them up" };
        oracle.tally.count("asked for a player", name);
        oracle.tell(&format!("asked for: {} by {}, and {name}", on.player, on.to));
    });
}

/// What was said to be saved is stored.
fn hear_saved(on: On<PlayerSaved>, mut leaving: ResMut<Leaving>, ears: Res<Ears>) {
    let left_with = if on.is_final {
        leaving.0.remove(&on.entity)
    } else {
        None
    };
    ears.0.oracle(|oracle| {
        oracle.tell(&format!(
            "saved: {} final {} {:?}",
            on.player, on.is_final, on.result
        ));
        let name = match (on.is_final, on.result.is_ok()) {
            (true, true) => "final",
            (true, false) => "final, failed",
            (false, true) => "in between",
            (false, false) => "in between, failed",
        };
        oracle.tally.count("saves", name);
        if let (Ok(()), Some((_, left_with))) = (&on.result, left_with)
            && !oracle.journal(on.player).starts_with(&left_with)
        {
            let stored = oracle.journal(on.player).to_vec();
            oracle.judge(Err(format!(
                "I6: {} left with {left_with:?}, which was said to be saved, and stored is {stored:?}",
                on.player
            )));
        }
    });
}

fn hear_purchase(on: On<PurchaseProcessed>, ears: Res<Ears>) {
    let row = look(ears.0.rows().receipt(on.purchase.clone()));
    let row = row.expect("the rows can be read");
    ears.0.oracle(|oracle| {
        oracle.tell(&format!("purchase: {} {}", on.purchase, on.decision));
        oracle.tally.count("purchases processed", name_of(&on.decision));
        let check = is_true(&on.decision, row.as_ref());
        oracle.judge(check.map_err(|problem| {
            format!(
                "I6: `{}` was answered with \"{}\", but {problem}",
                on.purchase, on.decision
            )
        }));
    });
}

fn hear_trade(on: On<TradeSettled>, ears: Res<Ears>) {
    ears.0.oracle(|oracle| {
        oracle.tell(&format!(
            "trade: {} with {} {:?}",
            on.player, on.partner, on.result
        ));
        oracle
            .tally
            .count("trades", if on.result.is_ok() { "settled" } else { "refused" });
    });
}
