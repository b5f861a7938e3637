//! The example server's `POST /webhooks/purchases`: headers and body may be anything. Nothing panics, every answer is
//! JSON, nothing is stored without a signature of the payment provider's, and what is stored is what was signed.
//!
//! An input is text: how the callback is signed, the message's id, when it was sent and the signature, in a line each;
//! the rest is the body.
#![no_main]

use std::{
    cell::LazyCell,
    time::{SystemTime, UNIX_EPOCH},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderName, HeaderValue, Request, StatusCode},
};
use bevy_player_data::{
    PlayerId,
    inbox::ReceiptInbox,
    store::{MemoryStore, ReceiptState, Store},
};
use bevy_player_data_fuzz::{is_control, start};
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::Value;
use standardwebhooks::Webhook;
use tokio::runtime::{Builder, Runtime};
use tower::ServiceExt;

use payments::{callback::PATH, secret::Secret};

#[path = "../../examples/server/webhook.rs"]
#[allow(dead_code, reason = "a part of the example")]
mod webhook;

#[path = "../../examples/payments/callback.rs"]
#[allow(dead_code, reason = "a part of the example")]
mod callback;
#[path = "../../examples/payments/secret.rs"]
#[allow(dead_code, reason = "a part of the example")]
mod secret;
/// Where the example has them.
mod payments {
    pub(crate) use crate::{callback, secret};
}

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8GKYqr";
const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";
/// How far off a callback's time may be, in seconds.
const TOLERANCE: u64 = 5 * 60;

thread_local! {
    static RUNTIME: LazyCell<Runtime> = LazyCell::new(|| {
        Builder::new_current_thread().enable_time().build().expect("a thread is enough")
    });
}

fuzz_target!(init: start(seeds), |input: &[u8]| {
    RUNTIME.with(|runtime| runtime.block_on(play(input)));
});

/// A callback, and whether it has to be believed; `None` if a second decides.
struct Call {
    id: Vec<u8>,
    time: Vec<u8>,
    signature: Vec<u8>,
    body: Vec<u8>,
    is_genuine: Option<bool>,
}

impl Call {
    fn read(input: &[u8]) -> Option<Self> {
        let mut lines = input.splitn(5, |&byte| byte == b'\n');
        let (how, id, time, signature) = (lines.next()?, lines.next()?, lines.next()?, lines.next()?);
        let mut call = Self {
            id: id.to_vec(),
            time: time.to_vec(),
            signature: signature.to_vec(),
            body: lines.next().unwrap_or_default().to_vec(),
            is_genuine: Some(false),
        };
        let late: i64 = str::from_utf8(time)
            .ok()
            .and_then(|late| late.parse().ok())
            .unwrap_or(0);
        let at = now().saturating_add(late);
        match how.first()? {
            b'g' => {
                call.sign(SECRET, at)?;
                call.is_genuine = match late.unsigned_abs() {
                    // Such an id can't be sent as a header.
                    _ if call.id.is_empty()
                        || !call.id.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~')) =>
                    {
                        Some(false)
                    }
                    0..TOLERANCE => Some(true),
                    off if off > TOLERANCE + 60 => Some(false),
                    _ => None,
                };
            }
            // Signed, and then changed.
            b'c' => {
                call.sign(SECRET, at)?;
                call.body.push(b' ');
            }
            b'i' => {
                call.sign(SECRET, at)?;
                call.id.push(b'x');
            }
            // The control: strangers who know the secret.
            b'o' => call.sign(
                if is_control("webhook") {
                    SECRET
                } else {
                    OTHER_SECRET
                },
                at,
            )?,
            b'n' => call.time = now().to_string().into(),
            _ => {}
        }
        Some(call)
    }

    fn sign(&mut self, secret: &str, at: i64) -> Option<()> {
        let webhook = Webhook::new(secret).expect("it is a secret");
        let id = str::from_utf8(&self.id).ok()?;
        self.signature = webhook.sign(id, at, &self.body).ok()?.into();
        self.time = at.to_string().into();
        Some(())
    }

    fn request(&self) -> Option<Request<Body>> {
        let mut request = Request::post(PATH)
            .body(Body::from(self.body.clone()))
            .expect("it is a path");
        let headers = [
            ("webhook-id", &self.id),
            ("webhook-timestamp", &self.time),
            ("webhook-signature", &self.signature),
        ];
        for (name, value) in headers {
            // HTTP doesn't let everything through; and an empty line stands for no header.
            if !value.is_empty() {
                let value = HeaderValue::from_bytes(value).ok()?;
                request.headers_mut().insert(HeaderName::from_static(name), value);
            }
        }
        Some(request)
    }
}

/// What a body says. Whatever else is in it need not even be text.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "type")]
    kind: String,
    purchase_id: String,
    player_id: String,
    product_id: String,
}

async fn play(input: &[u8]) {
    let Some(call) = Call::read(input) else { return };
    let store = MemoryStore::default();
    let secret: Secret = SECRET.parse().expect("it is a secret");
    let routes = webhook::routes(ReceiptInbox::new(store.connect()), secret, u16::MAX);
    let Some((status, answer)) = deliver(&routes, &call).await else {
        return;
    };
    let stored = store.arrivals(None).await.expect("it is in memory").newest;
    match call.is_genuine {
        Some(true) => assert_ne!(status, StatusCode::UNAUTHORIZED, "{answer}"),
        Some(false) => {
            assert_eq!(stored, 0, "something is stored without the provider's signature");
            assert!(status.is_client_error(), "{status}: {answer}");
        }
        None => {}
    }
    if status != StatusCode::OK {
        assert_eq!(stored, 0, "what is not taken is not stored");
        assert!(status.is_client_error(), "{status}: {answer}");
        assert!(
            answer["error"].as_str().is_some_and(|error| !error.is_empty()),
            "{answer}"
        );
        return;
    }
    assert_eq!((stored, &answer["is_new"]), (1, &Value::Bool(true)));
    let body: Said = serde_json::from_slice(&call.body).expect("it was taken");
    let receipt = store
        .receipt(body.purchase_id.parse().expect("it was taken"))
        .await
        .expect("it is in memory")
        .expect("what is taken is stored");
    let player: PlayerId = body.player_id.parse().expect("it was taken");
    assert_eq!(receipt.player, Some(player));
    assert_eq!(
        receipt.product.map(|product| product.to_string()),
        Some(body.product_id)
    );
    assert_eq!(receipt.refund_requested, body.kind == "purchase.refunded");
    assert!(
        matches!(receipt.state, ReceiptState::Pending | ReceiptState::Refunded),
        "{:?}",
        receipt.state
    );

    let (status, answer) = deliver(&routes, &call).await.expect("it went through before");
    assert_eq!((status, &answer["is_new"]), (StatusCode::OK, &Value::Bool(false)));
    assert_eq!(
        store.arrivals(None).await.expect("it is in memory").newest,
        1,
        "a repetition is no purchase"
    );
}

async fn deliver(routes: &Router, call: &Call) -> Option<(StatusCode, Value)> {
    let answer = routes
        .clone()
        .oneshot(call.request()?)
        .await
        .expect("it always answers");
    let status = answer.status();
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("it is short");
    Some((
        status,
        serde_json::from_slice(&body).expect("every answer is JSON"),
    ))
}

fn now() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_secs().cast_signed()
}

fn seeds() -> Vec<Vec<u8>> {
    let player = PlayerId::from_name("ada");
    let body = format!(
        r#"{{"type":"purchase.paid","purchase_id":"pi_1","player_id":"{player}","product_id":"coins_100"}}"#
    );
    let refund = body.replace("paid", "refunded");
    let signature = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4= v1a,AAAA";
    [
        format!("g\nmsg_1\n0\n\n{body}"),
        format!("g\nmsg_1\n-200\n\n{refund}"),
        format!("g\nmsg_1\n4000\n\n{body}"),
        format!("c\nmsg_1\n0\n\n{body}"),
        format!("i\nmsg_1\n0\n\n{body}"),
        format!("o\nmsg_1\n0\n\n{body}"),
        format!("n\nmsg_1\n\n{signature}\n{body}"),
        format!("r\nmsg_1\n1614265330\n{signature}\n{body}"),
        format!("r\n\n-9223372036854775808\n{signature}\n{body}"),
        format!("r\n\n9223372036854775807\n\n{body}"),
        "g\nmsg_2\n0\n\n{\"type\":\"purchase.paid\"}".to_owned(),
        format!("g\nmsg_3\n0\n\n{}", "[".repeat(300)),
        format!("g\nmsg_4\n0\n\n{}", body.replace("pi_1", &"p".repeat(256))),
        format!("g\nmsg_5\n0\n\n{}", body.replace("pi_1", "\\u0000")),
        format!("g\nmsg_6\n0\n\n{}", body.replace("coins_100", "ü\\ud83d\\ude00")),
        "g\n\n\n\n".to_owned(),
    ]
    .map(Vec::from)
    .into()
}
