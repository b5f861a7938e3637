//! A stand-in for the shop's web side, and for the payment provider behind it: `GET /products` and `POST /buy`.
//!
//! Whoever asks has paid, as far as it is concerned. It tells the game like any provider does: with a signed callback to
//! the webhook, repeated until that has taken it. A real game has neither of the two in its server process.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use bevy_player_data::{ProductId, PurchaseId};

use crate::{
    account::player_named,
    catalogue::{Catalogue, Entry},
    offers::{BUY, NotSold, OFFERS, Offer, Order, Sold},
    payments::{
        callback::{Callback, PaymentEvent},
        provider::{Answer, Provider},
    },
};

/// The longest body of an order, in bytes.
const BODY_LIMIT: usize = 1024;
/// How many callbacks may be on their way. Each has a thread.
const CALLBACKS: usize = 64;
/// How long the provider waits before it repeats a callback; each time it waits twice as long, up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// The routes of a shop that sells what is in the catalogue.
pub fn routes(catalogue: &Catalogue, provider: Provider) -> Router {
    let offers = catalogue.entries().iter().map(|entry| {
        let Entry { id, title, price, .. } = entry.clone();
        Offer {
            id: id.as_str().to_owned(),
            title,
            price,
        }
    });
    let till = Till {
        offers: offers.collect(),
        provider,
        under_way: AtomicUsize::new(0),
    };
    Router::new()
        .route(OFFERS, get(show))
        .route(BUY, post(sell))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(Arc::new(till))
}

struct Till {
    offers: Vec<Offer>,
    provider: Provider,
    under_way: AtomicUsize,
}

async fn show(State(till): State<Arc<Till>>) -> Json<Vec<Offer>> {
    Json(till.offers.clone())
}

async fn sell(
    State(till): State<Arc<Till>>,
    body: Result<Bytes, BytesRejection>,
) -> Result<Json<Sold>, Refusal> {
    let body = body.map_err(|rejection| Refusal(rejection.status(), rejection.body_text()))?;
    let order: Order = serde_json::from_slice(&body).map_err(|problem| {
        Refusal(
            StatusCode::BAD_REQUEST,
            format!("the body is no order: {problem}"),
        )
    })?;
    let callback = till.callback(&order)?;
    let sold = Sold {
        purchase_id: callback.purchase_id.as_str().to_owned(),
    };
    till.tell_the_game(callback)?;
    Ok(Json(sold))
}

impl Till {
    fn callback(&self, order: &Order) -> Result<Callback, Refusal> {
        let unprocessable = |problem| Refusal(StatusCode::UNPROCESSABLE_ENTITY, problem);
        let player_id = player_named(&order.name).map_err(unprocessable)?;
        let offer = self.offers.iter().find(|offer| offer.id == order.product);
        let offer = offer.ok_or_else(|| unprocessable(format!("there is no product `{}`", order.product)))?;
        let product_id = ProductId::new(&offer.id).map_err(|problem| unprocessable(problem.to_string()))?;
        let purchase_id = PurchaseId::new(format!("shop-{:032x}", fastrand::u128(..)))
            .map_err(|problem| unprocessable(problem.to_string()))?;
        Ok(Callback {
            event: PaymentEvent::Paid,
            purchase_id,
            player_id,
            product_id,
        })
    }

    /// Returns at once: a provider doesn't keep its customers waiting for the game.
    fn tell_the_game(self: Arc<Self>, callback: Callback) -> Result<(), Refusal> {
        if self.under_way.fetch_add(1, Ordering::Relaxed) >= CALLBACKS {
            self.under_way.fetch_sub(1, Ordering::Relaxed);
            return Err(Refusal(
                StatusCode::TOO_MANY_REQUESTS,
                "too much is being bought at once: try again later".to_owned(),
            ));
        }
        let telling = Telling(Arc::clone(&self));
        let spawned = thread::Builder::new()
            .name("callback".to_owned())
            .spawn(move || telling.repeat(&callback));
        spawned.map(drop).map_err(|problem| {
            Refusal(
                StatusCode::SERVICE_UNAVAILABLE,
                format!("the system refuses a thread: {problem}"),
            )
        })
    }
}

/// A callback on its way, which counts as that until it is dropped.
struct Telling(Arc<Till>);

impl Telling {
    /// Repeats the callback until it is taken, or will never be. A process that ends takes those of this stand-in with
    /// it.
    fn repeat(&self, callback: &Callback) {
        let message = format!("{}-{}", callback.purchase_id, callback.event);
        let mut pause = FIRST_PAUSE;
        while let Answer::Later { .. } | Answer::Silence { .. } = self.0.provider.deliver(&message, callback)
        {
            thread::sleep(pause);
            pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
        }
    }
}

impl Drop for Telling {
    fn drop(&mut self) {
        self.0.under_way.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Why nothing is sold.
struct Refusal(StatusCode, String);

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let Self(status, error) = self;
        (status, Json(NotSold { error })).into_response()
    }
}
