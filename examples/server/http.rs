//! The server's HTTP side: logins and payment providers' callbacks, on a thread of its own.

use std::{net::TcpListener, thread};

use axum::Router;
use tracing::error;

/// Answers requests for as long as the process lives.
///
/// # Errors
/// When the system refuses to start the thread.
pub fn serve(listener: TcpListener, routes: Router) -> std::io::Result<()> {
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    thread::Builder::new().name("http".to_owned()).spawn(move || {
        let served = runtime.block_on(async {
            let listener = tokio::net::TcpListener::from_std(listener)?;
            axum::serve(listener, routes).await
        });
        if let Err(problem) = served {
            error!("nobody can log in or buy any more: {problem}");
        }
    })?;
    Ok(())
}
