//! Shuttle's threads. One that panics is, as the standard library's, a failed join and not the end of the test.

pub use real_std::thread::Result;

use crate::{
    broken::{self, Mechanism},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

pub struct Builder(shuttle::thread::Builder);

impl Builder {
    pub fn new() -> Self {
        Self(shuttle::thread::Builder::new())
    }

    pub fn name(self, name: String) -> Self {
        Self(self.0.name(name))
    }

    pub fn spawn<T: Send + 'static>(
        self,
        run: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<JoinHandle<T>> {
        let handle = self.0.spawn(|| catch_unwind(AssertUnwindSafe(run)))?;
        let thread = Thread(Some(handle.thread().id()));
        Ok(JoinHandle { handle, thread })
    }
}

pub struct JoinHandle<T> {
    handle: shuttle::thread::JoinHandle<Result<T>>,
    thread: Thread,
}

impl<T: Default> JoinHandle<T> {
    pub fn thread(&self) -> &Thread {
        &self.thread
    }

    pub fn join(self) -> Result<T> {
        if !broken::works(Mechanism::JoinWaits) {
            return Ok(T::default());
        }
        self.handle.join()?
    }
}

pub struct Thread(Option<shuttle::thread::ThreadId>);

impl Thread {
    pub fn id(&self) -> Option<shuttle::thread::ThreadId> {
        self.0
    }
}

pub fn current() -> Thread {
    let id = shuttle::thread::current().id();
    Thread(broken::works(Mechanism::ThreadsHaveIds).then_some(id))
}
