//! A thread that owns a database connection, and the channel over which it is asked.
//!
//! It promises that asking never hangs and never panics: when the thread is gone, the answer is
//! [`StoreError::Unavailable`]. Dropping the worker lets the thread finish what is queued and waits for its end.

use std::{
    path::{Path, PathBuf},
    sync::mpsc,
    thread,
};

use tokio::sync::oneshot;

use super::super::StoreError;

/// Where the answer to one request goes.
pub(super) type Reply<T> = oneshot::Sender<Result<T, StoreError>>;

/// The handle to such a thread; `J` is what it takes on.
pub(super) struct Worker<J> {
    /// `None` once the worker is being dropped.
    jobs: Option<mpsc::Sender<J>>,
    thread: Option<thread::JoinHandle<()>>,
    path: PathBuf,
}

impl<J: Send + 'static> Worker<J> {
    /// Starts a thread that runs `work` until there are no more jobs.
    pub(super) fn start(
        name: &str,
        path: &Path,
        work: impl FnOnce(mpsc::Receiver<J>) + Send + 'static,
    ) -> Result<Self, StoreError> {
        let (jobs, queue) = mpsc::channel();
        let thread = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || work(queue))
            .map_err(|error| {
                StoreError::unavailable(format_args!(
                    "a thread for `{}` cannot be started ({error}): end other processes or raise the limit",
                    path.display()
                ))
            })?;
        Ok(Self {
            jobs: Some(jobs),
            thread: Some(thread),
            path: path.to_owned(),
        })
    }

    /// Queues the job that `make` builds around a [`Reply`], and waits for what it replies.
    pub(super) async fn ask<T>(&self, make: impl FnOnce(Reply<T>) -> J) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let sent = self
            .jobs
            .as_ref()
            .is_some_and(|jobs| jobs.send(make(reply)).is_ok());
        if !sent {
            return Err(self.gone());
        }
        answer.await.unwrap_or_else(|_| Err(self.gone()))
    }

    /// Queues a job that nobody waits for.
    pub(super) fn tell(&self, job: J) {
        if let Some(jobs) = &self.jobs {
            // A thread that has died says so to whoever asks it for something.
            let _ = jobs.send(job);
        }
    }

    fn gone(&self) -> StoreError {
        StoreError::unavailable(format_args!(
            "the thread that serves `{}` has died, see the log for its panic: restart this server",
            self.path.display()
        ))
    }
}

impl<J> Drop for Worker<J> {
    fn drop(&mut self) {
        self.jobs = None;
        // The thread itself gets here if an answer's waker drops the last handle; it then ends on its own.
        if let Some(thread) = self
            .thread
            .take_if(|thread| thread.thread().id() != thread::current().id())
            && thread.join().is_err()
        {
            tracing::error!("the thread that served `{}` had panicked", self.path.display());
        }
    }
}
