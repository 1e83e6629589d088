//! A worker far from its scheduler: blobs over REAPI, leases over a session that reconnects.

mod batch;
mod bytestream;
mod retry;
mod session;
mod store;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};

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
#[error("the server URL {url:?} is not usable: {reason}; write it as grpc://HOST:PORT")]
pub struct UrlError {
    url: String,
    reason: String,
}

/// Connections to one server, made when they are first needed. Cheap to clone.
#[derive(Clone)]
pub struct Server {
    channels: Arc<[Channel]>,
    next: Arc<AtomicUsize>,
    url: Arc<str>,
}

impl Server {
    /// `url`: `grpc://HOST:PORT` or `http://HOST:PORT`. Needs a tokio runtime.
    pub fn new(url: &str) -> Result<Self, UrlError> {
        let failed = |reason: String| UrlError { url: url.to_owned(), reason };
        let address = match url.split_once("://") {
            Some(("grpc" | "http", rest)) => format!("http://{rest}"),
            Some((scheme, _)) => return Err(failed(format!("{scheme} is not supported"))),
            None => format!("http://{url}"),
        };
        let endpoint = Endpoint::from_shared(address)
            .map_err(|error| failed(error.to_string()))?
            .connect_timeout(CONNECT_TIMEOUT)
            .tcp_nodelay(true)
            .http2_keep_alive_interval(KEEP_ALIVE_INTERVAL)
            .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
            .keep_alive_while_idle(true);
        let channels = (0..CONNECTIONS).map(|_| endpoint.connect_lazy()).collect();
        Ok(Self { channels, next: Arc::default(), url: url.into() })
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The connections in turn.
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
        for good in ["grpc://host:1", "http://127.0.0.1:8980", "host:1"] {
            assert!(Server::new(good).is_ok(), "{good}");
        }
        for bad in ["grpcs://host:1", "grpc://", "grpc://a b"] {
            let error = Server::new(bad).err().expect(bad).to_string();
            assert!(error.contains("grpc://HOST:PORT"), "{error}");
        }
    }
}
