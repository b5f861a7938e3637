//! A payment provider for *Coin Rush*, to try the server's exactly-once with: it calls the server back about purchases,
//! and can be as unreliable about it as real ones are.
//!
//! ```console
//! $ cargo run --release --example storefront -- --secret whsec_… --player ada --product coins_100 \
//!       --count 5 --duplicate 3 --shuffle --drop-responses
//! ```
//!
//! delivers fifteen callbacks about five purchases, in any order, and hangs up on every other one before it is answered.
//! Each is repeated until the server has taken it, and ada gets 500 coins: not more, and not less.

use std::{fmt, process::ExitCode, thread, time::Duration};

use bevy_player_data::{PlayerId, ProductId, PurchaseId};
use clap::{Parser, value_parser};

#[path = "game/account.rs"]
mod account;
#[path = "payments/payments.rs"]
mod payments;
#[path = "game/usage.rs"]
mod usage;

use payments::{
    callback::{Callback, PaymentEvent},
    provider::{Answer, Provider},
    secret::{Secret, VARIABLE},
};
use usage::parse_command_line;

/// How often a callback is attempted before the provider gives up.
const ATTEMPTS: u32 = 10;
/// The pause after the first attempt that failed. It doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest pause.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Stands in for a payment provider: buys something for a player of Coin Rush.
#[derive(Parser)]
#[command(name = "storefront")]
struct Options {
    /// The server's HTTP address.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    server: String,
    /// The secret that the server checks signatures with [default: the environment's `WEBHOOK_SECRET`].
    #[arg(long)]
    secret: Option<String>,
    /// Who buys. They need not be there.
    #[arg(long, value_name = "NAME", value_parser = account::player_named)]
    player: PlayerId,
    /// What they buy.
    #[arg(long, value_name = "ID")]
    product: ProductId,
    /// How often they buy it.
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = value_parser!(u32).range(1..=100_000))]
    count: u32,
    /// Deliver each callback so many times.
    #[arg(long, value_name = "K", default_value_t = 1, value_parser = value_parser!(u32).range(1..=100))]
    duplicate: u32,
    /// Deliver in any order.
    #[arg(long)]
    shuffle: bool,
    /// Hang up on every other callback before it is answered, and repeat it.
    #[arg(long)]
    drop_responses: bool,
    /// Refund everything that was bought.
    #[arg(long)]
    refund: bool,
}

fn main() -> ExitCode {
    let options: Options = parse_command_line();
    match sell(&options) {
        Ok(tally) => {
            println!("{tally}");
            if tally.given_up == 0 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(problem) => {
            eprintln!("error: {problem}");
            ExitCode::FAILURE
        }
    }
}

/// What came of it all.
#[derive(Default)]
struct Tally {
    purchases: u32,
    deliveries: u32,
    attempts: u32,
    hung_up: u32,
    /// Callbacks that the server heard of for the first time.
    new: u32,
    given_up: u32,
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            purchases,
            deliveries,
            attempts,
            hung_up,
            new,
            given_up,
        } = self;
        write!(
            f,
            "{purchases} purchases: {deliveries} callbacks in {attempts} attempts, of which {hung_up} were hung up on; the \
             answers called {new} new; {given_up} were given up"
        )
    }
}

/// A callback on its way to the server, once or once more.
#[derive(Clone)]
struct Delivery {
    callback: Callback,
    /// The message's id: the same in each repetition.
    message: String,
}

fn sell(options: &Options) -> Result<Tally, String> {
    let secret = Secret::given(options.secret.as_deref())?
        .ok_or_else(|| format!("give the server's secret with `--secret whsec_…` or in `{VARIABLE}`"))?;
    let provider = Provider::new(&options.server, secret)?;
    let deliveries = deliveries(options)?;
    let mut tally = Tally {
        purchases: options.count,
        ..Tally::default()
    };
    for (number, delivery) in deliveries.iter().enumerate() {
        let hangs_up = options.drop_responses && number.is_multiple_of(2);
        tally.deliveries += 1;
        let Callback {
            event, purchase_id, ..
        } = &delivery.callback;
        let came_of_it = deliver(&provider, delivery, hangs_up, &mut tally)?;
        println!("{purchase_id} {event}: {came_of_it}");
    }
    Ok(tally)
}

/// Everything that there is to say to the server, in the order in which it is said.
fn deliveries(options: &Options) -> Result<Vec<Delivery>, String> {
    let run = format!("{:012x}", fastrand::u64(..1 << 48));
    let events = if options.refund {
        &[PaymentEvent::Paid, PaymentEvent::Refunded][..]
    } else {
        &[PaymentEvent::Paid]
    };
    let mut deliveries = Vec::new();
    for &event in events {
        for number in 1..=options.count {
            let purchase_id = PurchaseId::new(format!("storefront-{run}-{number}"))
                .map_err(|problem| problem.to_string())?;
            let message = format!("{purchase_id}-{event}");
            let callback = Callback {
                event,
                purchase_id,
                player_id: options.player,
                product_id: options.product.clone(),
            };
            let delivery = Delivery { callback, message };
            deliveries.extend(std::iter::repeat_n(delivery, options.duplicate as usize));
        }
    }
    if options.shuffle {
        fastrand::shuffle(&mut deliveries);
    }
    Ok(deliveries)
}

/// Delivers a callback until the server has taken it, and says what came of it.
///
/// # Errors
/// When there is no server at all.
fn deliver(
    provider: &Provider,
    Delivery { callback, message }: &Delivery,
    hangs_up: bool,
    tally: &mut Tally,
) -> Result<String, String> {
    let mut pause = FIRST_PAUSE;
    if hangs_up {
        tally.attempts += 1;
        tally.hung_up += 1;
        let hung_up = provider.deliver_and_hang_up(message, callback);
        if let Err(problem) = hung_up
            && tally.attempts == 1
        {
            return Err(format!(
                "the server can't be reached ({problem}): is it running there?"
            ));
        }
    }
    let hung_up = if hangs_up { "hung up; then " } else { "" };
    for attempt in 1..=ATTEMPTS {
        tally.attempts += 1;
        let answer = provider.deliver(message, callback);
        let wait = match &answer {
            Answer::Taken(taken) => {
                tally.new += u32::from(taken.is_new);
                return Ok(format!("{hung_up}{answer}"));
            }
            Answer::Refused { .. } => {
                tally.given_up += 1;
                return Ok(format!("{hung_up}REFUSED: {answer}"));
            }
            Answer::Silence { reason } if tally.attempts == 1 => {
                return Err(format!("{reason}: is the server running there?"));
            }
            Answer::Silence { .. } => pause,
            Answer::Later { pause: wish, .. } => wish.unwrap_or(pause),
        };
        println!("{} attempt {attempt}: {answer}", callback.purchase_id);
        thread::sleep(wait.min(LONGEST_PAUSE));
        pause = pause.saturating_mul(2).min(LONGEST_PAUSE);
    }
    tally.given_up += 1;
    Ok(format!("GIVEN UP after {ATTEMPTS} attempts"))
}
