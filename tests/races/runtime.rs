//! A runtime of shuttle's tasks, which can be shut down like tokio's.

use shuttle::future::{JoinHandle, block_on};

use crate::{
    broken::{self, Mechanism},
    future::Future,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

#[derive(Clone)]
pub struct Handle {
    tasks: Arc<Mutex<Tasks>>,
}

enum Tasks {
    Accepted(Vec<JoinHandle<()>>),
    Refused,
}

impl Handle {
    pub fn new() -> Self {
        Self {
            tasks: Arc::new(Mutex::new(Tasks::Accepted(Vec::new()))),
        }
    }

    /// Spawns a task, or drops it if the runtime is shut down.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Tasks::Accepted(tasks) = &mut *tasks {
            tasks.push(shuttle::future::spawn(task));
            return;
        }
        drop(tasks);
        if broken::works(Mechanism::LateTasksAreDropped) {
            drop(task);
        } else {
            mem::forget(task);
        }
    }

    /// Drops each task where it awaits something, and waits until that is done.
    pub fn shut_down(&self) {
        let tasks = mem::replace(
            &mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner),
            Tasks::Refused,
        );
        if let Tasks::Accepted(tasks) = tasks {
            for task in &tasks {
                task.abort();
            }
            for task in tasks {
                // Aborted or ended, both are fine.
                let _ = block_on(task);
            }
        }
    }
}
