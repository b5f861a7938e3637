//! SIGINT and SIGTERM shut the app down, and nothing that a user presses skips the flush.
//!
//! Signal crates chain the handlers that they find, and Bevy's `TerminalCtrlCHandlerPlugin` (part of `DefaultPlugins`)
//! installs one that calls `process::exit` at the second Ctrl-C. So on Unix this module replaces both signals'
//! handlers instead of adding to them.

use bevy::prelude::*;
use tracing::info;

use super::ShutDown;

/// Installs the handlers and the system that watches them.
pub(super) fn install(app: &mut App) {
    platform::install();
    app.add_systems(First, shut_down_on_signal);
}

fn shut_down_on_signal(mut already: Local<bool>, mut commands: Commands) {
    if let Some(signal) = platform::received()
        && !std::mem::replace(&mut *already, true)
    {
        info!("received {signal}: saving everybody before exiting");
        commands.trigger(ShutDown);
    }
}

#[cfg(unix)]
mod platform {
    #![expect(
        unsafe_code,
        reason = "only `sigaction` replaces a handler that somebody else installed"
    )]

    use std::sync::atomic::{AtomicI32, Ordering};

    use tracing::warn;

    static RECEIVED: AtomicI32 = AtomicI32::new(0);

    extern "C" fn remember(signal: libc::c_int) {
        // Nothing but an atomic store is safe to do in a signal handler.
        RECEIVED.store(signal, Ordering::Relaxed);
    }

    pub(super) fn install() {
        for signal in [libc::SIGINT, libc::SIGTERM] {
            // SAFETY: `action` is a plain C struct that is valid when zeroed; `remember` has the signature that goes
            // with flags without SA_SIGINFO and is async-signal-safe; the old action is not asked for.
            let result = unsafe {
                let mut action: libc::sigaction = std::mem::zeroed();
                let handler: extern "C" fn(libc::c_int) = remember;
                action.sa_sigaction = handler as usize;
                action.sa_flags = libc::SA_RESTART;
                libc::sigemptyset(&raw mut action.sa_mask);
                libc::sigaction(signal, &raw const action, std::ptr::null_mut())
            };
            if result != 0 {
                let error = std::io::Error::last_os_error();
                warn!("signal {signal} can't be handled, so it ends the server without saving: {error}");
            }
        }
    }

    pub(super) fn received() -> Option<&'static str> {
        match RECEIVED.load(Ordering::Relaxed) {
            0 => None,
            libc::SIGINT => Some("SIGINT"),
            _ => Some("SIGTERM"),
        }
    }
}

#[cfg(not(unix))]
mod platform {
    use std::sync::atomic::{AtomicBool, Ordering};

    use tracing::warn;

    static RECEIVED: AtomicBool = AtomicBool::new(false);

    pub(super) fn install() {
        // A thread of its own, since it waits for as long as the process lives.
        let spawned = std::thread::Builder::new().name("ctrl-c".to_owned()).spawn(|| {
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else {
                return;
            };
            while runtime.block_on(tokio::signal::ctrl_c()).is_ok() {
                RECEIVED.store(true, Ordering::Relaxed);
            }
        });
        if let Err(error) = spawned {
            warn!("ctrl-c can't be handled, so it ends the server without saving: {error}");
        }
    }

    pub(super) fn received() -> Option<&'static str> {
        RECEIVED.load(Ordering::Relaxed).then_some("ctrl-c")
    }
}
