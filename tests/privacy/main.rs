//! What a client is sent, looked through byte by byte: nobody is sent anything of another's, nor anything private.
//!
//! In each run, several people play on a real server: they come and go, change, trade, buy, fail to load and to save,
//! on a store that fails, while random secrets are planted in everything that the server knows. Each packet to each
//! client is recorded as renet hands it over, before it would be encrypted, on all channels. In the end every secret is
//! looked for in everything that was sent, in every form that it may have taken: in each packet, in the messages that
//! renet puts together from slices, and in the streams that the player data protocol puts together from those. Whoever
//! may read a secret is known; anybody else who was sent it is a violation. What everybody was shown last has to be
//! found as well, or the recorder is blind.
//!
//! | variable | default | |
//! |---|---|---|
//! | `PRIVACY_RUNS` | 8 | how many runs |
//! | `PRIVACY_FROM` | 0 | the seed of the first |
//! | `PRIVACY_SEED` | | this one alone |
//!
//! `secret` knows what was planted and finds it, `recorder` listens, `game`, `device` and `store` are what is played,
//! on what and with what, `past` what was stored before, `event` what happens, and `run` brings them together on a
//! `server`. `sabotage` is what must be found out.
#![cfg(all(feature = "client", feature = "server"))]

mod device;
#[path = "../support/driven.rs"]
mod driven;
#[path = "../support/env.rs"]
mod env;
mod event;
mod game;
mod past;
mod recorder;
mod run;
mod sabotage;
mod secret;
mod server;
mod store;
#[path = "../support/server.rs"]
mod support;
#[allow(dead_code, reason = "each test file uses a part of it")]
#[path = "../support/tally.rs"]
mod tally;

use std::{
    panic,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread,
    time::Instant,
};

use env::number;
use recorder::Level;
use run::{Leak, Outcome, run};
use sabotage::Sabotage;
use tally::Tally;

/// With so many runs, everything that is expected has happened.
const MANY: u64 = 40;

#[test]
fn nobody_is_sent_anything_private_or_of_somebody_else() {
    if let Some(seed) = number("PRIVACY_SEED") {
        let outcome = run(seed, None);
        println!("{}", outcome.tally);
        return verdict(seed, &outcome).unwrap_or_else(|problem| panic!("{problem}"));
    }
    let began = Instant::now();
    let from = number("PRIVACY_FROM").unwrap_or(0);
    let runs = number("PRIVACY_RUNS").unwrap_or(8);
    let next = AtomicU64::new(from);
    let failed = AtomicBool::new(false);
    let total = Mutex::new((expected(), Vec::new()));
    let work = || {
        while !failed.load(Ordering::SeqCst) {
            let seed = next.fetch_add(1, Ordering::SeqCst);
            if seed >= from + runs {
                break;
            }
            let outcome = panic::catch_unwind(|| run(seed, None)).unwrap_or_else(|panic| {
                eprintln!("{}", how_to_replay(seed));
                panic::resume_unwind(panic)
            });
            let mut total = total.lock().unwrap_or_else(PoisonError::into_inner);
            if let Err(problem) = verdict(seed, &outcome) {
                failed.store(true, Ordering::SeqCst);
                total.1.push(problem);
            }
            total.0.merge(outcome.tally);
            total.0.count("runs", "with every packet looked through");
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let (tally, problems) = total.into_inner().unwrap_or_else(PoisonError::into_inner);
    println!("{tally}in {:.1?}", began.elapsed());
    assert!(problems.is_empty(), "{}", problems.join("\n"));
    if runs >= MANY {
        assert_eq!(tally.zeroes(), Vec::<String>::new(), "these never happened");
    }
}

#[test]
fn a_private_type_that_is_registered_as_public_is_found_out() {
    let leak = is_found_out(Sabotage::PrivateAsPublic);
    assert_eq!((leak.place, leak.owner), ("private: optional", None), "{leak:?}");
}

#[test]
fn a_private_value_that_is_cut_in_two_by_the_protocol_is_found_out() {
    let leak = is_found_out(Sabotage::PrivateAcrossParts);
    assert_eq!(leak.place, "private: optional", "{leak:?}");
    assert_eq!(
        leak.level,
        Level::Stream,
        "no packet and no message has all of it"
    );
}

#[test]
fn a_secret_that_is_cut_in_two_by_renet_is_found_out() {
    let leak = is_found_out(Sabotage::AcrossSlices);
    assert_eq!(leak.place, "in a message of the game's", "{leak:?}");
    assert_eq!(leak.level, Level::Message, "no packet has all of it");
}

#[test]
fn packets_for_somebody_else_are_found_out() {
    let leak = is_found_out(Sabotage::SwappedPackets);
    assert!(leak.owner.is_some_and(|owner| owner != leak.reader), "{leak:?}");
    assert!(leak.place.starts_with("public: "), "{leak:?}");
}

#[test]
fn a_player_who_is_shown_on_somebody_elses_client_is_found_out() {
    let leak = is_found_out(Sabotage::SwappedClients);
    assert!(leak.owner.is_some_and(|owner| owner != leak.reader), "{leak:?}");
    assert!(leak.place.starts_with("public: "), "{leak:?}");
}

#[test]
fn an_error_whose_own_text_is_sent_to_the_player_is_found_out() {
    let leak = is_found_out(Sabotage::ToldErrors);
    let places = ["past: ", "the text of a store's error", "private types' names"];
    assert!(
        places.iter().any(|place| leak.place.starts_with(place)),
        "{leak:?}"
    );
}

/// Something that is wrong must be found out, in one of a few runs.
#[track_caller]
fn is_found_out(sabotage: Sabotage) -> Leak {
    for seed in 0..MANY {
        if let Some(leak) = run(seed, Some(sabotage)).leaks.into_iter().next() {
            println!("{sabotage:?} is found out with seed {seed}: {leak:?}");
            return leak;
        }
    }
    panic!("{sabotage:?} is not found out in {MANY} runs");
}

fn verdict(seed: u64, outcome: &Outcome) -> Result<(), String> {
    let leaks = outcome.leaks.iter().map(|leak| {
        let Leak {
            place,
            form,
            level,
            owner,
            reader,
        } = leak;
        let owner = owner.map_or_else(|| "nobody".to_owned(), |owner| owner.to_string());
        format!("I10: {reader} was sent a secret for {owner} ({place}) as {form}, whole in a {level:?}")
    });
    let problems: Vec<String> = leaks.chain(outcome.blind.iter().cloned()).collect();
    if problems.is_empty() {
        return Ok(());
    }
    Err(format!(
        "seed {seed}:\n{}\n{}",
        problems.join("\n"),
        how_to_replay(seed)
    ))
}

fn how_to_replay(seed: u64) -> String {
    format!("to run it alone: PRIVACY_SEED={seed} cargo test --test privacy nobody_is -- --nocapture")
}

/// What has to happen in many runs.
fn expected() -> Tally {
    let mut tally = Tally::default();
    for event in event::EVENTS {
        tally.add("events", event.name, 0);
    }
    for (group, names) in EXPECTED {
        for name in *names {
            tally.add(group, *name, 0);
        }
    }
    tally
}

const EXPECTED: &[(&str, &[&str])] = &[
    (
        "seen by whom it is for",
        &[
            "public: a product's id",
            "public: a purchase's id",
            "public: a string",
            "public: after a trade",
            "public: bytes",
            "public: in a large value",
            "public: in a map's key",
            "public: migrated",
            "public: numbers",
            "public: optional",
            "public: the last thing shown",
            "public: the name of the server that holds the lock",
            "public: the player's id",
            "public: what a handler says of a purchase",
        ],
    ),
    (
        "for nobody",
        &[
            "a receipt's payload and its handler's error",
            "past: a value of the wrong type",
            "past: an unknown field",
            "past: an unknown key",
            "past: bytes that can't be read",
            "past: dropped by a migration",
            "past: newer than the code",
            "past: refused by a migration",
            "private types' names",
            "private: bytes and numbers",
            "private: can't be encoded",
            "private: in a map's key",
            "private: migrated",
            "private: nested",
            "private: optional",
            "private: too large",
            "private: traded",
            "public: in a skipped field",
            "public: undone by a trade that failed",
            "the server's name",
            "the text of a store's error",
            "the text of a trade's error",
        ],
    ),
    (
        "the server was told",
        &[
            "load failed: corrupt",
            "load failed: locked",
            "load failed: newer",
            "load failed: unavailable",
            "loaded",
            "loaded: new",
            "not saved: can't be encoded",
            "not saved: lock lost",
            "not saved: rejected",
            "not saved: too large",
            "not saved: unavailable",
            "purchase: granted",
            "purchase: not yet",
            "purchase: refunded",
            "purchase: refused",
            "saved",
            "saved: at the end",
            "session ended: Left",
            "session ended: LockLost",
            "session ended: Replaced",
            "session ended: ServerExit",
            "trade: done",
            "trade: failed",
        ],
    ),
    (
        "errors of the store",
        &["to a load", "to a look at receipts", "to a save"],
    ),
    ("changes", &["in a session", "on defaults"]),
    (
        "sent",
        &["bytes", "messages", "packets", "packets to strangers", "streams"],
    ),
];
