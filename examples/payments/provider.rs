//! A payment provider as the server sees it: signed callbacks over HTTP, repeated until they are taken.

use std::{
    fmt,
    io::{self, Write},
    net::{Shutdown, TcpStream},
    time::Duration,
};

use super::{
    callback::{Callback, NotTaken, PATH, Taken},
    secret::Secret,
};

/// How long the server may take. Longer than the server waits for its store.
const TIMEOUT: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes.
const ANSWER_LIMIT: u64 = 16 * 1024;

/// Calls one server back.
pub struct Provider {
    agent: ureq::Agent,
    host: String,
    secret: Secret,
}

/// What came of one attempt.
#[derive(Debug)]
pub enum Answer {
    /// The server has it for good.
    Taken(Taken),
    /// The server can't take it now.
    Later {
        status: u16,
        error: String,
        /// How long the server wants to be left alone, if it says so.
        pause: Option<Duration>,
    },
    /// Nobody knows whether the server has it.
    Silence { reason: String },
    /// The server will never take it.
    Refused { status: u16, error: String },
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Taken(Taken { is_new: true, state }) => write!(f, "taken, now {state}"),
            Self::Taken(Taken { is_new: false, state }) => write!(f, "known already, {state}"),
            Self::Later { status, error, .. } | Self::Refused { status, error } => {
                write!(f, "{status}, {error}")
            }
            Self::Silence { reason } => f.write_str(reason),
        }
    }
}

impl Provider {
    /// Calls back the server at an address like `http://127.0.0.1:8080`.
    ///
    /// # Errors
    /// When that is no such address.
    pub fn new(server: &str, secret: Secret) -> Result<Self, String> {
        let host = server
            .strip_prefix("http://")
            .map(|host| host.trim_end_matches('/'))
            .filter(|host| !host.is_empty() && !host.contains('/'))
            .ok_or_else(|| format!("`{server}` is no address like http://127.0.0.1:8080"))?;
        let agent = ureq::Agent::config_builder()
            .timeout_global(Some(TIMEOUT))
            .http_status_as_error(false)
            .proxy(None)
            .build();
        Ok(Self {
            agent: agent.into(),
            host: host.to_owned(),
            secret,
        })
    }

    /// Delivers a callback once. `message` is its id among all callbacks, the same in each repetition.
    pub fn deliver(&self, message: &str, callback: &Callback) -> Answer {
        let body = body_of(callback);
        let mut request = self
            .agent
            .post(format!("http://{}{PATH}", self.host))
            .header("content-type", "application/json");
        for (name, value) in self.secret.sign(message, &body) {
            request = request.header(name, value);
        }
        let mut answer = match request.send(&body) {
            Ok(answer) => answer,
            Err(reason) => return self.silence(&reason),
        };
        let pause = answer
            .headers()
            .get("retry-after")
            .and_then(|seconds| seconds.to_str().ok()?.parse().ok());
        let status = answer.status().as_u16();
        match answer.body_mut().with_config().limit(ANSWER_LIMIT).read_to_vec() {
            Ok(body) => understand(status, pause.map(Duration::from_secs), &body),
            Err(reason) => self.silence(&reason),
        }
    }

    /// Delivers a callback once, and hangs up without waiting for the answer.
    ///
    /// # Errors
    /// When the server can't be reached.
    pub fn deliver_and_hang_up(&self, message: &str, callback: &Callback) -> io::Result<()> {
        let body = body_of(callback);
        let mut request = format!("POST {PATH} HTTP/1.1\r\nhost: {}\r\n", self.host);
        for (name, value) in self.secret.sign(message, &body) {
            request.push_str(&format!("{name}: {value}\r\n"));
        }
        request.push_str(&format!("content-length: {}\r\n\r\n{body}", body.len()));
        let mut stream = TcpStream::connect(&self.host)?;
        stream.set_write_timeout(Some(TIMEOUT))?;
        stream.write_all(request.as_bytes())?;
        stream.shutdown(Shutdown::Both)
    }

    fn silence(&self, reason: &ureq::Error) -> Answer {
        Answer::Silence {
            reason: format!("http://{} doesn't answer ({reason})", self.host),
        }
    }
}

fn body_of(callback: &Callback) -> String {
    serde_json::to_string(callback).expect("a callback has a form in JSON")
}

fn understand(status: u16, pause: Option<Duration>, body: &[u8]) -> Answer {
    if (200..300).contains(&status) {
        return match serde_json::from_slice(body) {
            Ok(taken) => Answer::Taken(taken),
            Err(_) => Answer::Refused {
                status,
                error: "the answer makes no sense: is it a Coin Rush server?".to_owned(),
            },
        };
    }
    let error = serde_json::from_slice(body).map_or_else(
        |_| String::from_utf8_lossy(body).into_owned(),
        |NotTaken { error }| error,
    );
    match status {
        408 | 425 | 429 | 500.. => Answer::Later { status, error, pause },
        _ => Answer::Refused { status, error },
    }
}
