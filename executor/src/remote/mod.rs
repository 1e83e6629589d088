//! A worker far from its scheduler: blobs over REAPI, leases over a session that reconnects.

mod batch;
mod bytestream;
mod credentials;
mod retry;
mod session;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::connect::HttpConnector;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};

use credentials::Authorization;
pub use credentials::{
    Credentials, FileError, TlsFiles, Token, TokenError, certificates, certified_key,
    client_config, provider, roots,
};
pub use session::{serve, serve_remote};
pub use store::RemoteStore;

/// HTTP/2 connections to one server: one alone is served by one thread at either end.
const CONNECTIONS: usize = 4;
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// A connection that does not answer within both together is dead.
const KEEP_ALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest message accepted from a server, in bytes.
const MAX_MESSAGE: usize = 16 << 20;

#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    #[error(
        "the server URL {url:?} is not usable: {reason}; write it as grpc://HOST:PORT, or \
         grpcs://HOST:PORT for TLS"
    )]
    Url { url: String, reason: String },
    #[error(transparent)]
    Tls(#[from] FileError),
}

/// A connection that says who calls.
type Connection = InterceptedService<Channel, Authorization>;

/// Connections to one server, made when they are first needed. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
    url: Arc<str>,
    authorization: Authorization,
}

/// `http://HOST:PORT` or `https://HOST:PORT` for a server as users name it, and whether it is
/// the latter: `grpc` and `grpcs` mean the same as `http` and `https`, which may be left out.
pub fn address(url: &str) -> Result<(String, bool), ServerError> {
    let failed = |reason| ServerError::Url { url: url.to_owned(), reason };
    match url.split_once("://") {
        Some(("grpc" | "http", rest)) => Ok((format!("http://{rest}"), false)),
        Some(("grpcs" | "https", rest)) => Ok((format!("https://{rest}"), true)),
        Some((scheme, _)) => Err(failed(format!("{scheme}:// is not supported"))),
        None => Ok((format!("http://{url}"), false)),
    }
}

impl Server {
    /// `url` as for [`address`]. Needs a tokio runtime.
    pub fn new(url: &str) -> Result<Self, ServerError> {
        Self::with(url, &Credentials::default())
    }

    pub fn with(url: &str, credentials: &Credentials) -> Result<Self, ServerError> {
        let failed = |reason| ServerError::Url { url: url.to_owned(), reason };
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
                let mut tcp = HttpConnector::new();
                tcp.enforce_http(false);
                tcp.set_nodelay(true);
                let connector = HttpsConnectorBuilder::new()
                    .with_tls_config(client_config(&credentials.tls)?)
                    .https_only()
                    .enable_http2()
                    .wrap_connector(tcp);
                let connect = |_| endpoint.connect_with_connector_lazy(connector.clone());
                (0..CONNECTIONS).map(connect).collect()
            }
        };
        let authorization = Authorization(credentials.token.clone());
        Ok(Self { channels, next: Arc::default(), url: url.into(), authorization })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The connections in turn.
    pub fn channel(&self) -> Connection {
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        let channel = self.channels[next % self.channels.len()].clone();
        InterceptedService::new(channel, self.authorization.clone())
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
            assert!(Server::new(good).is_ok(), "{good}");
        }
        for bad in ["redis://host:1", "grpc://", "grpc://a b"] {
            let error = Server::new(bad).err().expect(bad).to_string();
            assert!(error.contains("grpc://HOST:PORT"), "{error}");
        }
    }

    #[tokio::test]
    async fn files_for_tls_need_an_address_with_tls() {
        let tls = TlsFiles { ca: Some("/nowhere/ca.pem".into()), identity: None };
        let credentials = Credentials { tls, token: None };
        let plain = Server::with("grpc://host:1", &credentials).err().unwrap().to_string();
        assert!(plain.contains("grpcs://HOST:PORT"), "{plain}");
        let missing = Server::with("grpcs://host:1", &credentials).err().unwrap().to_string();
        assert!(missing.contains("cannot read /nowhere/ca.pem"), "{missing}");
    }
}
