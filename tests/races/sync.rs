//! Locks and channels. Locks and `mpsc` are shuttle's; tokio's own are wrapped, so that others get a turn before each
//! use.

pub use real_std::sync::{Arc, PoisonError};
pub use shuttle::sync::{Mutex, MutexGuard};

use crate::{
    broken::{self, Mechanism},
    future::Future,
};

/// Lets the scheduler decide who goes on.
pub fn step() {
    shuttle::sync::atomic::AtomicBool::new(false).load(shuttle::sync::atomic::Ordering::SeqCst);
}

pub struct Notify(real_tokio::sync::Notify);

impl Notify {
    pub fn new() -> Self {
        Self(real_tokio::sync::Notify::new())
    }

    pub fn notified(&self) -> impl Future<Output = ()> {
        step();
        let registered = broken::works(Mechanism::NotifiedIsRegisteredWhenMade).then(|| self.0.notified());
        async {
            match registered {
                Some(notified) => notified.await,
                None => {
                    step();
                    self.0.notified().await;
                }
            }
        }
    }

    pub fn notify_waiters(&self) {
        step();
        self.0.notify_waiters();
    }
}

pub mod oneshot {
    use real_tokio::sync::oneshot;
    pub use real_tokio::sync::oneshot::Receiver;

    use super::step;

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = oneshot::channel();
        (Sender(sender), receiver)
    }

    pub struct Sender<T>(oneshot::Sender<T>);

    impl<T> Sender<T> {
        pub fn send(self, value: T) -> Result<(), T> {
            step();
            self.0.send(value)
        }
    }
}

pub mod mpsc {
    use real_std::sync::mpsc::{RecvError, TryRecvError};
    use shuttle::sync::mpsc;
    pub use shuttle::sync::mpsc::Sender;

    use super::{Mechanism, broken};

    pub fn channel<T>() -> (Sender<T>, Receiver<T>) {
        let (sender, receiver) = mpsc::channel();
        (sender, Receiver(receiver))
    }

    pub struct Receiver<T>(mpsc::Receiver<T>);

    impl<T> Receiver<T> {
        pub fn recv(&self) -> Result<T, RecvError> {
            self.0.recv()
        }

        pub fn try_recv(&self) -> Result<T, TryRecvError> {
            self.0.try_recv()
        }
    }

    impl<T> Drop for Receiver<T> {
        /// As the standard library's does, and shuttle's doesn't. Nobody gets a turn between the last look and the end.
        fn drop(&mut self) {
            if broken::works(Mechanism::ReceiverDropsWhatIsQueued) {
                while let Ok(queued) = self.try_recv() {
                    drop(queued);
                }
            }
        }
    }
}
