//! What is broken on purpose, so that it is known to be found out.

use bevy::prelude::*;
use bevy_player_data::prelude::*;
use bevy_renet::{RenetServer, renet::DefaultChannel};

use crate::{game, run::Run};

/// When what is sabotaged once is sabotaged, in ticks.
pub const SABOTAGED_AT: u32 = 60;

/// What is broken on purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// A private type is registered without its `private()`.
    PrivateAsPublic,
    /// The same, with its secret where the protocol cuts a large message in two.
    PrivateAcrossParts,
    /// Two clients are sent each other's packets.
    SwappedPackets,
    /// Two players are shown on each other's clients.
    SwappedClients,
    /// The game sends an error's own text to the player.
    ToldErrors,
    /// The game sends a secret, where renet cuts a message in two.
    AcrossSlices,
}

impl Run {
    pub fn sabotage_once(&mut self) {
        let playing: Vec<_> = (0..self.humans.len())
            .filter_map(|person| Some((person, self.entity_of(person)?.0)))
            .collect();
        match (self.sabotage, &playing[..]) {
            (Some(Sabotage::SwappedClients), &[(_, a), (_, b), ..]) => {
                let world = self.server.world_mut();
                let clients = [a, b].map(|entity| world.get::<PlayerClient>(entity).copied());
                if let [Some(of_a), Some(of_b)] = clients {
                    world.entity_mut(a).insert(of_b);
                    world.entity_mut(b).insert(of_a);
                }
            }
            (Some(Sabotage::AcrossSlices), &[(_, player), ..]) => {
                let secret = self.plant("in a message of the game's", None).text();
                let world = self.server.world_mut();
                if let Some(&PlayerClient(client)) = world.get::<PlayerClient>(player) {
                    // renet cuts after 1200 bytes.
                    let message = across(1200, 3000, &secret);
                    let mut renet = world.resource_mut::<RenetServer>();
                    renet.send_message(client, DefaultChannel::ReliableOrdered, message);
                }
            }
            (Some(Sabotage::PrivateAcrossParts), &[(_, player), ..]) => {
                let secret = self.plant("private: optional", None).text();
                // The protocol cuts after 16 KiB, of which ten bytes come before the text.
                let text = across(16 * 1024 - 10, 40_000, &secret);
                self.server
                    .world_mut()
                    .entity_mut(player)
                    .insert(game::Alias(text));
            }
            _ => {}
        }
    }

    /// What was cut in two where it was to be must not be sent in another message as well.
    pub fn end_sabotage(&mut self) {
        if self.sabotage == Some(Sabotage::PrivateAcrossParts) {
            for person in 0..self.humans.len() {
                if let Some((entity, _)) = self.entity_of(person) {
                    self.server.world_mut().entity_mut(entity).remove::<game::Alias>();
                }
            }
        }
    }
}

/// A text of this length with a secret in it, in the middle of which is this place.
fn across(place: usize, length: usize, secret: &str) -> String {
    let before = place - secret.len() / 2;
    let after = length - before - secret.len();
    format!("{}{secret}{}", ".".repeat(before), ".".repeat(after))
}
