//! The game as it is on the screen: a real server, a real client, keys, and pixels.
//!
//! It needs `Xvfb`, `xdotool` and `ImageMagick`'s `import`, and a Vulkan driver (Mesa's software renderer will do).
//! Without the first three the test is skipped.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

use bevy::color::ColorToPacked;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::{
    process::{Server, example},
    window::theme,
};

/// How long anything may take. Far longer than it does, so that a busy machine fails no test.
const PATIENCE: Duration = Duration::from_secs(120);
const WIDTH: usize = 800;
const HEIGHT: usize = 600;

/// A part of the screen, in pixels: from the left and the top, up to the right and the bottom.
type Region = [usize; 4];

/// The level's progress bar.
const LEVEL_BAR: Region = [553, 140, 784, 175];
/// The dot of the save indicator, wherever its words make it stand.
const SAVE_DOT: Region = [553, 450, 580, 500];
/// The buttons of the shop, one below the other.
const BUY_BUTTONS: Region = [415, 195, 500, 455];
/// The second of them, with the ring around it, and what the shop says about that product.
const SECOND_BUTTON: Region = [410, 262, 500, 322];
const SECOND_STATUS: Region = [45, 288, 250, 315];
/// Where the upper edge of a dialog in the middle is, whatever its height.
const DIALOG_EDGE: Region = [200, 150, 600, 260];
/// The dialogs that leave the field alone, at its upper or lower end.
const ASIDE_ABOVE: Region = [60, 10, 480, 30];
const ASIDE_BELOW: Region = [60, 380, 480, 440];
/// What neither a dialog nor the shop covers. Only one of them can be beyond the edge of the field, where it is dark.
const FIELD_LEFT: Region = [0, 220, 12, 380];
const FIELD_RIGHT: Region = [516, 40, 532, 140];

/// An X server without a screen, which ends with the test.
struct Display {
    server: Child,
    name: String,
}

impl Display {
    /// Starts one on a number that is free. Says so if something is missing on this machine, without which nothing can be
    /// seen.
    fn start() -> Option<Self> {
        if let Some(program) = missing() {
            eprintln!("skipped: there is no `{program}`, so nothing can be seen");
            return None;
        }
        let mut server = Command::new("Xvfb")
            .args(["-displayfd", "1", "-nolisten", "tcp", "-screen", "0"])
            .arg(format!("{WIDTH}x{HEIGHT}x24"))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("`Xvfb` starts");
        let mut number = String::new();
        BufReader::new(server.stdout.as_mut().expect("it is piped"))
            .read_line(&mut number)
            .expect("it says which number it has");
        Some(Self {
            server,
            name: format!(":{}", number.trim()),
        })
    }

    /// Runs a program on it, and returns what that said.
    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        Command::new(program)
            .args(arguments)
            .env("DISPLAY", &self.name)
            .output()
            .expect("it was there a moment ago")
    }

    fn press(&self, key: &str) {
        self.touch(&["key", "--delay", "80", key]);
    }

    fn hold(&self, key: &str, time: Duration) {
        self.touch(&["keydown", key]);
        thread::sleep(time);
        self.touch(&["keyup", key]);
    }

    fn touch(&self, keys: &[&str]) {
        let output = self.run("xdotool", keys);
        assert!(output.status.success(), "{keys:?}: {output:?}");
    }

    /// Walks in a spiral, on which there is always something to pick up, until the picture is as wanted. Never there and
    /// back: whoever stands where they stood has nothing to be saved.
    #[track_caller]
    fn walk_until(&self, what: &str, is_so: impl Fn(&Picture) -> bool) {
        let began = Instant::now();
        for (n, key) in (2..).zip(["Right", "Down", "Left", "Up"].into_iter().cycle()) {
            self.hold(key, Duration::from_millis(n / 2 * 400));
            if is_so(&self.look()) {
                return;
            }
            if began.elapsed() > PATIENCE / 2 {
                // Whoever has gone far has changed something; it may yet be seen.
                self.until(what, is_so);
                return;
            }
        }
    }

    fn look(&self) -> Picture {
        let pixels = self
            .run("import", &["-window", "root", "-depth", "8", "rgb:-"])
            .stdout;
        assert_eq!(pixels.len(), WIDTH * HEIGHT * 3, "three bytes a pixel");
        Picture(pixels)
    }

    /// Looks until the picture is as wanted. What it was last is kept for whoever wants to know why it never was.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&Picture) -> bool) -> Picture {
        let began = Instant::now();
        loop {
            let picture = self.look();
            if is_so(&picture) {
                return picture;
            }
            if began.elapsed() > PATIENCE {
                let path = std::env::temp_dir().join("bevy_player_data-window-test.png");
                self.run("import", &["-window", "root", &path.to_string_lossy()]);
                panic!("waited in vain until {what}; see {}", path.display());
            }
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

/// What is on the screen.
struct Picture(Vec<u8>);

impl Picture {
    /// How many pixels of a region have this very color.
    fn count(&self, [left, top, right, bottom]: Region, color: bevy::prelude::Color) -> usize {
        let [color @ .., _] = color.to_srgba().to_u8_array();
        let rows = self.0.chunks(WIDTH * 3).take(bottom).skip(top);
        rows.map(|row| {
            let pixels = row.chunks(3).take(right).skip(left);
            pixels.filter(|pixel| **pixel == color).count()
        })
        .sum()
    }

    /// How bright a region is on average, from 0 to 255.
    fn brightness(&self, [left, top, right, bottom]: Region) -> usize {
        let rows = self.0.chunks(WIDTH * 3).take(bottom).skip(top);
        let sum: usize = rows
            .map(|row| {
                row[left * 3..right * 3]
                    .iter()
                    .map(|&part| usize::from(part))
                    .sum::<usize>()
            })
            .sum();
        sum / ((right - left) * (bottom - top) * 3)
    }

    fn is_dimmed(&self) -> bool {
        self.brightness(FIELD_LEFT).max(self.brightness(FIELD_RIGHT)) < 50
    }

    /// Whether there is a dialog of this color in the middle, and nothing else can be done.
    fn has_dialog(&self, tone: bevy::prelude::Color) -> bool {
        self.is_dimmed() && self.count(DIALOG_EDGE, tone) > 3 * 400
    }

    fn has_aside(&self, tone: bevy::prelude::Color) -> bool {
        !self.is_dimmed() && self.count(ASIDE_ABOVE, tone).max(self.count(ASIDE_BELOW, tone)) > 3 * 400
    }

    fn is_playing(&self) -> bool {
        !self.is_dimmed() && self.count(SAVE_DOT, theme::GOOD) > 20
    }
}

/// The client, which ends with the test.
struct Client(Child);

impl Client {
    /// Starts it, and waits until its window is as large as the screen.
    fn start(display: &Display, url: &str) -> Self {
        let child = Command::new(example("client"))
            .args(["--name", "ada", "--server", url])
            .env("DISPLAY", &display.name)
            .env_remove("WAYLAND_DISPLAY")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the client starts");
        let client = Self(child);
        let began = Instant::now();
        let window = loop {
            let found = display.run("xdotool", &["search", "--onlyvisible", "--name", "Coin Rush"]);
            if let Some(window) = String::from_utf8_lossy(&found.stdout).lines().next() {
                break window.to_owned();
            }
            assert!(began.elapsed() < PATIENCE, "the window opens");
            thread::sleep(Duration::from_millis(100));
        };
        let (width, height) = (WIDTH.to_string(), HEIGHT.to_string());
        display.run("xdotool", &["windowmove", &window, "0", "0"]);
        display.run("xdotool", &["windowsize", &window, &width, &height]);
        display.run("xdotool", &["windowfocus", &window]);
        client
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What is missing on this machine, if anything is.
fn missing() -> Option<&'static str> {
    ["Xvfb", "xdotool", "import"].into_iter().find(|program| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        !std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    })
}

fn chaos(url: &str, wish: &Value) {
    let answer = ureq::post(format!("{url}/chaos")).send_json(wish);
    assert!(
        answer.is_ok_and(|answer| answer.status() == 200),
        "{wish} is granted"
    );
}

#[test]
fn the_hud_the_shop_and_the_dialogs_are_on_the_screen() {
    let Some(display) = Display::start() else { return };
    let folder = TempDir::new().expect("a folder");
    let server = Server::start(folder.path(), &["--chaos"]);
    let url = server.url();
    let _client = Client::start(&display, &url);

    // The HUD: nothing is gained yet, then something is, and it is saved.
    let begun = display.until("the game has begun", Picture::is_playing);
    assert_eq!(begun.count(LEVEL_BAR, theme::GOLD), 0, "nothing is gained yet");
    assert!(begun.count(LEVEL_BAR, theme::RAISED) > 1000, "the bar is there");
    display.walk_until("something is gained", |picture| {
        picture.count(LEVEL_BAR, theme::GOLD) > 100
    });
    display.until("it is saved", Picture::is_playing);

    // The shop: four products, a ring around what Enter buys, and a purchase that is granted.
    display.press("b");
    display.until("the shop is open", |picture| {
        picture.is_dimmed() && picture.count(BUY_BUTTONS, theme::GOLD) > 4 * 1000
    });
    display.press("Down");
    display.until("the keyboard's focus is shown", |picture| {
        picture.count(SECOND_BUTTON, theme::FOCUS) > 100
    });
    display.press("Return");
    display.until("it is bought", |picture| {
        picture.count(SECOND_STATUS, theme::GOOD) > 20
    });
    display.press("Escape");
    display.until("the shop is closed", Picture::is_playing);

    // A save that fails; the shop is closed as well then.
    chaos(&url, &json!({"store": "down"}));
    display.walk_until("the player is told that they are not being saved", |picture| {
        picture.has_aside(theme::CAREFUL) && picture.count(SAVE_DOT, theme::CAREFUL) > 20
    });
    display.press("b");
    display.until("nothing can be bought", |picture| {
        picture.is_dimmed() && picture.count(BUY_BUTTONS, theme::GOLD) == 0
    });
    display.press("Escape");
    chaos(&url, &json!({"store": "up"}));
    display.walk_until("they are saved again", |picture| {
        picture.is_playing() && !picture.has_aside(theme::CAREFUL)
    });

    // Taken over by another server, and back once that has let go.
    chaos(&url, &json!({"take": "ada"}));
    // The server notices with the next save of something.
    display.walk_until("the player is told that they were taken over", |picture| {
        picture.has_dialog(theme::BAD)
    });
    display.press("Return");
    display.until("the player waits for the other server", |picture| {
        picture.has_dialog(theme::CAREFUL)
    });
    chaos(&url, &json!({"release": "ada"}));
    display.until("they play on", Picture::is_playing);

    // Thrown out, and back by itself.
    chaos(&url, &json!({"kick": "ada"}));
    display.until("the player is told that the connection is lost", |picture| {
        picture.has_dialog(theme::CAREFUL)
    });
    display.until("the client has come back", Picture::is_playing);
    drop(server);
}

#[test]
fn h_hops_to_the_next_server() {
    let Some(display) = Display::start() else { return };
    let folder = TempDir::new().expect("a folder");
    let first = Server::start(folder.path(), &["--name", "arena-1"]);
    let second = Server::start(folder.path(), &["--name", "arena-2"]);
    let _client = Client::start(&display, &format!("{},{}", first.url(), second.url()));
    first.wait_for_line("ada is new");
    display.until("no dialog has the keyboard", |picture| !picture.is_dimmed());
    display.press("h");
    second.wait_for_line("ada is back");
    for server in [first, second] {
        server.signal("TERM");
        server.wait().assert_all_saved();
    }
}
