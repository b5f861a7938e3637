//! The example's `POST /webhooks/purchases`, as a payment provider meets it: over real HTTP, with real signatures, and
//! with everything that isn't one.

#![cfg(all(unix, feature = "sqlite", feature = "client"))]

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::{SystemTime, UNIX_EPOCH},
};

use bevy_player_data::PlayerId;
use rusqlite::TransactionBehavior;
use serde_json::{Value, json};
use standardwebhooks::Webhook;
use tempfile::TempDir;

#[path = "support/process.rs"]
mod process;

use process::{Player, ReceiptRow, Server, database, example, play, receipts, rows, run, wait_for};

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr";
const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// A server, and a payment provider who knows its secret.
struct Desk {
    folder: TempDir,
    server: Server,
    agent: ureq::Agent,
}

/// What came back.
#[derive(Debug)]
struct Answer {
    status: u16,
    body: Value,
    retry_after: Option<String>,
}

impl Desk {
    fn open(arguments: &[&str]) -> Self {
        let folder = tempfile::tempdir().expect("a folder can be made");
        let arguments = [&["--webhook-secret", SECRET], arguments].concat();
        let server = Server::start(folder.path(), &arguments);
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .proxy(None);
        Self {
            folder,
            server,
            agent: config.build().into(),
        }
    }

    fn post(&self, headers: &[(&str, String)], body: &[u8]) -> Answer {
        let mut request = self
            .agent
            .post(format!("{}/webhooks/purchases", self.server.url()));
        for (name, value) in headers {
            request = request.header(*name, value);
        }
        let mut answer = request.send(body).expect("the server answers");
        let retry_after = answer.headers().get("retry-after");
        let retry_after = retry_after.map(|pause| pause.to_str().expect("a number").to_owned());
        Answer {
            status: answer.status().as_u16(),
            body: answer.body_mut().read_json().expect("every answer is JSON"),
            retry_after,
        }
    }

    /// A callback as it should be.
    fn call_back(&self, body: &Value) -> Answer {
        self.send(&body.to_string())
    }

    /// Anything, signed as it should be.
    fn send(&self, body: &str) -> Answer {
        self.post(&signed(SECRET, now(), body), body.as_bytes())
    }

    #[track_caller]
    fn refuses(&self, answer: &Answer, status: u16) {
        assert_eq!(answer.status, status, "{answer:?}");
        let error = answer.body["error"].as_str().unwrap_or_default();
        assert!(!error.is_empty(), "it says why: {answer:?}");
    }

    fn storefront(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let url = self.server.url();
        let arguments = [&["--server", &url, "--secret", SECRET], arguments].concat();
        let output = run(&example("storefront"), &arguments, self.folder.path());
        let said = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(said).expect("UTF-8"))
    }

    fn receipts(&self) -> Vec<ReceiptRow> {
        receipts(self.folder.path())
    }

    /// Ends the server, and returns what it leaves behind.
    fn close(self) -> TempDir {
        let Self { folder, server, .. } = self;
        server.signal("TERM");
        let ended = server.wait();
        ended.assert_all_saved();
        assert!(!ended.log.contains("panicked"), "nothing panics: {}", ended.log);
        folder
    }
}

fn now() -> i64 {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("it is after 1970");
    now.as_secs().cast_signed()
}

fn signed(secret: &str, time: i64, body: &str) -> [(&'static str, String); 3] {
    let webhook = Webhook::new(secret).expect("a secret");
    let signature = webhook.sign("msg_1", time, body.as_bytes()).expect("a text");
    [
        ("webhook-id", "msg_1".to_owned()),
        ("webhook-timestamp", time.to_string()),
        ("webhook-signature", signature),
    ]
}

fn paid(purchase: &str, player: &str, product: &str) -> Value {
    json!({
        "type": "purchase.paid",
        "purchase_id": purchase,
        "player_id": PlayerId::from_name(player).to_string(),
        "product_id": product,
    })
}

fn refunded(purchase: &str, player: &str, product: &str) -> Value {
    let mut callback = paid(purchase, player, product);
    callback["type"] = "purchase.refunded".into();
    callback
}

#[test]
fn a_callback_is_on_disk_when_it_is_answered_and_a_repetition_changes_nothing() {
    let desk = Desk::open(&[]);
    let callback = paid("p1", "ada", "coins_100");
    let answer = desk.call_back(&callback);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, json!({ "is_new": true, "state": "pending" }));
    let stored = desk.receipts();
    assert_eq!(stored.len(), 1, "{stored:?}");
    assert_eq!(
        (&*stored[0].purchase, stored[0].player, &*stored[0].product),
        ("p1", PlayerId::from_name("ada"), "coins_100")
    );

    let answer = desk.call_back(&callback);
    assert_eq!(answer.status, 200, "{answer:?}");
    assert_eq!(answer.body, json!({ "is_new": false, "state": "pending" }));
    assert_eq!(desk.receipts(), stored);

    // Another server may know the product, and providers add fields as they please.
    let mut unknown = paid("p2", "ada", "castle");
    unknown["currency"] = "EUR".into();
    assert_eq!(desk.call_back(&unknown).status, 200);
    // A refund may come before what it refunds.
    assert_eq!(desk.call_back(&refunded("p3", "ada", "coins_100")).status, 200);
    assert_eq!(desk.call_back(&paid("p3", "ada", "coins_100")).status, 200);
    let states: Vec<_> = desk
        .receipts()
        .into_iter()
        .map(|row| (row.state, row.refund_requested))
        .collect();
    let pending = |refund_requested| ("pending".to_owned(), refund_requested);
    assert_eq!(states, [pending(false), pending(false), pending(true)]);
    desk.close();
}

#[test]
fn what_is_not_signed_or_not_now_gets_401_and_leaves_nothing_behind() {
    let desk = Desk::open(&[]);
    let body = paid("p1", "ada", "coins_100").to_string();
    let good = signed(SECRET, now(), &body);
    for missing in 0..good.len() {
        let mut headers = good.to_vec();
        headers.remove(missing);
        desk.refuses(&desk.post(&headers, body.as_bytes()), 401);
    }
    desk.refuses(&desk.post(&[], body.as_bytes()), 401);
    for time in [now() - 600, now() + 600, 0, -1, i64::MIN, i64::MAX, i64::MIN + 1] {
        desk.refuses(&desk.post(&signed(SECRET, time, &body), body.as_bytes()), 401);
    }
    desk.refuses(
        &desk.post(&signed(OTHER_SECRET, now(), &body), body.as_bytes()),
        401,
    );
    let altered = body.replace("coins_100", "coins_1000");
    desk.refuses(&desk.post(&good, altered.as_bytes()), 401);
    desk.refuses(&desk.post(&good, &[0xff; 40]), 401);
    for (header, value) in [
        ("webhook-id", "msg_2"),
        ("webhook-timestamp", "soon"),
        ("webhook-timestamp", "99999999999999999999"),
        ("webhook-timestamp", ""),
        ("webhook-signature", ""),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,AAAA v2,BBBB ,"),
    ] {
        let headers = good.clone().map(|(name, good)| {
            let value = if name == header { value.to_owned() } else { good };
            (name, value)
        });
        desk.refuses(&desk.post(&headers, body.as_bytes()), 401);
    }
    assert_eq!(desk.receipts(), [], "nothing of that is stored");

    // While a provider changes its secret, it signs with both.
    let [id, time, (name, signature)] = good;
    let [.., (_, other)] = signed(OTHER_SECRET, now(), &body);
    let answer = desk.post(
        &[id, time, (name, format!("{other} {signature}"))],
        body.as_bytes(),
    );
    assert_eq!(answer.status, 200, "{answer:?}");
    desk.close();
}

#[test]
fn a_purchase_that_is_known_with_another_player_or_product_gets_409() {
    let desk = Desk::open(&[]);
    assert_eq!(desk.call_back(&paid("p1", "ada", "coins_100")).status, 200);
    let stored = desk.receipts();
    for conflict in [
        paid("p1", "bob", "coins_100"),
        paid("p1", "ada", "coins_1000"),
        refunded("p1", "bob", "coins_100"),
    ] {
        desk.refuses(&desk.call_back(&conflict), 409);
    }
    assert_eq!(desk.receipts(), stored, "the first one stands");
    desk.close();
}

#[test]
fn a_signed_body_that_makes_no_sense_gets_422() {
    let desk = Desk::open(&[]);
    let with = |field: &str, value: Value| {
        let mut callback = paid("p1", "ada", "coins_100");
        callback[field] = value;
        callback.to_string()
    };
    let without = |field: &str| {
        let mut callback = paid("p1", "ada", "coins_100");
        callback.as_object_mut().expect("an object").remove(field);
        callback.to_string()
    };
    for body in [
        String::new(),
        "paid".to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "null".to_owned(),
        "{}".to_owned(),
        "[".repeat(10_000),
        with("type", "purchase.stolen".into()),
        with("type", 7.into()),
        with("player_id", "ada".into()),
        with("player_id", "".into()),
        with("player_id", Value::Null),
        with("purchase_id", "".into()),
        with("purchase_id", "x".repeat(256).into()),
        with("purchase_id", "a\u{0}b".into()),
        with("purchase_id", json!(["p1"])),
        with("product_id", "".into()),
        with("product_id", "x".repeat(256).into()),
        without("type"),
        without("purchase_id"),
        without("player_id"),
        without("product_id"),
        paid("p1", "ada", "coins_100").to_string() + "{}",
        r#"{"type":"purchase.paid","#.to_owned() + &paid("p1", "ada", "coins_100").to_string()[1..],
    ] {
        desk.refuses(&desk.send(&body), 422);
    }
    assert_eq!(desk.receipts(), [], "nothing of that is stored");
    desk.close();
}

#[test]
fn a_body_that_is_too_big_gets_413() {
    let desk = Desk::open(&[]);
    desk.refuses(&desk.send(&" ".repeat(17 * 1024)), 413);
    desk.close();
}

#[test]
fn more_callbacks_than_the_server_takes_get_429_and_are_taken_later() {
    let desk = Desk::open(&["--webhook-rate", "5"]);
    let unsigned: Vec<Answer> = (0..30).map(|_| desk.post(&[], b"{}")).collect();
    let turned_away: Vec<&Answer> = unsigned.iter().filter(|answer| answer.status != 401).collect();
    assert!(!turned_away.is_empty(), "strangers are bounded as well");
    for answer in turned_away {
        desk.refuses(answer, 429);
    }

    // The flood of strangers has not used up what the provider may send.
    let first = desk.call_back(&paid("p0", "ada", "coins_100"));
    assert_eq!(first.status, 200, "{first:?}");
    let answers: Vec<Answer> = (1..30)
        .map(|n| desk.call_back(&paid(&format!("p{n}"), "ada", "coins_100")))
        .collect();
    let bounded: Vec<&Answer> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert!(!bounded.is_empty(), "{answers:?}");
    for answer in bounded {
        desk.refuses(answer, 429);
        assert_eq!(answer.retry_after.as_deref(), Some("1"), "in seconds");
    }
    let taken = answers.iter().filter(|answer| answer.status == 200).count() + 1;
    assert_eq!(desk.receipts().len(), taken, "what was turned away is not stored");
    wait_for("the last one is taken", || {
        (desk.call_back(&paid("p29", "ada", "coins_100")).status == 200).then_some(())
    });
    desk.close();
}

#[test]
fn while_the_store_gives_no_answer_callbacks_get_503_and_are_taken_when_it_is_back() {
    let desk = Desk::open(&[]);
    let mut blocker = database(desk.folder.path());
    let lock = blocker
        .transaction_with_behavior(TransactionBehavior::Immediate)
        .expect("nobody else has it for long");
    let callback = paid("p1", "ada", "coins_100");
    let answer = desk.call_back(&callback);
    desk.refuses(&answer, 503);
    let error = answer.body["error"].as_str();
    assert!(
        error.is_some_and(|error| error.ends_with("it gives no answer")),
        "the provider doesn't wait for as long as the store does: {error:?}"
    );
    drop(lock);
    let answer = wait_for("it is taken", || {
        let answer = desk.call_back(&callback);
        (answer.status == 200).then_some(answer)
    });
    assert_eq!(answer.body["state"], "pending", "{answer:?}");
    assert_eq!(desk.receipts().len(), 1);
    desk.close();
}

#[test]
fn bytes_that_are_no_callback_at_all_bring_nothing_down() {
    let desk = Desk::open(&[]);
    let address = desk.server.url().trim_start_matches("http://").to_owned();
    let mut random = fastrand::Rng::with_seed(7);
    let mut noise = |length: usize| -> Vec<u8> { (0..length).map(|_| random.u8(..)).collect() };
    for round in 0..200 {
        let mut request = Vec::new();
        if round % 4 > 0 {
            request.extend(b"POST /webhooks/purchases HTTP/1.1\r\nhost: x\r\n");
        }
        if round % 4 > 1 {
            for header in ["webhook-id: ", "webhook-timestamp: ", "webhook-signature: v1,"] {
                // All that a header can hold, and more than a text can.
                let value = noise(20).into_iter().map(|byte| byte | 0x80);
                request.extend(header.bytes().chain(value).chain(*b"\r\n"));
            }
        }
        let body = noise(100);
        request.extend(format!("content-length: {}\r\n\r\n", body.len() / (1 + round % 2)).bytes());
        request.extend(body);
        let mut stream = TcpStream::connect(&address).expect("the server is there");
        stream
            .set_read_timeout(Some(process::PATIENCE))
            .expect("a timeout");
        // The server may hang up at any point.
        let _ = stream.write_all(&request);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    assert_eq!(desk.call_back(&paid("p1", "ada", "coins_100")).status, 200);
    assert_eq!(desk.receipts().len(), 1);
    desk.close();
}

#[test]
fn a_storefront_that_duplicates_shuffles_and_hangs_up_sells_each_thing_once() {
    let desk = Desk::open(&[]);
    let ada = Player::join(&desk.server.url(), "ada");
    ada.wait_for_line("coins 10");
    let (code, said) = desk.storefront(&[
        "--player",
        "ada",
        "--product",
        "coins_100",
        "--count",
        "7",
        "--duplicate",
        "3",
        "--shuffle",
        "--drop-responses",
    ]);
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("7 purchases: 21 callbacks in 32 attempts, of which 11 were hung up on"),
        "{said}"
    );
    ada.wait_for_line("bought 7 coins_100");
    ada.wait_for_line("coins_100 is yours");
    wait_for("all of it is settled", || {
        desk.receipts()
            .iter()
            .all(|receipt| receipt.state == "granted")
            .then_some(())
    });
    drop(ada);

    assert_eq!(desk.receipts().len(), 7);
    let row = wait_for("ada is gone and saved", || {
        rows(desk.folder.path()).pop().filter(|row| !row.is_locked)
    });
    assert_eq!(row.coins, Some(710), "10 for a welcome, and seven purses");
    let said = String::from_utf8(play(&desk.server.url(), "ada", "quit\n").stdout).expect("UTF-8");
    assert!(
        said.contains("coins 710") && said.contains("bought 7 coins_100"),
        "{said}"
    );
    desk.close();
}

#[test]
fn a_storefront_that_refunds_everything_leaves_nothing_whether_the_player_is_there_or_not() {
    let desk = Desk::open(&[]);
    let sell = |arguments: &[&str]| {
        let bought = [
            "--player",
            "ada",
            "--count",
            "5",
            "--duplicate",
            "2",
            "--drop-responses",
            "--refund",
        ];
        let (code, said) = desk.storefront(&[&bought[..], arguments].concat());
        assert_eq!(code, Some(0), "{said}");
    };
    // Nobody has seen her yet, and refunds may come before what they refund.
    sell(&["--product", "relic", "--shuffle"]);
    let ada = Player::join(&desk.server.url(), "ada");
    ada.wait_for_line("coins 10");
    // Now she is there, and things come and go.
    sell(&["--product", "coins_1000"]);
    sell(&["--product", "title_patron", "--shuffle"]);
    let receipts = wait_for("all is refunded", || {
        let receipts = desk.receipts();
        receipts
            .iter()
            .all(|receipt| receipt.state == "refunded")
            .then_some(receipts)
    });
    assert_eq!(receipts.len(), 15);
    assert!(
        receipts.iter().all(|receipt| receipt.note.is_none()),
        "everything could be taken back: {receipts:?}"
    );
    drop(ada);
    let folder = desk.close();
    let row = rows(folder.path()).pop().expect("ada's row");
    assert_eq!(row.coins, Some(10), "what she had before");
    let audit = run(
        &example("server"),
        &["--audit", "--db", "players.db"],
        folder.path(),
    );
    assert_eq!(
        String::from_utf8(audit.stdout).expect("UTF-8"),
        "audit: 3 relics, each once; 0 purchases granted, each once\n"
    );
}

#[test]
fn a_storefront_explains_in_one_sentence_why_it_sells_nothing() {
    let desk = Desk::open(&[]);
    for (arguments, code, part) in [
        (
            &["--player", "a b", "--product", "relic"][..],
            2,
            "a name is made of",
        ),
        (&["--player", "ada", "--product", ""], 2, "--product"),
        (&["--player", "ada", "--product", "relic", "--count", "0"], 2, "0"),
        (&["--player", "ada"], 2, "--product"),
    ] {
        let (actual, said) = desk.storefront(arguments);
        assert_eq!(actual, Some(code), "{said}");
        assert!(said.contains(part) && said.lines().count() == 1, "{said}");
    }
    let sell = |server: &str, secret: &str| {
        let buy = [
            "--player",
            "ada",
            "--product",
            "relic",
            "--server",
            server,
            "--secret",
            secret,
        ];
        let output = run(&example("storefront"), &buy, desk.folder.path());
        let said = String::from_utf8([output.stdout, output.stderr].concat()).expect("UTF-8");
        assert_eq!(output.status.code(), Some(1), "{said}");
        said
    };
    let url = desk.server.url();
    let refused = sell(&url, OTHER_SECRET);
    assert!(
        refused.contains("REFUSED: 401") && refused.contains("not signed"),
        "{refused}"
    );
    for (server, secret, part) in [
        (&*url, "whsec_", "is no webhook secret"),
        ("ftp://127.0.0.1", SECRET, "http://127.0.0.1:8080"),
        ("http://127.0.0.1:1", SECRET, "is the server running there?"),
    ] {
        let said = sell(server, secret);
        assert!(said.contains(part) && said.lines().count() == 1, "{said}");
    }
    assert_eq!(desk.receipts(), []);
    desk.close();
}

#[test]
fn a_server_without_a_secret_makes_one_for_itself() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let server = Server::start(folder.path(), &[]);
    let (url, secret) = (server.url(), server.secret());
    let buy = [
        "--server",
        &url,
        "--secret",
        &secret,
        "--player",
        "ada",
        "--product",
        "relic",
    ];
    let output = run(&example("storefront"), &buy, folder.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(receipts(folder.path()).len(), 1);
    drop(server);

    let server = Server::start_in(folder.path(), &[], &[("WEBHOOK_SECRET", SECRET)]);
    let buy = [
        "--server",
        &server.url(),
        "--secret",
        SECRET,
        "--player",
        "ada",
        "--product",
        "relic",
    ];
    let output = run(&example("storefront"), &buy, folder.path());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(receipts(folder.path()).len(), 2);
}
