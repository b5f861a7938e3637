//! Work that would hold a frame up: it runs on a thread of its own, and is asked every frame whether it is done.

use std::{
    io,
    sync::{
        Mutex,
        mpsc::{Receiver, channel},
    },
    thread,
};

/// Something that a thread is working on.
pub struct Background<T>(Mutex<Receiver<T>>);

impl<T: Send + 'static> Background<T> {
    /// Has `work` done. It ends by itself: it has to have time limits of its own.
    ///
    /// # Errors
    /// When the system refuses a thread.
    pub fn start(work: impl FnOnce() -> T + Send + 'static) -> io::Result<Self> {
        let (sender, receiver) = channel();
        // Nobody waits for what was given up meanwhile.
        thread::Builder::new()
            .name("background".to_owned())
            .spawn(move || drop(sender.send(work())))?;
        Ok(Self(Mutex::new(receiver)))
    }

    /// What came of it, once.
    pub fn poll(&mut self) -> Option<T> {
        self.0.get_mut().ok()?.try_recv().ok()
    }
}
