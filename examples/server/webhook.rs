//! `POST /webhooks/purchases`: where a payment provider says that somebody has paid, or got their money back.
//!
//! A callback is believed when it is signed with the provider's [`Secret`], and answered with success only once the
//! receipt is on disk; until then the provider repeats it. What is bought is granted by the game, when the player is
//! there. Nothing here trusts a byte that is not signed.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::{HeaderMap, StatusCode, header::RETRY_AFTER},
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bevy_player_data::{
    inbox::ReceiptInbox,
    store::{Enqueued, NewReceipt, Notice, StoreError},
};
use bevy_renet::netcode::generate_random_bytes;
use standardwebhooks::{HEADER_WEBHOOK_TIMESTAMP, Webhook};
use tokio::time::timeout;
use tracing::{debug, error, warn};

use crate::payments::{
    callback::{Callback, NotTaken, PATH, PaymentEvent, Taken},
    secret::Secret,
};

/// The longest body of a callback, in bytes.
const BODY_LIMIT: usize = 16 * 1024;
/// How long the store may take. A provider that has to wait takes the server for dead.
const STORE_PATIENCE: Duration = Duration::from_secs(3);
/// How old a callback may be, and how far ahead its sender's clock, in seconds.
const TOLERANCE: u64 = 5 * 60;

/// The route of callbacks that are signed with `secret`, of which `rate` a second are taken.
pub fn routes(inbox: ReceiptInbox, secret: Secret, rate: u16) -> Router {
    let desk = Desk {
        inbox,
        secret,
        signed: Allowance::new(rate),
        strangers: Allowance::new(rate),
    };
    Router::new()
        .route(PATH, post(take))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new(desk))
}

/// A secret that nobody has seen before, and how it is written down.
pub fn new_secret() -> (Secret, String) {
    let key: [u8; 32] = generate_random_bytes();
    let written = format!("whsec_{}", BASE64_STANDARD.encode(key));
    let secret = written.parse().expect("it is made as secrets are");
    (secret, written)
}

struct Desk {
    inbox: ReceiptInbox,
    secret: Secret,
    signed: Allowance,
    /// Of their own, so that a flood of forgeries keeps no provider out.
    strangers: Allowance,
}

async fn take(
    State(desk): State<Arc<Desk>>,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Taken>, Refusal> {
    let body = body.map_err(|rejection| Refusal::new(rejection.status(), rejection.body_text()))?;
    if let Err(problem) = check_signature(&desk.secret.webhook, &headers, &body) {
        desk.strangers.spend()?;
        debug!("a callback is not believed: {problem}");
        return Err(Refusal::new(StatusCode::UNAUTHORIZED, problem));
    }
    desk.signed.spend()?;
    let callback: Callback = serde_json::from_slice(&body).map_err(|problem| {
        warn!("a signed callback makes no sense: {problem}");
        let problem = format!("the body is no callback about a purchase: {problem}");
        Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, problem)
    })?;
    let Enqueued { receipt, is_new } = desk.hand_in(callback).await?;
    Ok(Json(Taken {
        is_new,
        state: receipt.state.name().to_owned(),
    }))
}

impl Desk {
    async fn hand_in(&self, callback: Callback) -> Result<Enqueued, Refusal> {
        let notice = match callback.event {
            PaymentEvent::Paid => Notice::Paid,
            PaymentEvent::Refunded => Notice::Refund,
        };
        let receipt = NewReceipt::new(callback.purchase_id, callback.player_id, callback.product_id);
        match timeout(STORE_PATIENCE, self.inbox.enqueue(receipt, notice)).await {
            Ok(answer) => answer.map_err(Refusal::from),
            // It may be stored all the same. The provider will ask again.
            Err(_) => Err(StoreError::unavailable("it gives no answer").into()),
        }
    }
}

fn check_signature(webhook: &Webhook, headers: &HeaderMap, body: &[u8]) -> Result<(), String> {
    check_time(headers)?;
    webhook
        .verify(body, headers)
        .map_err(|problem| format!("the callback is not signed by the payment provider: {problem}"))
}

/// Checks the time before `standardwebhooks` does, whose arithmetic overflows on times that are far enough off.
fn check_time(headers: &HeaderMap) -> Result<(), String> {
    let sent: i64 = headers
        .get(HEADER_WEBHOOK_TIMESTAMP)
        .and_then(|time| time.to_str().ok()?.parse().ok())
        .ok_or_else(|| format!("the callback has no `{HEADER_WEBHOOK_TIMESTAMP}` in seconds"))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    if now.as_secs().cast_signed().abs_diff(sent) > TOLERANCE {
        return Err("the callback is stale, or from the future: sign it again, now".to_owned());
    }
    Ok(())
}

/// Why a callback is not taken.
struct Refusal {
    status: StatusCode,
    error: String,
    /// In seconds.
    retry_after: Option<u64>,
}

impl Refusal {
    const fn new(status: StatusCode, error: String) -> Self {
        Self {
            status,
            error,
            retry_after: None,
        }
    }
}

impl From<StoreError> for Refusal {
    fn from(problem: StoreError) -> Self {
        let status = match &problem {
            StoreError::Conflict { .. } => StatusCode::CONFLICT,
            StoreError::Rejected { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            // With whatever else the store says, the purchase is not on disk, and has to come again.
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        error!("a callback can't be taken: {problem}");
        Self::new(status, problem.to_string())
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self {
            status,
            error,
            retry_after,
        } = self;
        let retry_after = retry_after.map(|seconds| [(RETRY_AFTER, seconds.to_string())]);
        (status, retry_after, Json(NotTaken { error })).into_response()
    }
}

/// So many a second, and what was saved up of them within a second.
struct Allowance {
    rate: f64,
    left: Mutex<(f64, Instant)>,
}

impl Allowance {
    fn new(rate: u16) -> Self {
        Self {
            rate: rate.into(),
            left: Mutex::new((rate.into(), Instant::now())),
        }
    }

    fn spend(&self) -> Result<(), Refusal> {
        let mut left = self.left.lock().unwrap_or_else(PoisonError::into_inner);
        let (tokens, since) = &mut *left;
        *tokens = (*tokens + since.elapsed().as_secs_f64() * self.rate).min(self.rate);
        *since = Instant::now();
        if *tokens < 1.0 {
            return Err(Refusal {
                status: StatusCode::TOO_MANY_REQUESTS,
                error: format!("more than {} callbacks a second: try again later", self.rate),
                retry_after: Some(1),
            });
        }
        *tokens -= 1.0;
        Ok(())
    }
}
