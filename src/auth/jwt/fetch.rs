//! Key sets from an identity provider: fetched at the start, every so often, and when a token
//! names a key that is not known; never more often than [`MIN_INTERVAL`].

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use kiln_executor::remote::provider;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::JwksOptions;
use super::keys::{Key, KeyError, key_set};

/// Whatever tokens ask for, the provider is left alone for so long.
pub const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// Keys that could not be fetched again for so long are not trusted any more.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long one fetch may take, and how long a request waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error("{0}")]
    Client(#[from] std::io::Error),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("{0}")]
    Failed(String),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// Fetches from one URL.
pub struct Fetcher {
    url: Uri,
    client: Client<HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Fetcher {
    /// Trusts the system's authorities.
    pub fn new(url: &Uri) -> Result<Self, FetchError> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(provider())?
            .https_or_http()
            .enable_http1()
            .build();
        let client = Client::builder(TokioExecutor::new()).build(connector);
        Ok(Self { url: url.clone(), client })
    }

    pub async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        tokio::time::timeout(TIMEOUT, self.try_fetch()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn try_fetch(&self) -> Result<Vec<Key>, FetchError> {
        let failed = |error: &dyn std::fmt::Display| FetchError::Failed(error.to_string());
        let request = Request::get(&self.url).body(Empty::new()).map_err(|error| failed(&error))?;
        let answer = self.client.request(request).await.map_err(|error| failed(&error))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
        let body = body.map_err(|error| failed(&error))?.to_bytes();
        let text = std::str::from_utf8(&body).map_err(|error| failed(&error))?;
        Ok(key_set(&self.url.to_string(), text, false)?)
    }
}

/// What requests and the task that fetches tell each other.
#[derive(Default)]
pub struct Refresh {
    wanted: Notify,
    /// Fetches that have ended.
    rounds: watch::Sender<u64>,
}

impl Refresh {
    /// A token names an unknown key: asks for another fetch and waits until it has ended, for a
    /// bounded time. Returns whether one has.
    pub async fn ask(&self) -> bool {
        let mut rounds = self.rounds.subscribe();
        rounds.borrow_and_update();
        self.wanted.notify_one();
        matches!(tokio::time::timeout(TIMEOUT, rounds.changed()).await, Ok(Ok(())))
    }
}

/// Takes what was fetched; `None`: what there was is too old.
pub type Take = Arc<dyn Fn(Option<Vec<Key>>) + Send + Sync>;

/// Fetches now, then again and again until `stop` is cancelled. What cannot be fetched is
/// reported in the log, and earlier keys are used on until [`MAX_AGE`].
pub async fn start(
    options: &JwksOptions,
    refresh: Arc<Refresh>,
    take: Take,
    stop: CancellationToken,
) -> Result<JoinHandle<()>, FetchError> {
    let fetcher = Fetcher::new(&options.url)?;
    let mut keeper =
        Keeper { fetcher, take, fetched: None, interval: options.refresh.max(MIN_INTERVAL) };
    keeper.round().await;
    Ok(tokio::spawn(async move {
        loop {
            let last = Instant::now();
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(keeper.next()) => {}
                () = refresh.wanted.notified() => {
                    tokio::select! {
                        () = stop.cancelled() => return,
                        () = tokio::time::sleep_until(last + MIN_INTERVAL) => {}
                    }
                }
            }
            keeper.round().await;
            refresh.rounds.send_modify(|rounds| *rounds += 1);
        }
    }))
}

struct Keeper {
    fetcher: Fetcher,
    take: Take,
    /// When it went well last.
    fetched: Option<Instant>,
    interval: Duration,
}

impl Keeper {
    /// Without keys the next attempt comes soon.
    fn next(&self) -> Duration {
        if self.fetched.is_some() { self.interval } else { MIN_INTERVAL }
    }

    async fn round(&mut self) {
        match self.fetcher.fetch().await {
            Ok(keys) => {
                tracing::debug!(url = %self.fetcher.url, keys = keys.len(), "fetched keys");
                self.fetched = Some(Instant::now());
                (self.take)(Some(keys));
            }
            Err(error) => {
                tracing::warn!(url = %self.fetcher.url, %error, "cannot fetch keys for tokens");
                if self.fetched.is_some_and(|fetched| fetched.elapsed() >= MAX_AGE) {
                    self.fetched = None;
                    (self.take)(None);
                }
            }
        }
    }
}
