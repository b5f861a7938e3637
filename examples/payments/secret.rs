//! The secret that a server shares with its payment provider, and the signatures that are made with it.
//!
//! They follow the Standard Webhooks specification, which many providers speak: three headers name the message, the time
//! and the signature over both and the body.

use std::{
    fmt,
    str::FromStr,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, prelude::BASE64_STANDARD};
use standardwebhooks::{HEADER_WEBHOOK_ID, HEADER_WEBHOOK_SIGNATURE, HEADER_WEBHOOK_TIMESTAMP, Webhook};

/// What a secret begins with when it is written down.
const PREFIX: &str = "whsec_";
/// How many bytes a secret has, as the specification wants it.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;
/// The environment variable that holds it, so that it need not be on a command line for everybody to see.
pub const VARIABLE: &str = "WEBHOOK_SECRET";

/// A secret that callbacks are signed with.
#[derive(Clone)]
pub struct Secret {
    /// What signs with it, and checks.
    pub webhook: Arc<Webhook>,
}

/// A text that is no secret. It isn't repeated here, since it may nearly be one.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error(
    "is no webhook secret: give `whsec_` and 24 to 64 random bytes in base64, as the payment provider shows it"
)]
pub struct NoSecret;

impl FromStr for Secret {
    type Err = NoSecret;

    fn from_str(text: &str) -> Result<Self, NoSecret> {
        let key = text.strip_prefix(PREFIX).ok_or(NoSecret)?;
        let key = BASE64_STANDARD.decode(key).map_err(|_| NoSecret)?;
        if !LENGTH.contains(&key.len()) {
            return Err(NoSecret);
        }
        let webhook = Webhook::from_bytes(key).map_err(|_| NoSecret)?;
        Ok(Self {
            webhook: Arc::new(webhook),
        })
    }
}

impl Secret {
    /// The secret that an option gives or else the environment, if either does.
    ///
    /// # Errors
    /// Which of the two is no secret.
    pub fn given(option: Option<&str>) -> Result<Option<Self>, String> {
        if let Some(text) = option {
            let secret = text.parse();
            return secret
                .map(Some)
                .map_err(|problem: NoSecret| format!("what the option gives {problem}"));
        }
        let Some(text) = std::env::var_os(VARIABLE) else {
            return Ok(None);
        };
        let secret = text.to_str().ok_or(NoSecret).and_then(str::parse);
        secret
            .map(Some)
            .map_err(|problem| format!("the environment variable `{VARIABLE}` {problem}"))
    }

    /// The headers of a message with this id and body, sent now.
    pub fn sign(&self, id: &str, body: &str) -> [(&'static str, String); 3] {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = now.as_secs().cast_signed();
        let signature = self
            .webhook
            .sign(id, now, body.as_bytes())
            .expect("a text can be signed");
        [
            (HEADER_WEBHOOK_ID, id.to_owned()),
            (HEADER_WEBHOOK_TIMESTAMP, now.to_string()),
            (HEADER_WEBHOOK_SIGNATURE, signature),
        ]
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
}
