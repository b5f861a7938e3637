//! How a client asks a server's web services.

use std::time::Duration;

/// How long a service may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Sends requests, each of which blocks for up to 5 s, and takes a refusal for an answer.
pub fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .timeout_global(Some(TIMEOUT))
        .http_status_as_error(false)
        // Game servers are reached directly: the UDP packets are no different.
        .proxy(None)
        .build()
        .into()
}
