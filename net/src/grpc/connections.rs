//! Connections to one server, or to the frontends of one fleet.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use super::connector::connector;
use super::token::{Authorization, Token};
use crate::tls::{FileError, TlsFiles, client_config};

/// HTTP/2 connections to one server: one alone is served by one thread at either end.
const CONNECTIONS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that does not answer within both together is dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message accepted from a server, in bytes.
pub const MAX_MESSAGE: usize = 16 << 20;

/// What a client shows to a server, and whom it trusts.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    pub tls: TlsFiles,
    pub token: Option<Token>,
}

#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    #[error(
        "the server URL {url:?} is not usable: {reason}; write it as grpc://HOST:PORT, or \
         grpcs://HOST:PORT for TLS"
    )]
    Url { url: String, reason: String },
    #[error(transparent)]
    Tls(#[from] FileError),
}

/// A connection that says who calls.
pub type Connection = InterceptedService<Channel, Authorization>;

/// Connections to one server at a time, made when they are first needed. Where several addresses
/// of it are known (frontends of one fleet), the next one is used when one is not heard. Cheap to
/// clone; clones agree on the address.
#[derive(Clone)]
pub struct Connections {
    addresses: Arc<[Address]>,
    current: Arc<AtomicUsize>,
    authorization: Authorization,
    patience: Duration,
}

struct Address {
    url: String,
    channels: Vec<Channel>,
    next: AtomicUsize,
}

/// `http://HOST:PORT` or `https://HOST:PORT` for a server as users name it, and whether it is
/// the latter: `grpc` and `grpcs` mean the same as `http` and `https`, which may be left out.
pub fn address(url: &str) -> Result<(String, bool), AddressError> {
    let failed = |reason| AddressError::Url { url: url.to_owned(), reason };
    match url.split_once("://") {
        Some(("grpc" | "http", rest)) => Ok((format!("http://{rest}"), false)),
        Some(("grpcs" | "https", rest)) => Ok((format!("https://{rest}"), true)),
        Some((scheme, _)) => Err(failed(format!("{scheme}:// is not supported"))),
        None => Ok((format!("http://{url}"), false)),
    }
}

impl Connections {
    /// `url` as for [`address`]. Needs a tokio runtime.
    pub fn new(url: &str) -> Result<Self, AddressError> {
        Self::with(url, &Credentials::default())
    }

    pub fn with(url: &str, credentials: &Credentials) -> Result<Self, AddressError> {
        Self::with_all(&[url], credentials)
    }

    /// `urls`: of one server or fleet, in the order in which they are tried; at least one.
    pub fn with_all(
        urls: &[impl AsRef<str>],
        credentials: &Credentials,
    ) -> Result<Self, AddressError> {
        let addresses = urls.iter().map(|url| Address::new(url.as_ref(), credentials));
        let addresses = addresses.collect::<Result<Arc<[_]>, _>>()?;
        if addresses.is_empty() {
            let reason = "there is none".to_owned();
            return Err(AddressError::Url { url: String::new(), reason });
        }
        Ok(Self {
            addresses,
            current: Arc::default(),
            authorization: Authorization(credentials.token.clone()),
            patience: Duration::ZERO,
        })
    }

    /// Calls are repeated for so long while the server is not heard; without, for some seconds.
    #[must_use]
    pub fn patient(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// How long calls are repeated while the server is not heard.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// The address in use.
    pub fn url(&self) -> &str {
        &self.address().url
    }

    fn address(&self) -> &Address {
        &self.addresses[self.place()]
    }

    /// The index of the address in use, in the list of the server's addresses.
    pub fn place(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.addresses.len()
    }

    /// The address at `place` is not heard: the next one is used, unless somebody has turned
    /// away from it before.
    pub fn turn_from(&self, place: usize) {
        let next = (place + 1) % self.addresses.len();
        let order = Ordering::Relaxed;
        if next != place && self.current.compare_exchange(place, next, order, order).is_ok() {
            let (from, to) = (&self.addresses[place].url, &self.addresses[next].url);
            tracing::info!(%from, %to, "trying the next server");
        }
    }

    /// The connection to the address in use that the session and all small blobs go over. Behind
    /// a balancer each connection may lead to another frontend: what the one that publishes
    /// results was told itself, it need not ask the fleet about.
    pub fn main(&self) -> Connection {
        InterceptedService::new(self.address().channels[0].clone(), self.authorization.clone())
    }

    /// A connection to the address in use, another one each time: for large blobs.
    pub fn channel(&self) -> Connection {
        InterceptedService::new(self.address().channel(), self.authorization.clone())
    }
}

impl Address {
    fn new(url: &str, credentials: &Credentials) -> Result<Self, AddressError> {
        let failed = |reason| AddressError::Url { url: url.to_owned(), reason };
        let (address, secure) = address(url)?;
        if !secure && !credentials.tls.is_empty() {
            return Err(failed("it is one without TLS, but files for TLS were given".to_owned()));
        }
        let endpoint = Endpoint::from_shared(address)
            .map_err(|error| failed(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channels = match secure {
            false => (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect(),
            true => {
                let connector = connector(client_config(&credentials.tls)?);
                let connect = |_| endpoint.connect_with_connector_lazy(connector.clone());
                (0..CONNECTIONS).map(connect).collect()
            }
        };
        Ok(Self { url: url.to_owned(), channels, next: AtomicUsize::new(0) })
    }

    fn channel(&self) -> Channel {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        self.channels[next % self.channels.len()].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn urls() {
        let good =
            ["grpc://host:1", "http://127.0.0.1:8980", "host:1", "grpcs://h:1", "https://[::1]:1"];
        for good in good {
            assert!(Connections::new(good).is_ok(), "{good}");
        }
        for bad in ["redis://host:1", "grpc://", "grpc://a b"] {
            let error = Connections::new(bad).err().expect(bad).to_string();
            assert!(error.contains("grpc://HOST:PORT"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_next_address_is_used_once_for_all_who_did_not_hear_one() {
        let urls = ["grpc://a:1", "grpc://b:1", "grpc://c:1"];
        let server = Connections::with_all(&urls, &Credentials::default()).unwrap();
        let clone = server.clone();
        for expected in ["grpc://b:1", "grpc://c:1", "grpc://a:1"] {
            let place = server.place();
            server.turn_from(place);
            clone.turn_from(place);
            assert_eq!((server.url(), clone.url()), (expected, expected));
        }
        let alone = Connections::new("grpc://a:1").unwrap();
        alone.turn_from(0);
        assert_eq!(alone.url(), "grpc://a:1");
        let none: [&str; 0] = [];
        assert!(Connections::with_all(&none, &Credentials::default()).is_err());
    }

    #[tokio::test]
    async fn files_for_tls_need_an_address_with_tls() {
        let tls = TlsFiles { ca: Some("/nowhere/ca.pem".into()), identity: None };
        let credentials = Credentials { tls, token: None };
        let plain = Connections::with("grpc://host:1", &credentials).err().unwrap().to_string();
        assert!(plain.contains("grpcs://HOST:PORT"), "{plain}");
        let missing = Connections::with("grpcs://host:1", &credentials).err().unwrap().to_string();
        assert!(missing.contains("cannot read /nowhere/ca.pem"), "{missing}");
    }
}
