//! `POST /login`: hands out connect tokens to whoever has a name.
//!
//! This stands where a real game checks a password or a platform's ticket. It shares nothing with the game but the
//! secret key, which is new in every process and never leaves it.

use std::net::SocketAddr;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{DefaultBodyLimit, State, rejection::BytesRejection},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::post,
};
use base64::{Engine, prelude::BASE64_STANDARD};
use bevy_player_data::PlayerId;
use bevy_renet::netcode::{
    ConnectToken, NETCODE_KEY_BYTES, NETCODE_USER_DATA_BYTES, TokenGenerationError, generate_random_bytes,
};
use tracing::error;

use crate::{
    account::{NAME_LIMIT, player_named},
    game::{
        login::{LoginGranted, LoginRefused, LoginRequest},
        net,
    },
};

/// Tells this game's packets from others'. Change it whenever the game's messages do.
pub const PROTOCOL_ID: u64 = 0x636f_696e_7275_7369;

/// The longest body of a request, in bytes.
const BODY_LIMIT: usize = 1024;
/// Where in a token's user data the name begins, after the player's id: one byte for its length, then the name.
const NAME_AT: usize = NETCODE_USER_DATA_BYTES - 1 - NAME_LIMIT;
/// For how long a token can be used to connect, in seconds.
const TOKEN_VALID: u64 = 30;
/// After how long without a packet a client counts as gone, in seconds.
const CONNECTION_TIMEOUT: i32 = 10;

/// Makes connect tokens for one game server.
#[derive(Clone)]
pub struct Issuer {
    server: SocketAddr,
    key: [u8; NETCODE_KEY_BYTES],
}

impl Issuer {
    /// For the game server at this address, with a key that nobody else has.
    pub fn new(server: SocketAddr) -> Self {
        Self {
            server,
            key: generate_random_bytes(),
        }
    }

    /// The secret that the game server checks tokens with.
    pub const fn key(&self) -> [u8; NETCODE_KEY_BYTES] {
        self.key
    }

    fn token(&self, player: PlayerId, name: &str) -> Result<ConnectToken, TokenGenerationError> {
        // Not derived from the player: the next login of the same player is another connection.
        let client_id = u64::from_le_bytes(generate_random_bytes());
        ConnectToken::generate(
            net::since_1970(),
            PROTOCOL_ID,
            TOKEN_VALID,
            client_id,
            CONNECTION_TIMEOUT,
            vec![self.server],
            Some(&user_data(player, name)),
            &self.key,
        )
    }
}

/// What the token says about its bearer: the id, for `bevy_player_data`, and the name, for this game.
fn user_data(player: PlayerId, name: &str) -> [u8; NETCODE_USER_DATA_BYTES] {
    let mut data = player.to_user_data();
    let name = &name.as_bytes()[..name.len().min(NAME_LIMIT)];
    data[NAME_AT] = name.len() as u8;
    data[NAME_AT + 1..][..name.len()].copy_from_slice(name);
    data
}

/// The name in a connected client's user data.
pub fn name_in(user_data: &[u8; NETCODE_USER_DATA_BYTES]) -> Option<&str> {
    let (&length, rest) = user_data.get(NAME_AT..)?.split_first()?;
    std::str::from_utf8(rest.get(..usize::from(length))?).ok()
}

/// The route of logins.
pub fn routes(issuer: Issuer) -> Router {
    Router::new()
        .route("/login", post(log_in))
        .layer(DefaultBodyLimit::max(BODY_LIMIT))
        .with_state(issuer)
}

async fn log_in(State(issuer): State<Issuer>, body: Result<Bytes, BytesRejection>) -> Response {
    let body = match body {
        Ok(body) => body,
        Err(rejection) => return refuse(rejection.status(), rejection.body_text()),
    };
    let name = match serde_json::from_slice(&body) {
        Ok(LoginRequest { name }) => name,
        Err(problem) => {
            return refuse(
                StatusCode::BAD_REQUEST,
                format!("the body is no login request: {problem}"),
            );
        }
    };
    let player = match player_named(&name) {
        Ok(player) => player,
        Err(problem) => return refuse(StatusCode::UNPROCESSABLE_ENTITY, problem),
    };
    match issuer.token(player, &name) {
        Ok(token) => {
            let granted = LoginGranted {
                player_id: player.to_string(),
                connect_token: in_base64(&token),
            };
            Json(granted).into_response()
        }
        Err(problem) => {
            error!("no connect token can be made: {problem}");
            refuse(StatusCode::INTERNAL_SERVER_ERROR, "try again later".to_owned())
        }
    }
}

fn in_base64(token: &ConnectToken) -> String {
    let mut bytes = Vec::new();
    token.write(&mut bytes).expect("a `Vec` takes everything");
    BASE64_STANDARD.encode(bytes)
}

fn refuse(status: StatusCode, error: String) -> Response {
    (status, Json(LoginRefused { error })).into_response()
}
