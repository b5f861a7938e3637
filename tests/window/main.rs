//! The example client in a window: what is on the screen, and what its dialogs say.
//!
//! `dialogs` and `shop` look at the UI's tree, with a real server in the same process and neither window nor renderer.
//! `screen` starts a server and a client as a player would, on an X server of its own, presses keys, and looks at pixels.

#![cfg(unix)]

mod dialogs;
mod screen;
mod shop;
mod support;

#[path = "../../examples/game/game.rs"]
#[allow(dead_code, reason = "the client uses all of it")]
mod game;
#[path = "../../examples/game/offers.rs"]
mod offers;
#[path = "../support/process.rs"]
mod process;
#[path = "../../examples/client/window/window.rs"]
#[allow(dead_code, reason = "the client uses all of it")]
mod window;
#[path = "../../examples/client/wishes.rs"]
mod wishes;
