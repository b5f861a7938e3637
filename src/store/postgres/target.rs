//! Where the database is and who we are there: the URL, and the environment for what it leaves out.
//!
//! The module owns the reading of both. It promises that nothing of a URL gets into an error text (any part of one that
//! is malformed may be a piece of the password), and that a [`Target`] shown to people has no password in it.

use std::{env, fmt, time::Duration};

use tokio_postgres::{
    Config,
    config::{Host, LoadBalanceHosts, SslMode, TargetSessionAttrs},
};

use super::{super::StoreError, tls};

/// What a URL looks like, for whoever gave something else.
const FORM: &str = "it looks like `postgres://user@host:5432/database?sslmode=require`, with several hosts as \
                    `host1:5432,host2:5432`; in a user or a password write special characters as `%` and two \
                    hexadecimal digits";

/// A database, as one configuration per host, in the order in which they are tried.
pub(super) struct Target {
    pub(super) hosts: Vec<Endpoint>,
    pub(super) in_any_order: bool,
    pub(super) tls: tls::Connector,
    /// For people.
    pub(super) database: String,
    pub(super) user: String,
}

/// One host.
pub(super) struct Endpoint {
    pub(super) config: Config,
    /// For people: host and port.
    pub(super) place: String,
}

impl Target {
    /// Reads a URL, with the environment for what it doesn't say.
    pub(super) fn from_url(url: &str, timeout: Duration) -> Result<Self, StoreError> {
        Self::read(url, timeout, |variable| {
            env::var(variable).ok().filter(|value| !value.is_empty())
        })
    }

    fn read(
        url: &str,
        timeout: Duration,
        variable: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, StoreError> {
        let malformed = || StoreError::rejected(format_args!("the database's URL can't be read: {FORM}"));
        if has_raw_at_sign(url) {
            return Err(malformed());
        }
        let (url, mut tls) = Tls::taken_from(url).ok_or_else(malformed)?;
        let mut config: Config = url.parse().map_err(|_| malformed())?;

        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            config.host(variable("PGHOST").unwrap_or_else(|| "localhost".to_owned()));
        }
        if config.get_ports().is_empty()
            && let Some(port) = variable("PGPORT").and_then(|port| port.parse().ok())
        {
            config.port(port);
        }
        if config.get_user().is_none() {
            let user = variable("PGUSER").or_else(|| variable("USER"));
            config.user(user.unwrap_or_else(|| "postgres".to_owned()));
        }
        if config.get_password().is_none()
            && let Some(password) = variable("PGPASSWORD")
        {
            config.password(password);
        }
        let user = config.get_user().unwrap_or_default().to_owned();
        if config.get_dbname().is_none() {
            config.dbname(variable("PGDATABASE").unwrap_or_else(|| user.clone()));
        }
        if config.get_application_name().is_none() {
            config.application_name("bevy_player_data");
        }
        if tls.mode.is_none() {
            let mode = variable("PGSSLMODE")
                .map(|mode| Mode::from_name(&mode).ok_or(mode))
                .transpose();
            tls.mode = mode.map_err(|mode| {
                StoreError::rejected(format_args!(
                    "`PGSSLMODE` is `{mode}`, which is no mode of TLS: say `disable`, `prefer` or `require`"
                ))
            })?;
        }
        if tls.root_certificates.is_none() {
            tls.root_certificates = variable("PGSSLROOTCERT");
        }
        Ok(Self {
            hosts: endpoints(&config, tls.mode.unwrap_or(Mode::Prefer), timeout)?,
            in_any_order: config.get_load_balance_hosts() == LoadBalanceHosts::Random,
            database: config.get_dbname().unwrap_or_default().to_owned(),
            user,
            tls: tls.connector()?,
        })
    }

    /// All places, for people.
    pub(super) fn places(&self) -> String {
        let places: Vec<_> = self.hosts.iter().map(|host| host.place.as_str()).collect();
        places.join(", ")
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the database `{}` at {}", self.database, self.places())
    }
}

/// Whether there is an `@` too many before the parameters: that of a password, what follows which would be taken for a
/// part of the host, and shown with that. A `?` before the first one is the password's as well.
fn has_raw_at_sign(url: &str) -> bool {
    let before_parameters = match (url.find('@'), url.find('?')) {
        (Some(at), Some(parameters)) if at < parameters => &url[..parameters],
        _ => url,
    };
    before_parameters.matches('@').count() > 1
}

/// A configuration of its own for each host, so that one which hangs can be left for the next.
fn endpoints(config: &Config, mode: Mode, timeout: Duration) -> Result<Vec<Endpoint>, StoreError> {
    let (hosts, addresses, ports) = (config.get_hosts(), config.get_hostaddrs(), config.get_ports());
    let count = hosts.len().max(addresses.len());
    if ports.len() > 1 && ports.len() != count {
        return Err(StoreError::rejected(format_args!(
            "the database's URL names {count} hosts and {} ports: give each host its port, as `host1:5432,host2:5432`",
            ports.len()
        )));
    }
    // Less than a second is nothing to the kernel.
    let seconds = timeout.max(Duration::from_secs(1));
    let endpoint = |index: usize| {
        let port = ports
            .get(index)
            .or_else(|| ports.first())
            .copied()
            .unwrap_or(5432);
        let mut single = Config::new();
        single
            .port(port)
            .target_session_attrs(TargetSessionAttrs::ReadWrite)
            .ssl_mode(mode.negotiated())
            .ssl_negotiation(config.get_ssl_negotiation())
            .channel_binding(config.get_channel_binding())
            .connect_timeout(config.get_connect_timeout().copied().unwrap_or(timeout))
            .tcp_user_timeout(config.get_tcp_user_timeout().copied().unwrap_or(timeout))
            .keepalives(config.get_keepalives())
            .keepalives_idle(config.get_keepalives_idle().min(seconds))
            .keepalives_interval(config.get_keepalives_interval().unwrap_or(seconds))
            .keepalives_retries(config.get_keepalives_retries().unwrap_or(3));
        let mut place = format!("port {port}");
        match hosts.get(index) {
            Some(Host::Tcp(host)) => {
                single.host(host);
                place = format!("`{host}:{port}`");
            }
            #[cfg(unix)]
            Some(Host::Unix(path)) => {
                single.host_path(path);
                place = format!("`{}`, port {port}", path.display());
            }
            None => {}
        }
        if let Some(&address) = addresses.get(index) {
            single.hostaddr(address);
            if hosts.get(index).is_none() {
                place = format!("`{address}:{port}`");
            }
        }
        if let Some(user) = config.get_user() {
            single.user(user);
        }
        if let Some(password) = config.get_password() {
            single.password(password);
        }
        if let Some(database) = config.get_dbname() {
            single.dbname(database);
        }
        if let Some(options) = config.get_options() {
            single.options(options);
        }
        if let Some(name) = config.get_application_name() {
            single.application_name(name);
        }
        Endpoint {
            config: single,
            place,
        }
    };
    Ok((0..count).map(endpoint).collect())
}

/// How TLS is used, as libpq spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Disable,
    Prefer,
    /// Verified: chain and name. libpq's `require` would take any certificate.
    Require,
}

impl Mode {
    fn from_name(name: &str) -> Option<Self> {
        match name {
            "disable" | "allow" => Some(Self::Disable),
            "prefer" => Some(Self::Prefer),
            "require" | "verify-ca" | "verify-full" => Some(Self::Require),
            _ => None,
        }
    }

    const fn negotiated(self) -> SslMode {
        match self {
            Self::Disable => SslMode::Disable,
            Self::Prefer => SslMode::Prefer,
            Self::Require => SslMode::Require,
        }
    }
}

/// The options about TLS, which `tokio-postgres` doesn't know.
#[derive(Default)]
struct Tls {
    mode: Option<Mode>,
    root_certificates: Option<String>,
}

impl Tls {
    /// Takes them out of a URL. `None` when their values make no sense.
    fn taken_from(url: &str) -> Option<(String, Self)> {
        let mut taken = Self::default();
        let Some((base, query)) = url.split_once('?') else {
            return Some((url.to_owned(), taken));
        };
        let mut left = Vec::new();
        for option in query.split('&') {
            match option.split_once('=') {
                Some(("sslmode", mode)) => taken.mode = Some(Mode::from_name(mode)?),
                Some(("sslrootcert", path)) => taken.root_certificates = Some(percent_decoded(path)?),
                _ => left.push(option),
            }
        }
        let mut url = base.to_owned();
        if !left.is_empty() {
            url = format!("{base}?{}", left.join("&"));
        }
        Some((url, taken))
    }

    fn connector(self) -> Result<tls::Connector, StoreError> {
        match self.mode.unwrap_or(Mode::Prefer) {
            Mode::Disable => Ok(tls::Connector::none()),
            Mode::Prefer => tls::Connector::encrypting(),
            Mode::Require => tls::Connector::verifying(self.root_certificates.as_deref()),
        }
    }
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = [rest.next()?, rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(4);

    fn read(url: &str, environment: &[(&str, &str)]) -> Result<Target, StoreError> {
        Target::read(url, TIMEOUT, |variable| {
            let found = environment.iter().find(|(name, _)| *name == variable);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    #[test]
    fn what_the_url_leaves_out_comes_from_the_environment() {
        let environment = [
            ("PGHOST", "elsewhere"),
            ("PGPORT", "7777"),
            ("PGUSER", "ada"),
            ("PGPASSWORD", "secret"),
            ("PGDATABASE", "game"),
        ];
        let target = read("postgres://", &environment).unwrap();
        assert_eq!(target.to_string(), "the database `game` at `elsewhere:7777`");
        assert_eq!(target.user, "ada");
        assert_eq!(target.hosts[0].config.get_password(), Some(b"secret".as_slice()));

        let target = read("postgres://bob:pw@here:1/other", &environment).unwrap();
        assert_eq!(target.to_string(), "the database `other` at `here:1`");
        assert_eq!(target.user, "bob");
        assert_eq!(target.hosts[0].config.get_password(), Some(b"pw".as_slice()));
    }

    #[test]
    fn each_host_is_asked_by_itself_and_only_one_that_takes_writes_will_do() {
        let target = read("postgres://a,b:6000,c/game?target_session_attrs=any", &[]).unwrap();
        assert_eq!(target.places(), "`a:5432`, `b:6000`, `c:5432`");
        for endpoint in &target.hosts {
            assert_eq!(
                endpoint.config.get_target_session_attrs(),
                TargetSessionAttrs::ReadWrite
            );
            assert_eq!(endpoint.config.get_hosts().len(), 1);
            assert_eq!(endpoint.config.get_connect_timeout(), Some(&TIMEOUT));
        }
    }

    #[test]
    fn a_malformed_url_is_not_quoted_because_any_of_it_may_be_the_password() {
        for url in [
            "postgres://ada:hunter2@host:port/game",
            "postgres://ada:hun?ter2@host/game",
            "postgres://ada@host/game?hunter2=x",
            "postgres://ada:%ZZhunter2@host/game",
            "hunter2",
            "postgres://ada@host/game?sslmode=hunter2",
            "postgres://ada@host:1,other:2,third/game?port=3,4&password=hunter2",
        ] {
            if let Err(error) = read(url, &[]) {
                let text = format!("{error} {error:?}");
                assert!(!text.contains("hunter2") && !text.contains("ter2"), "{text}");
                assert!(matches!(error, StoreError::Rejected { .. }), "{error}");
            }
        }
        assert!(read("postgres://ada@host/game?hunter2=x", &[]).is_err());
    }

    #[test]
    fn a_password_with_a_raw_at_sign_is_never_taken_for_a_host() {
        for url in [
            "postgres://ada:one@hunter2@host/game",
            "postgres://ada:one@hunter2/two@host/game",
            "postgres://ada:one?two@hunter2@host/game",
            "postgres://ada:one?two@hunter2/three@host/game",
            "postgres://ada:one?two@hunter2@host/game?sslmode=disable",
        ] {
            match read(url, &[]) {
                Err(error) => {
                    assert!(!error.to_string().contains("hunter2"), "{error}");
                    assert!(error.to_string().contains('%'), "what to do: {error}");
                }
                Ok(target) => panic!("{url} is {target}"),
            }
        }
        // Written as it has to be, and where it is no password's.
        let target = read("postgres://ada:one%40two@host/game?application_name=a@b", &[]).unwrap();
        assert_eq!(target.hosts[0].config.get_password(), Some(b"one@two".as_slice()));
    }

    #[test]
    fn a_mode_of_tls_that_nobody_knows_is_not_passed_over() {
        let refused = read("postgres://host", &[("PGSSLMODE", "always")])
            .map(drop)
            .unwrap_err();
        assert!(matches!(refused, StoreError::Rejected { .. }), "{refused}");
        let text = refused.to_string();
        assert!(
            text.contains("`PGSSLMODE` is `always`") && text.contains("`require`"),
            "{text}"
        );
        // The URL decides, where it does.
        assert!(read("postgres://host?sslmode=disable", &[("PGSSLMODE", "always")]).is_ok());
    }

    #[test]
    fn a_target_that_is_shown_has_no_password_in_it() {
        let target = read("postgres://ada:hunter2@host/game", &[]).unwrap();
        assert!(!target.to_string().contains("hunter2"));
        assert!(!format!("{:?}", target.hosts[0].config).contains("hunter2"));
    }

    #[test]
    fn the_options_about_tls_are_understood_and_those_of_the_driver_left_alone() {
        let (url, tls) = Tls::taken_from(
            "postgres://h/d?sslmode=verify-full&connect_timeout=3&sslrootcert=%2Fetc%2Fca.pem",
        )
        .unwrap();
        assert_eq!(url, "postgres://h/d?connect_timeout=3");
        assert_eq!(tls.mode, Some(Mode::Require));
        assert_eq!(tls.root_certificates.as_deref(), Some("/etc/ca.pem"));
        assert!(Tls::taken_from("postgres://h/d?sslmode=sometimes").is_none());
    }
}
