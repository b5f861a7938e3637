//! The example server as an operator meets it: bad input, signals, logins, and bots that check their data.

#![cfg(all(unix, feature = "sqlite", feature = "client", not(feature = "window")))]

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    path::Path,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use bevy_player_data::{PlayerId, prelude::SqliteStore};
use bevy_renet::netcode::ConnectToken;
use serde_json::{Value, json};
use tempfile::TempDir;

#[path = "support/process.rs"]
mod process;

use process::{Player, Server, database, example, play, receipts, rows, run, wait_for};

/// Runs the server with arguments that it can't work with, and returns the one sentence that it says.
#[track_caller]
fn refused(folder: &Path, arguments: &[&str], code: i32) -> String {
    let output = run(&example("server"), arguments, folder);
    let sentence = String::from_utf8(output.stderr).expect("it speaks UTF-8");
    assert_eq!(
        output.status.code(),
        Some(code),
        "the exit code for {arguments:?}, which said: {sentence}"
    );
    assert_eq!(sentence.lines().count(), 1, "one sentence, and not: {sentence}");
    assert!(output.stdout.is_empty(), "nothing is said as if it ran");
    sentence
}

/// Arguments for a server that, should it start after all, doesn't run for long.
const BRIEFLY: [&str; 6] = ["--listen", "127.0.0.1:0", "--http", "127.0.0.1:0", "--for", "1"];

fn folder() -> TempDir {
    tempfile::tempdir().expect("a folder can be made")
}

#[test]
fn arguments_that_make_no_sense_get_one_sentence_and_exit_code_2() {
    let folder = folder();
    for (arguments, part) in [
        (&["--frobnicate"][..], "--frobnicate"),
        (&["--listen", "nowhere"], "nowhere"),
        (&["--listen", "0.0.0.0:5000"], "0.0.0.0:5000"),
        (&["--http", "localhost"], "localhost"),
        (&["--bots", "many"], "many"),
        (&["--bots", "-1"], "-1"),
        (&["--for", "0"], "0"),
        (&["--for", "nan"], "nan"),
        (&["--name", ""], "--name"),
        (&["--db"], "--db"),
        (&["--webhook-rate", "0"], "0"),
        (&["surplus"], "surplus"),
    ] {
        let sentence = refused(folder.path(), arguments, 2);
        assert!(
            sentence.contains(part),
            "{arguments:?} should be named: {sentence}"
        );
    }
    assert!(
        !folder.path().join("players.db").exists(),
        "no database is made for nothing"
    );
}

#[test]
fn a_port_in_use_gets_one_sentence_and_leaves_no_database_behind() {
    let folder = folder();
    let udp = UdpSocket::bind("127.0.0.1:0").expect("there is a free port");
    let udp = udp
        .local_addr()
        .map(|address| (udp, address.to_string()))
        .expect("it has an address");
    let sentence = refused(folder.path(), &["--listen", &udp.1, "--http", "127.0.0.1:0"], 1);
    assert!(
        sentence.contains(&udp.1) && sentence.contains("--listen"),
        "{sentence}"
    );

    let http = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
    let http = http
        .local_addr()
        .map(|address| (http, address.to_string()))
        .expect("it has an address");
    let sentence = refused(folder.path(), &["--listen", "127.0.0.1:0", "--http", &http.1], 1);
    assert!(
        sentence.contains(&http.1) && sentence.contains("--http"),
        "{sentence}"
    );
    assert!(
        !folder.path().join("players.db").exists(),
        "no database is made for nothing"
    );
}

#[test]
fn a_database_that_is_none_gets_one_sentence_and_stays_as_it_is() {
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    fs::create_dir(at("directory")).expect("a folder can be made");
    fs::write(
        at("notes.txt"),
        "no database at all, but quite some text in it. ".repeat(40),
    )
    .expect("it can be written");
    drop(SqliteStore::open(at("newer.db")).expect("a new database"));
    let newer = rusqlite::Connection::open(at("newer.db")).expect("a database");
    newer
        .pragma_update(None, "user_version", 999)
        .expect("it can be changed");
    drop(newer);
    drop(SqliteStore::open(at("truncated.db")).expect("a new database"));
    let whole = fs::read(at("truncated.db")).expect("it can be read");
    fs::write(at("truncated.db"), &whole[..whole.len() / 2]).expect("it can be written");

    for name in [
        "directory",
        "missing/players.db",
        "notes.txt",
        "newer.db",
        "truncated.db",
    ] {
        let before = fs::read(at(name)).ok();
        let arguments = ["--db", name, "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"];
        let sentence = refused(folder.path(), &arguments, 1);
        assert!(sentence.contains(name), "`{name}` should be named: {sentence}");
        assert_eq!(fs::read(at(name)).ok(), before, "`{name}` is as it was");
    }
}

#[test]
fn a_catalogue_with_a_mistake_gets_one_sentence_that_says_where_and_what_to_do() {
    let folder = folder();
    let good = r#"(id: "a", title: "A", price: "1 €", kind: Relic)"#;
    let long = "x".repeat(256);
    let with = |name: &str, value: &str| {
        let fields = [
            ("id", "\"a\""),
            ("title", "\"A\""),
            ("price", "\"1 €\""),
            ("kind", "Relic"),
        ];
        let fields =
            fields.map(|(field, good)| format!("{field}: {}", if field == name { value } else { good }));
        format!("[\n({})]", fields.join(", "))
    };
    for (text, line, parts) in [
        (String::new(), 1, &["coins_100"][..]),
        ("products".to_owned(), 1, &["coins_100"]),
        ("[]".to_owned(), 1, &["no product", "at least one"]),
        (format!("[\n{good},\n{good}]"), 3, &["`a`", "of its own"]),
        (format!("[\n{good}"), 2, &["coins_100"]),
        (format!("[{good}]\nmore"), 2, &["coins_100"]),
        (with("id", "\"\""), 2, &["an id"]),
        (with("id", &format!("\"{long}\"")), 2, &["256 bytes"]),
        (with("id", "\"a\\nb\""), 2, &["control character"]),
        (with("id", "7"), 2, &["coins_100"]),
        (with("title", "\"  \""), 2, &["title", "empty"]),
        (with("title", &format!("\"{long}\"")), 2, &["title", "80"]),
        (with("price", "\"\""), 2, &["price", "empty"]),
        (with("kind", "Coins(0)"), 2, &["0 coins", "at least one"]),
        (with("kind", "Coins(-1)"), 2, &["coins_100"]),
        (with("kind", "Title(\"\")"), 2, &["to be called", "empty"]),
        (with("kind", "Castle"), 2, &["Castle", "Coins"]),
        (with("kind", "Relic, colour: \"red\""), 2, &["colour", "price"]),
        (
            format!("[\n{}]", good.replace("price: \"1 €\", ", "")),
            2,
            &["price"],
        ),
    ] {
        fs::write(folder.path().join("shop.ron"), &text).expect("it can be written");
        let sentence = refused(
            folder.path(),
            &[&BRIEFLY[..], &["--products", "shop.ron"]].concat(),
            1,
        );
        for part in [&["`shop.ron`", &format!("line {line}, column ")], parts].concat() {
            assert!(
                sentence.contains(part),
                "`{part}` is missing for {text:?}: {sentence}"
            );
        }
    }
    fs::write(folder.path().join("bytes.ron"), [0xff, 0xfe]).expect("it can be written");
    fs::create_dir(folder.path().join("folder.ron")).expect("a folder can be made");
    for (name, part) in [
        ("bytes.ron", "text"),
        ("folder.ron", "can't be read"),
        ("missing.ron", "there is no catalogue"),
    ] {
        let sentence = refused(folder.path(), &[&BRIEFLY[..], &["--products", name]].concat(), 1);
        assert!(sentence.contains(name) && sentence.contains(part), "{sentence}");
    }
    assert!(
        !folder.path().join("players.db").exists(),
        "no database is made for nothing"
    );
}

#[test]
fn a_catalogue_of_one_s_own_is_what_is_for_sale() {
    let folder = folder();
    let shop = r#"[(id: "cow", title: "A cow", price: "2 beans", kind: Coins(5))]"#;
    fs::write(folder.path().join("shop.ron"), shop).expect("it can be written");
    let server = Server::start(folder.path(), &["--products", "shop.ron"]);
    assert_eq!(
        server.wait_for_line("for sale"),
        "for sale: A cow (`cow`, 2 beans)"
    );
}

#[test]
fn a_webhook_secret_that_is_none_gets_one_sentence_that_does_not_repeat_it() {
    let folder = folder();
    // Too short, without its prefix, not in base64, and none at all.
    for secret in [
        "whsec_c2hvcnQ=",
        "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
        "whsec_***",
        "whsec_",
        "",
    ] {
        let sentence = refused(
            folder.path(),
            &[&BRIEFLY[..], &["--webhook-secret", secret]].concat(),
            1,
        );
        assert!(
            sentence.contains("whsec_") && sentence.contains("24"),
            "{sentence}"
        );
        assert!(
            secret.len() < 8 || !sentence.contains(secret),
            "a secret is a secret: {sentence}"
        );
    }
    let mut server = std::process::Command::new(example("server"));
    let output = server
        .args(BRIEFLY)
        .env("WEBHOOK_SECRET", "whsec_c2hvcnQ=")
        .current_dir(folder.path())
        .output()
        .expect("the program starts");
    let sentence = String::from_utf8(output.stderr).expect("it speaks UTF-8");
    assert!(sentence.contains("`WEBHOOK_SECRET`"), "{sentence}");
    assert_eq!(
        (output.status.code(), sentence.lines().count()),
        (Some(1), 1),
        "{sentence}"
    );
}

#[test]
fn each_signal_saves_everybody_and_a_second_one_changes_nothing() {
    for signals in [&["TERM"][..], &["INT"], &["INT", "INT"]] {
        let folder = folder();
        let server = Server::start(folder.path(), &["--bots", "4"]);
        server.wait_for_line("bot-1 is new");
        server.wait_for_line("   4 sessions");
        signals.iter().for_each(|signal| server.signal(signal));
        let ended = server.wait();
        ended.assert_all_saved();
        let rows = rows(folder.path());
        assert_eq!(rows.len(), 4, "{signals:?}: everybody has a row");
        assert!(
            rows.iter().all(|row| !row.is_locked && row.coins.is_some()),
            "{signals:?}: {rows:?}"
        );
    }
}

#[test]
fn bots_that_come_and_go_get_back_what_they_left_with() {
    let folder = folder();
    // So many and so long that chance gives each of them something to do, also on a busy machine.
    let ended = Server::start(folder.path(), &["--bots", "16", "--for", "12"]).wait();
    ended.assert_all_saved();
    let said = ended.said.join("\n");
    assert!(!said.contains("MISMATCH"), "{said}");
    for words in ["compared their data on ", "bought ", "gave "] {
        assert!(
            number_after(&ended.said, words) > 0,
            "somebody has: {words}: {said}"
        );
    }
    assert!(
        number_after(&ended.said, "audit: ") >= 48,
        "sixteen bots began with three relics each: {said}"
    );
    assert!(said.contains("relics, each once; "), "{said}");
    let trades = ended.said.iter().find_map(|line| line.split_once(" refused; "));
    assert!(
        trades.is_some_and(|(_, trades)| !trades.starts_with("0 ")),
        "somebody has traded: {said}"
    );
    assert!(
        said.contains("; without player data p50 "),
        "ticks are shown with and without the plugin: {said}"
    );
    let rows = rows(folder.path());
    assert_eq!(rows.len(), 16);
    assert!(
        rows.iter().all(|row| !row.is_locked),
        "every lock is given back: {rows:?}"
    );
}

/// The number after these words in what was said.
#[track_caller]
fn number_after(said: &[String], words: &str) -> u32 {
    let found = said.iter().find_map(|line| line.split_once(words));
    let number = found.and_then(|(_, rest)| rest.split(' ').next());
    let number = number.unwrap_or_else(|| panic!("nothing is said after `{words}`: {said:?}"));
    number.parse().expect("a number")
}

#[test]
fn an_audit_finds_what_was_lost_doubled_or_granted_for_nothing() {
    let folder = folder();
    let missing = refused(folder.path(), &["--audit"], 1);
    assert!(missing.contains("`players.db`"), "{missing}");
    let server = Server::start(folder.path(), &["--bots", "3"]);
    wait_for("everybody is saved, and something is granted", || {
        let saved = rows(folder.path())
            .iter()
            .filter(|row| row.coins.is_some())
            .count();
        let granted = receipts(folder.path())
            .iter()
            .any(|receipt| receipt.state == "granted");
        (saved == 3 && granted).then_some(())
    });
    let audit = || {
        let output = run(
            &example("server"),
            &["--audit", "--db", "players.db"],
            folder.path(),
        );
        (
            output.status.code(),
            String::from_utf8(output.stdout).expect("UTF-8"),
        )
    };
    let (code, said) = audit();
    assert_eq!(
        code,
        Some(0),
        "the books of a running server are in order: {said}"
    );
    server.kill();

    let (code, said) = audit();
    assert_eq!(code, Some(0), "kill -9 changes nothing about that: {said}");
    assert!(
        said.starts_with("audit: ") && said.contains("each once; "),
        "{said}"
    );
    let books = database(folder.path());
    let changed = |sql: &str, finding: &str| {
        assert_eq!(books.execute(sql, []), Ok(1), "there is something to change");
        let (code, said) = audit();
        assert_eq!(code, Some(1), "{said}");
        assert!(said.contains(finding), "`{finding}` is missing: {said}");
    };
    changed(
        "DELETE FROM receipts WHERE rowid = (SELECT max(rowid) FROM receipts WHERE state = 'granted')",
        " and was granted ",
    );
    changed(
        "UPDATE players SET document = (SELECT document FROM players ORDER BY rowid LIMIT 1)
            WHERE rowid = (SELECT max(rowid) FROM players)",
        "is there 2 times",
    );
    let (_, said) = audit();
    assert!(said.contains("is lost"), "what was overwritten is missed: {said}");
}

#[test]
fn a_second_server_of_the_same_name_says_so_and_ends() {
    let folder = folder();
    let first = Server::start(folder.path(), &["--name", "arena-7"]);
    play(&first.url(), "ada", "quit\n");
    let second = Server::start(folder.path(), &["--name", "arena-7"]).wait();
    assert_eq!(second.code, Some(1), "it logged: {}", second.log);
    assert!(
        second.log.contains("arena-7"),
        "the name is named: {}",
        second.log
    );
    first.signal("TERM");
    first.wait().assert_all_saved();
}

#[test]
fn a_player_is_back_with_what_they_left() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let first =
        String::from_utf8(play(&server.url(), "ada", "color cyan\nmove left\nquit\n").stdout).expect("UTF-8");
    assert!(first.contains("welcome: your data is loaded"), "{first}");
    assert!(
        first.contains("\ncolor Cyan\n"),
        "the mirror shows the change: {first}"
    );
    server.signal("TERM");
    server.wait().assert_all_saved();

    let server = Server::start(folder.path(), &[]);
    let second = String::from_utf8(play(&server.url(), "ada", "quit\n").stdout).expect("UTF-8");
    assert!(second.contains("welcome back: your data is loaded"), "{second}");
    assert!(second.contains("\ncolor Cyan\n"), "{second}");
    let cell = |said: &str| {
        said.lines()
            .rev()
            .find(|line| line.starts_with("at "))
            .map(str::to_owned)
    };
    assert_eq!(cell(&second), cell(&first), "she stands where she stood");
    server.wait_for_line("ada is back with ");
}

#[test]
fn a_client_that_cannot_connect_says_so_in_one_sentence() {
    let free = TcpListener::bind("127.0.0.1:0")
        .and_then(|listener| listener.local_addr())
        .expect("a free port");
    let output = play(&format!("http://{free}"), "ada", "quit\n");
    let sentence = String::from_utf8(output.stderr).expect("it speaks UTF-8");
    assert_eq!(output.status.code(), Some(1), "{sentence}");
    assert_eq!(sentence.lines().count(), 1, "{sentence}");
    assert!(sentence.contains(&free.to_string()), "{sentence}");
}

/// Posts a body to a path of a server's, and returns the status and what came back.
fn post(url: &str, path: &str, body: &str) -> (u16, Value) {
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .build()
        .into();
    let request = agent
        .post(format!("{url}{path}"))
        .header("content-type", "application/json");
    let mut answer = request.send(body).expect("the server answers");
    (
        answer.status().as_u16(),
        answer.body_mut().read_json().expect("the answer is JSON"),
    )
}

#[test]
fn a_login_gives_a_token_for_the_player_of_that_name_and_refuses_what_is_none() {
    let folder = folder();
    let server = Server::start(folder.path(), &[]);
    let url = server.url();
    let log_in = || {
        let (status, answer) = post(&url, "/login", &json!({ "name": "ada" }).to_string());
        assert_eq!(status, 200, "{answer}");
        assert_eq!(
            answer["player_id"],
            PlayerId::from_name("ada").to_string(),
            "a name is always the same player"
        );
        let token = answer["connect_token"].as_str().expect("a token").to_owned();
        let bytes = BASE64_STANDARD.decode(&token).expect("in base64");
        (
            token,
            ConnectToken::read(&mut bytes.as_slice()).expect("a netcode token"),
        )
    };
    let ((first_text, first), (second_text, second)) = (log_in(), log_in());
    assert_ne!(
        first.client_id, second.client_id,
        "each login is a connection of its own"
    );

    let too_long = "a".repeat(25);
    for name in ["", "a b", "ada\n", "ädä", "../ada", &too_long] {
        let (status, answer) = post(&url, "/login", &json!({ "name": name }).to_string());
        assert_eq!(status, 422, "{name:?} is refused: {answer}");
        assert!(
            answer["error"]
                .as_str()
                .is_some_and(|error| error.starts_with("a name ")),
            "{answer}"
        );
    }
    for body in ["", "{", "[]", "{}", r#"{"name":7}"#] {
        let (status, answer) = post(&url, "/login", body);
        assert!(
            (400..500).contains(&status) && answer["error"].is_string(),
            "{body:?}: {status} {answer}"
        );
    }
    let (status, _) = post(&url, "/login", &json!({ "name": "a".repeat(10_000) }).to_string());
    assert_eq!(status, 413, "a body that is too large is not read");

    server.signal("TERM");
    let ended = server.wait();
    ended.assert_all_saved();
    let told = format!("{}\n{}", ended.said.join("\n"), ended.log);
    assert!(
        !told.contains(&first_text) && !told.contains(&second_text),
        "a token is a secret"
    );
}

#[test]
fn a_client_hops_from_one_server_to_the_next_without_leaving() {
    let folder = folder();
    let first = Server::start(folder.path(), &["--name", "arena-1"]);
    let second = Server::start(folder.path(), &["--name", "arena-2"]);
    let mut ada = Player::join(&format!("{},{}", first.url(), second.url()), "ada");
    first.wait_for_line("ada is new");
    ada.wait_for_line("your data is loaded");
    ada.say("hop");
    second.wait_for_line("ada is back");
    ada.wait_for_line("welcome back");
    for server in [first, second] {
        server.signal("TERM");
        server.wait().assert_all_saved();
    }
}

#[test]
fn a_client_goes_where_a_server_sends_its_player() {
    let folder = folder();
    let first = Server::start(folder.path(), &["--name", "arena-1", "--chaos"]);
    let second = Server::start(folder.path(), &["--name", "arena-2"]);
    let ada = Player::join(&first.url(), "ada");
    ada.wait_for_line("your data is loaded");
    let send = json!({ "send": { "player": "ada", "to": second.url() } });
    let (status, answer) = post(&first.url(), "/chaos", &send.to_string());
    assert_eq!(status, 200, "{answer}");
    first.wait_for_line("has gone on to");
    second.wait_for_line("ada is back");
    ada.wait_for_line("welcome back");
    for server in [first, second] {
        server.signal("TERM");
        server.wait().assert_all_saved();
    }
}

#[test]
fn inspect_shows_a_running_server_s_players_and_changes_nothing() {
    let folder = folder();
    let inspect = |arguments: &[&str]| run(&example("inspect"), arguments, folder.path());
    let missing = inspect(&["players.db"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(
        !folder.path().join("players.db").exists(),
        "looking makes no database"
    );

    let server = Server::start(folder.path(), &["--bots", "2", "--name", "arena-9"]);
    server.wait_for_line("bot-1 is new");
    let overview = wait_for("a player is shown in a session", || {
        let overview: Value = serde_json::from_slice(&inspect(&["players.db"]).stdout).ok()?;
        let locked = overview["players"]
            .as_array()?
            .iter()
            .any(|player| player["locked_by"]["name"] == "arena-9");
        locked.then_some(overview)
    });
    assert_eq!(overview["servers"][0]["name"], "arena-9", "{overview}");
    server.signal("TERM");
    server.wait().assert_all_saved();

    let before = (
        fs::read(folder.path().join("players.db")).expect("it is there"),
        files(folder.path()),
    );
    let shown: Value = serde_json::from_slice(&inspect(&["players.db", "bot-1"]).stdout).expect("JSON");
    assert_eq!(shown["player_id"], PlayerId::from_name("bot-1").to_string());
    assert_eq!(shown["locked_by"], Value::Null);
    assert!(
        shown["document"]["coins"]["value"]
            .as_u64()
            .is_some_and(|coins| coins >= 10),
        "{shown}"
    );
    assert!(
        shown["document"]["cheat_score"]["value"].is_number(),
        "private data is stored: {shown}"
    );
    assert_eq!(inspect(&["players.db", "nobody"]).status.code(), Some(1));
    let after = (
        fs::read(folder.path().join("players.db")).expect("it is there"),
        files(folder.path()),
    );
    assert_eq!(
        before, after,
        "looking changes nothing, and leaves nothing behind"
    );
}

fn files(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("it is a folder");
    let mut names: Vec<String> = entries
        .map(|entry| {
            entry
                .expect("an entry")
                .file_name()
                .to_string_lossy()
                .into_owned()
        })
        .collect();
    names.sort();
    names
}
