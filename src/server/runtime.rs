//! The threads on which sessions work, and waiting for what they report.

use std::{
    sync::{Arc, mpsc::Receiver},
    thread,
    time::Duration,
};

use tokio::{
    runtime::{self, Handle},
    time::Instant,
};

/// Where the async half of the server runs.
pub(super) struct Runtime {
    handle: Handle,
    /// Threads of the plugin's own, so that a game under `#[tokio::main]` works too. `None` while it is being dropped,
    /// and when a test drives.
    own: Option<runtime::Runtime>,
    /// A test's runtime, which moves only when the test, or [`recv`](Self::recv), lets it.
    #[cfg(feature = "testing")]
    driven: Option<Arc<runtime::Runtime>>,
}

impl Runtime {
    /// # Panics
    /// When the system refuses to start a thread.
    pub(super) fn own() -> Self {
        let threads = runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("player data")
            .enable_time()
            .build()
            .unwrap_or_else(|error| panic!("can't start the threads that load and save players: {error}"));
        Self {
            handle: threads.handle().clone(),
            own: Some(threads),
            #[cfg(feature = "testing")]
            driven: None,
        }
    }

    #[cfg(feature = "testing")]
    pub(super) fn driven(runtime: Arc<runtime::Runtime>) -> Self {
        Self {
            handle: runtime.handle().clone(),
            own: None,
            driven: Some(runtime),
        }
    }

    pub(super) const fn handle(&self) -> &Handle {
        &self.handle
    }

    /// What time it is by the clock that tasks go by.
    pub(super) fn now(&self) -> Instant {
        let _context = self.handle.enter();
        Instant::now()
    }

    /// Has the last handle of something dropped by a thread that nobody waits for. (A test that drives has everything
    /// on one thread, and nothing in it that waits.)
    pub(super) fn drop_elsewhere<T: ?Sized + Send + Sync + 'static>(&self, shared: Arc<T>) {
        if self.own.is_none() {
            return;
        }
        let outlive = move || {
            while Arc::strong_count(&shared) > 1 {
                thread::sleep(Duration::from_millis(50));
            }
        };
        let thread = thread::Builder::new().name("player data store".to_owned());
        if let Err(error) = thread.spawn(outlive) {
            tracing::warn!("the end of this process may have to wait for the store: {error}");
        }
    }

    /// Waits for what some task reports; `None` when it has not done so in time.
    pub(super) fn recv<T>(&self, reports: &Receiver<T>, timeout: Duration) -> Option<T> {
        #[cfg(feature = "testing")]
        if let Some(runtime) = &self.driven {
            return recv_driving(runtime, reports, timeout);
        }
        reports.recv_timeout(timeout).ok()
    }
}

/// The game loop stands still, so nobody else lets the tasks run. Time is the runtime's.
#[cfg(feature = "testing")]
fn recv_driving<T>(runtime: &runtime::Runtime, reports: &Receiver<T>, timeout: Duration) -> Option<T> {
    runtime.block_on(async {
        let until = Instant::now() + timeout;
        loop {
            match reports.try_recv() {
                Ok(report) => return Some(report),
                Err(_) if Instant::now() >= until => return None,
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
}

impl Drop for Runtime {
    fn drop(&mut self) {
        // A world that is dropped without an `AppExit` is a crash: nothing is flushed. Waiting for the threads here
        // could block for good, and panics inside another runtime.
        if let Some(runtime) = self.own.take() {
            runtime.shutdown_background();
        }
    }
}
