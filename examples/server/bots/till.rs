//! Where bots pay: a stand-in for the payment provider, which calls their own server back until it is heard.
//!
//! It has a thread of its own, so that a slow store holds up no bot that plays.

use std::{
    io,
    sync::{
        Arc, OnceLock,
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use crate::payments::{
    callback::Callback,
    provider::{Answer, Provider},
};

/// The pause before a callback is repeated that was not taken.
const PAUSE: Duration = Duration::from_millis(100);
/// One in so many callbacks is not waited for, but hung up on, and repeated.
const HANG_UP: u8 = 10;

/// Takes orders. The thread behind it ends with the last handle.
#[derive(Clone)]
pub struct Till(Sender<Order>);

/// A callback that is being delivered. If nobody holds it any more but the till, it is given up.
#[derive(Clone)]
pub struct Order {
    pub callback: Callback,
    done: Arc<OnceLock<Result<(), String>>>,
}

impl Till {
    /// # Errors
    /// When the system refuses to start a thread.
    pub fn open(provider: Provider) -> io::Result<Self> {
        let (sender, orders) = channel();
        thread::Builder::new()
            .name("till".to_owned())
            .spawn(move || deliver_all(&provider, &orders))?;
        Ok(Self(sender))
    }

    /// Has a callback delivered.
    pub fn order(&self, callback: Callback) -> Order {
        let order = Order {
            callback,
            done: Arc::default(),
        };
        // If the thread is gone, the order stays open for good, and the bot says so.
        let _ = self.0.send(order.clone());
        order
    }
}

impl Order {
    /// How it ended, if it has: taken, or refused for good.
    pub fn outcome(&self) -> Option<&Result<(), String>> {
        self.done.get()
    }
}

fn deliver_all(provider: &Provider, orders: &Receiver<Order>) {
    for (number, Order { callback, done }) in orders.iter().enumerate() {
        let message = format!("message-{number}");
        while Arc::strong_count(&done) > 1 {
            if fastrand::u8(0..HANG_UP) == 0 {
                let _ = provider.deliver_and_hang_up(&message, &callback);
                continue;
            }
            let outcome = match provider.deliver(&message, &callback) {
                Answer::Taken(_) => Ok(()),
                refused @ Answer::Refused { .. } => Err(refused.to_string()),
                Answer::Later { pause, .. } => {
                    thread::sleep(pause.unwrap_or(PAUSE));
                    continue;
                }
                Answer::Silence { .. } => {
                    thread::sleep(PAUSE);
                    continue;
                }
            };
            let _ = done.set(outcome);
            break;
        }
    }
}
