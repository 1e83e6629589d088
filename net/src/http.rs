//! The one HTTP client. Whoever fetches over HTTP builds it here, so that all of them honour the
//! same proxies, trust by the same TLS, say who they are, and follow no redirection by themselves:
//! where one leads is for the caller to judge.

use std::sync::Arc;
use std::time::Duration;

use reqwest::ClientBuilder;
pub use reqwest::{Client, RequestBuilder, Response, StatusCode, header};
use rustls::ClientConfig;

use crate::proxy::Proxies;
use crate::reach::{Bounded, Reach, ReachOf};

/// How Kiln names itself.
pub const USER_AGENT: &str = concat!("kiln/", env!("CARGO_PKG_VERSION"));

/// How a client behaves.
pub struct Options {
    pub tls: ClientConfig,
    /// How long a connection may take to come about.
    pub connect: Duration,
    /// Idle connections kept to one host.
    pub idle_connections: usize,
    /// How far host names may reach; `None`: anywhere. A proxy looks names up by itself.
    pub reach: Option<ReachOf>,
}

impl Options {
    /// Options for few requests to hosts that the user names.
    pub fn new(tls: ClientConfig, connect: Duration) -> Self {
        Self { tls, connect, idle_connections: 1, reach: None }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("the HTTP client cannot be set up: {}", crate::causes::chain(.0))]
pub struct ClientError(#[from] reqwest::Error);

fn builder(tls: ClientConfig, connect: Duration, idle_connections: usize) -> ClientBuilder {
    Client::builder()
        .tls_backend_preconfigured(tls)
        .http1_only()
        .user_agent(USER_AGENT)
        .redirect(reqwest::redirect::Policy::none())
        .retry(reqwest::retry::never())
        .referer(false)
        .connect_timeout(connect)
        .tcp_nodelay(true)
        .pool_max_idle_per_host(idle_connections)
        .no_proxy()
}

/// Speaks HTTP/1.1 over TLS to machines beside this one: no proxy is between them, and their certificates are theirs alone.
pub fn direct_client(options: Options) -> Result<Client, ClientError> {
    Ok(builder(options.tls, options.connect, options.idle_connections).build()?)
}

/// Speaks HTTP/1.1 over TCP or TLS, through the environment's proxies.
pub fn client(options: Options) -> Result<Client, ClientError> {
    let proxies = Proxies::from_environment();
    let hosts = proxies.hosts();
    let mut builder = builder(options.tls, options.connect, options.idle_connections);
    if let Some(proxy) = proxies.chosen() {
        builder = builder.proxy(proxy);
    }
    if let Some(reach) = options.reach {
        builder = builder.dns_resolver(Arc::new(Bounded(besides(hosts, reach))));
    }
    Ok(builder.build()?)
}

/// The operator names proxies: they may be anywhere.
fn besides(proxies: Vec<String>, reach: ReachOf) -> ReachOf {
    Arc::new(move |name| {
        let proxy = proxies.iter().any(|proxy| proxy.eq_ignore_ascii_case(name));
        if proxy { Reach::Anywhere } else { reach(name) }
    })
}

/// What went wrong, with all causes and without the URL: its query may be a secret.
pub fn described(error: reqwest::Error) -> String {
    let error = error.without_url();
    // The outermost only says that there was a request.
    match std::error::Error::source(&error) {
        Some(cause) => crate::causes::chain(cause),
        None => crate::causes::chain(&error),
    }
}

#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    #[error("the answer has more than {0} bytes")]
    TooLarge(usize),
    #[error("the answer broke off: {0}")]
    Broken(String),
}

/// The whole of an answer, of at most `limit` bytes.
pub async fn collect(mut response: Response, limit: usize) -> Result<Vec<u8>, BodyError> {
    let mut all = Vec::new();
    let broken = |error| BodyError::Broken(described(error));
    while let Some(chunk) = response.chunk().await.map_err(broken)? {
        if all.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge(limit));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}
