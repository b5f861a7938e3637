//! The client in a window: the field, what the player has, a shop, and a dialog for each thing that a player must be
//! told.
//!
//! | file | concept |
//! |---|---|
//! | `link.rs` | logging in, the connection, coming back |
//! | `field.rs`, `map.rs`, `controls.rs` | the game: who and what is on the field, and where the player wants to go |
//! | `hud.rs`, `saves.rs` | what the player has, and whether it is saved |
//! | `shop.rs`, `purchase.rs`, `storefront.rs` | what is for sale, and what became of it |
//! | `telling.rs`, `dialogs.rs` | what the player has to be told, in words and on the screen |
//! | `overlay.rs`, `chaos.rs` | figures on F3, and keys for developers |
//! | `theme.rs` | what it all looks like |
//! | `background.rs` | work that would hold a frame up |

use bevy::{
    input_focus::tab_navigation::TabNavigationPlugin, log::LogPlugin, prelude::*, window::WindowResolution,
};
use bevy_player_data::prelude::*;

pub mod background;
pub mod chaos;
pub mod controls;
pub mod dialogs;
pub mod field;
pub mod hud;
pub mod link;
pub mod map;
pub mod overlay;
pub mod purchase;
pub mod saves;
pub mod shop;
pub mod storefront;
pub mod telling;
pub mod theme;

use crate::{game::data::shared_data, wishes};
use link::{Account, Reconnect};

/// Where pictures and fonts are, wherever the client is started.
const ASSETS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/assets");

/// Plays until the window is closed.
pub fn play(account: Account) -> AppExit {
    App::new()
        .add_plugins((
            DefaultPlugins
                .set(window(&account))
                .set(ImagePlugin::default_nearest())
                .set(AssetPlugin {
                    file_path: ASSETS.to_owned(),
                    ..default()
                })
                .set(LogPlugin {
                    level: bevy::log::Level::WARN,
                    ..default()
                }),
            TabNavigationPlugin,
            PlayerDataPlugin::client(),
            shared_data,
        ))
        .insert_resource(ClearColor(theme::INK))
        .insert_resource(account)
        .add_plugins((
            theme::plugin,
            link::plugin,
            field::plugin,
            controls::plugin,
            wishes::plugin,
        ))
        .add_plugins((
            hud::plugin,
            saves::plugin,
            shop::plugin,
            dialogs::plugin,
            overlay::plugin,
            chaos::plugin,
        ))
        .add_systems(Startup, |mut commands: Commands| commands.trigger(Reconnect))
        .run()
}

fn window(account: &Account) -> WindowPlugin {
    WindowPlugin {
        primary_window: Some(Window {
            title: format!("Coin Rush – {}", account.name),
            resolution: WindowResolution::new(1280, 800),
            resize_constraints: bevy::window::WindowResizeConstraints {
                min_width: theme::SMALLEST.x,
                min_height: theme::SMALLEST.y,
                ..default()
            },
            ..default()
        }),
        // The player retires from the field first.
        close_when_requested: false,
        ..default()
    }
}
