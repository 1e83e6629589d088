//! Where Redis is and how to log in.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use ::redis::{
    Client, ClientTlsConfig, ConnectionAddr, IntoConnectionInfo, ProtocolVersion,
    RedisConnectionInfo, TlsCertificates,
};

use super::address::Address;
use super::error::RedisError;
use super::observe::Observer;

/// How long one call may take, retries included.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);
const DEFAULT_PREFIX: &str = "kiln";
const MAX_PREFIX: usize = 64;

/// A password: never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(secret: impl Into<String>) -> Self {
        Self(secret.into())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Files in PEM.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TlsFiles {
    /// Certificate authorities to trust. Default: the system's.
    pub ca: Option<PathBuf>,
    /// The client's certificate chain and private key.
    pub client: Option<(PathBuf, PathBuf)>,
}

#[derive(Clone)]
pub struct RedisConfig {
    /// The server, or some of the nodes of a cluster: they name the others.
    pub addresses: Vec<Address>,
    /// It must be a cluster. A cluster is found out without this too.
    pub cluster: bool,
    /// `rediss://`.
    pub tls: Option<TlsFiles>,
    pub username: Option<String>,
    pub password: Option<Secret>,
    pub database: u16,
    /// All keys and channels begin with it. Letters, digits and `-_.:`.
    pub prefix: String,
    /// Within this a call ends, retries included.
    pub timeout: Duration,
    /// How long [`super::Redis::connect`] waits for a server that does not answer yet.
    pub wait: Duration,
    pub observer: Option<Arc<dyn Observer>>,
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let addresses: Vec<_> = self.addresses.iter().map(Address::to_string).collect();
        f.debug_struct("RedisConfig")
            .field("addresses", &addresses)
            .field("cluster", &self.cluster)
            .field("tls", &self.tls)
            .field("username", &self.username)
            .field("password", &self.password)
            .field("database", &self.database)
            .field("prefix", &self.prefix)
            .field("timeout", &self.timeout)
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}

impl RedisConfig {
    /// `redis://[[user]:password@]host[:port][,host[:port]...][/database][?cluster=true]`;
    /// `rediss` for TLS; `redis+cluster` and `rediss+cluster` for a cluster. User and password
    /// are percent-encoded.
    pub fn from_url(url: &str) -> Result<Self, RedisError> {
        // What stands before the address may be a password: no message repeats it.
        let shown = url.rsplit_once('@').map_or(url, |(_, rest)| rest);
        let invalid = |why: &str| {
            let form = "redis://[[user]:password@]host[:port][/database]";
            RedisError::Config(format!("the Redis URL (…{shown}): {why}; the form is {form}"))
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(|| invalid("it has no scheme"))?;
        let (tls, cluster) = match scheme {
            "redis" => (false, false),
            "rediss" => (true, false),
            "redis+cluster" | "redis-cluster" => (false, true),
            "rediss+cluster" | "rediss-cluster" => (true, true),
            _ => return Err(invalid("its scheme is none of redis, rediss, redis+cluster")),
        };
        let (login, rest) = match rest.rsplit_once('@') {
            Some((login, rest)) => (Some(login), rest),
            None => (None, rest),
        };
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, database) = rest.split_once('/').unwrap_or((rest, ""));
        let addresses: Option<Vec<_>> = hosts.split(',').map(Address::parse).collect();
        let addresses = addresses.ok_or_else(|| invalid("it names no host, or a wrong port"))?;
        let mut config = Self { cluster, ..Self::at(addresses) };
        if tls {
            config.tls = Some(TlsFiles::default());
        }
        if !database.is_empty() {
            config.database = database.parse().map_err(|_| invalid("a database is a number"))?;
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            config.cluster = match pair {
                "cluster=true" => true,
                "cluster=false" => false,
                _ => return Err(invalid("its query may only be cluster=true")),
            };
        }
        if let Some(login) = login {
            let (user, password) = login.split_once(':').unwrap_or((login, ""));
            let part = |text: &str| match text {
                "" => Ok(None),
                text => kiln_net::urls::decoded(text).map(Some).ok_or_else(|| {
                    invalid("the user or the password is not percent-encoded UTF-8")
                }),
            };
            config.username = part(user)?;
            config.password = part(password)?.map(Secret);
        }
        if config.addresses.len() > 1 && !config.cluster {
            return Err(invalid("several hosts make a cluster, written redis+cluster://"));
        }
        Ok(config)
    }

    fn at(addresses: Vec<Address>) -> Self {
        Self {
            addresses,
            cluster: false,
            tls: None,
            username: None,
            password: None,
            database: 0,
            prefix: DEFAULT_PREFIX.to_owned(),
            timeout: DEFAULT_TIMEOUT,
            wait: Duration::ZERO,
            observer: None,
        }
    }

    /// The password is the file's first line.
    pub fn with_password_file(mut self, path: &Path) -> Result<Self, RedisError> {
        let text = read(path, "password file")?;
        let text = String::from_utf8_lossy(&text);
        self.password = Some(Secret::new(text.lines().next().unwrap_or_default()));
        Ok(self)
    }

    /// The password is in this environment variable; when it is not set, nothing changes.
    pub fn with_password_variable(mut self, name: &str) -> Self {
        if let Ok(password) = std::env::var(name) {
            self.password = Some(Secret(password));
        }
        self
    }

    pub(super) fn validate(&self) -> Result<(), RedisError> {
        let allowed = |c: char| c.is_ascii_alphanumeric() || "-_.:".contains(c);
        let prefix = &self.prefix;
        if prefix.is_empty() || prefix.len() > MAX_PREFIX || !prefix.chars().all(allowed) {
            return Err(RedisError::Config(format!(
                "the Redis key prefix {prefix:?}: 1 to {MAX_PREFIX} letters, digits and -_.: are allowed"
            )));
        }
        if self.addresses.is_empty() {
            return Err(RedisError::Config("no Redis address is configured".to_owned()));
        }
        if self.cluster && self.database != 0 {
            let database = self.database;
            return Err(RedisError::Config(format!(
                "Redis database {database}: a cluster has database 0 alone"
            )));
        }
        if self.timeout.is_zero() {
            return Err(RedisError::Config("the Redis timeout is zero".to_owned()));
        }
        Ok(())
    }

    /// Opens no connection yet.
    pub(super) fn client(
        &self,
        address: &Address,
        protocol: ProtocolVersion,
        certificates: Option<&TlsCertificates>,
    ) -> Result<Client, RedisError> {
        let mut login =
            RedisConnectionInfo::default().set_db(i64::from(self.database)).set_protocol(protocol);
        if let Some(username) = &self.username {
            login = login.set_username(username);
        }
        if let Some(Secret(password)) = &self.password {
            login = login.set_password(password);
        }
        let (host, port) = (address.host.clone(), address.port);
        let tcp = ::redis::io::tcp::TcpSettings::default().set_nodelay(true);
        let info = |address: ConnectionAddr| {
            let info = address.into_connection_info()?;
            Ok(info.set_redis_settings(login).set_tcp_settings(tcp))
        };
        let client = match certificates {
            None => info(ConnectionAddr::Tcp(host, port)).and_then(Client::open),
            Some(certificates) => {
                let tls = ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None };
                info(tls).and_then(|info| Client::build_with_tls(info, certificates.clone()))
            }
        };
        client.map_err(|error: ::redis::RedisError| {
            RedisError::Config(format!("Redis at {address}: {error}"))
        })
    }
}

impl TlsFiles {
    pub(super) fn read(&self) -> Result<TlsCertificates, RedisError> {
        let root_cert = self.ca.as_deref().map(|path| read(path, "CA file")).transpose()?;
        let client_tls = match &self.client {
            None => None,
            Some((certificate, key)) => Some(ClientTlsConfig {
                client_cert: read(certificate, "client certificate")?,
                client_key: read(key, "client key")?,
            }),
        };
        Ok(TlsCertificates { client_tls, root_cert })
    }
}

fn read(path: &Path, what: &str) -> Result<Vec<u8>, RedisError> {
    kiln_net::files::read(path).map_err(|error| {
        RedisError::Config(format!("the {what} for Redis, {}: {error}", path.display()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(url: &str) -> RedisConfig {
        RedisConfig::from_url(url).unwrap()
    }

    #[test]
    fn urls_name_servers_logins_and_databases() {
        let config = parse("redis://localhost");
        assert_eq!(config.addresses[0].to_string(), "localhost:6379");
        assert_eq!((config.database, config.cluster, config.tls), (0, false, None));
        let config = parse("rediss://ki%40ln:p%2Fw@[::1]:7000/3");
        assert_eq!(config.addresses[0].to_string(), "[::1]:7000");
        assert_eq!(config.username.as_deref(), Some("ki@ln"));
        assert_eq!(config.password, Some(Secret::new("p/w")));
        assert_eq!((config.database, config.tls.is_some()), (3, true));
        let config = parse("redis://:only@h/");
        assert_eq!((config.username, config.password), (None, Some(Secret::new("only"))));
        for url in [
            "redis+cluster://a,b:7001/",
            "redis-cluster://a,b:7001",
            "redis://a,b:7001?cluster=true",
        ] {
            let config = parse(url);
            assert!(config.cluster, "{url}");
            let addresses: Vec<_> = config.addresses.iter().map(Address::to_string).collect();
            assert_eq!(addresses, ["a:6379", "b:7001"]);
        }
    }

    #[test]
    fn wrong_urls_are_refused_without_showing_the_password() {
        for url in [
            "localhost:6379",
            "http://:hidden@h",
            "redis://:hidden@",
            "redis://:hidden@h:99999",
            "redis://:hidden@h/x",
            "redis://:hidden@h?protocol=3",
            "redis://:hid%den@h",
            "redis://:hidden@a,b",
        ] {
            let error = RedisConfig::from_url(url).unwrap_err().to_string();
            assert!(!error.contains("hid"), "{error}");
            assert!(error.contains("the form is"), "{error}");
        }
    }

    #[test]
    fn passwords_come_from_files_and_are_never_printed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("password");
        assert!(parse("redis://h").with_password_file(&path).is_err());
        std::fs::write(&path, "hidden\n").unwrap();
        let config = parse("redis://h").with_password_file(&path).unwrap();
        assert_eq!(config.password, Some(Secret::new("hidden")));
        assert!(!format!("{config:?}").contains("hidden"));
        assert_eq!(
            config.with_password_variable("KILN_NOT_SET").password,
            Some(Secret::new("hidden"))
        );
    }

    #[test]
    fn prefixes_are_checked() {
        for (prefix, fine) in [("kiln", true), ("team-a:kiln", true), ("", false), ("{a}", false)] {
            let config = RedisConfig { prefix: prefix.to_owned(), ..parse("redis://h") };
            assert_eq!(config.validate().is_ok(), fine, "{prefix}");
        }
    }
}
