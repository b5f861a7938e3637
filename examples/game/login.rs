//! Logging in: from a name to a connect token, over HTTP.
//!
//! The token says which player its bearer is, sealed with a key that only the server has; the game connection itself
//! trusts nothing else. A real game asks for more than a name here (a password, a platform's session ticket) and runs
//! the service behind TLS.

use base64::{Engine, prelude::BASE64_STANDARD};
use bevy_renet::netcode::ConnectToken;
use serde::{Deserialize, Serialize};

use super::web;

/// The longest answer that is read, in bytes; a token takes some 3,000.
const ANSWER_LIMIT: u64 = 16 * 1024;

/// The body of `POST /login`.
#[derive(Serialize, Deserialize)]
pub struct LoginRequest {
    pub name: String,
}

/// The answer to somebody who may play.
#[derive(Serialize, Deserialize)]
pub struct LoginGranted {
    pub player_id: String,
    /// A netcode connect token, in base64. Whoever has it is the player: never log it.
    pub connect_token: String,
}

/// The answer to everybody else.
#[derive(Serialize, Deserialize)]
pub struct LoginRefused {
    pub error: String,
}

/// The login service, seen from a client.
pub struct LoginService {
    agent: ureq::Agent,
    url: String,
}

/// Why there is no connect token.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    #[error("{url} doesn't answer ({reason}): is the server running there?")]
    NoAnswer { url: String, reason: ureq::Error },
    #[error("the server refuses the login: {reason}")]
    Refused { reason: String },
    #[error("{url} gives an answer that makes no sense: is it a Coin Rush server?")]
    Nonsense { url: String },
}

impl LoginService {
    /// The service of the server at an address like `http://127.0.0.1:8080`.
    pub fn new(server: &str) -> Self {
        Self {
            agent: web::agent(),
            url: format!("{}/login", server.trim_end_matches('/')),
        }
    }

    /// Asks for a connect token. Blocks for up to 5 s.
    pub fn log_in(&self, name: &str) -> Result<ConnectToken, LoginError> {
        let request = LoginRequest {
            name: name.to_owned(),
        };
        let mut answer =
            self.agent
                .post(&self.url)
                .send_json(&request)
                .map_err(|reason| LoginError::NoAnswer {
                    url: self.url.clone(),
                    reason,
                })?;
        let is_granted = answer.status().is_success();
        let body = answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec();
        let body = body.map_err(|reason| LoginError::NoAnswer {
            url: self.url.clone(),
            reason,
        })?;
        let understood = if is_granted {
            read_token(&body).map(Ok)
        } else {
            read_refusal(&body).map(Err)
        };
        understood.ok_or_else(|| LoginError::Nonsense {
            url: self.url.clone(),
        })?
    }
}

fn read_token(body: &[u8]) -> Option<ConnectToken> {
    let granted: LoginGranted = serde_json::from_slice(body).ok()?;
    let token = BASE64_STANDARD.decode(granted.connect_token).ok()?;
    ConnectToken::read(&mut token.as_slice()).ok()
}

fn read_refusal(body: &[u8]) -> Option<LoginError> {
    let LoginRefused { error } = serde_json::from_slice(body).ok()?;
    Some(LoginError::Refused { reason: error })
}
