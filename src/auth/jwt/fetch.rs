//! Key sets from an identity provider: fetched at the start, every so often, and when a token
//! names a key that is not known; never more often than [`MIN_INTERVAL`].

use std::sync::Arc;
use std::time::Duration;

use kiln_net::Url;
use kiln_net::http::{
    BodyError, Client, ClientError, Options, StatusCode, client, collect, described,
};
use kiln_net::panics::caught;
use kiln_net::tls::{FileError, client_config_with};
use kiln_net::urls::shown;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::JwksOptions;
use super::keys::{Key, KeyError, key_set};

/// The provider is left alone for so long between two fetches, whatever tokens ask for.
pub const MIN_INTERVAL: Duration = Duration::from_secs(10);
/// Keys that could not be fetched again for so long are not trusted any more.
pub const MAX_AGE: Duration = Duration::from_secs(24 * 3600);
/// How long one fetch may take, and how long a request waits for it.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer, in bytes.
const MAX_ANSWER: usize = 1 << 20;

#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    #[error(transparent)]
    Trust(#[from] FileError),
    #[error(transparent)]
    Client(#[from] ClientError),
    #[error("no answer within {TIMEOUT:?}")]
    Timeout,
    #[error("{0}")]
    Failed(String),
    #[error("it answers {0}")]
    Status(StatusCode),
    #[error(transparent)]
    Body(#[from] BodyError),
    #[error("the answer is no text")]
    NoText,
    #[error(transparent)]
    Keys(#[from] KeyError),
}

/// Fetches a key set from one URL.
pub struct Fetcher {
    url: Url,
    client: Client,
}

impl Fetcher {
    /// Trusts the system's authorities, which may be none where the URL is on this machine.
    pub fn new(url: &Url) -> Result<Self, FetchError> {
        let tls = client_config_with(None)?;
        Ok(Self { url: url.clone(), client: client(Options::new(tls, TIMEOUT))? })
    }

    pub async fn fetch(&self) -> Result<Vec<Key>, FetchError> {
        tokio::time::timeout(TIMEOUT, self.try_fetch()).await.map_err(|_| FetchError::Timeout)?
    }

    async fn try_fetch(&self) -> Result<Vec<Key>, FetchError> {
        let answer = self.client.get(self.url.clone()).send().await;
        let answer = answer.map_err(|error| FetchError::Failed(described(error)))?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Status(answer.status()));
        }
        let body = collect(answer, MAX_ANSWER).await?;
        let text = std::str::from_utf8(&body).map_err(|_| FetchError::NoText)?;
        Ok(key_set(&shown(&self.url).to_string(), text, false)?)
    }
}

/// The channels between requests that want newer keys and the task that fetches them.
#[derive(Default)]
pub struct Refresh {
    wanted: Notify,
    /// The number of fetches that have ended.
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
    /// When a fetch last succeeded; `None`: none has yet.
    fetched: Option<Instant>,
    interval: Duration,
}

impl Keeper {
    /// How long to wait for the next fetch: without keys it comes soon.
    fn next(&self) -> Duration {
        if self.fetched.is_some() { self.interval } else { MIN_INTERVAL }
    }

    async fn round(&mut self) {
        // Whoever panics over an answer has fetched nothing, and what there was ages.
        let fetched = match caught(self.fetcher.fetch()).await {
            Ok(fetched) => fetched.map_err(|error| error.to_string()),
            Err(panicked) => Err(panicked.to_string()),
        };
        match fetched {
            Ok(keys) => {
                tracing::debug!(url = %shown(&self.fetcher.url), keys = keys.len(), "fetched keys");
                self.fetched = Some(Instant::now());
                (self.take)(Some(keys));
            }
            Err(error) => {
                tracing::warn!(url = %shown(&self.fetcher.url), %error, "cannot fetch keys for tokens");
                if self.fetched.is_some_and(|fetched| fetched.elapsed() >= MAX_AGE) {
                    self.fetched = None;
                    (self.take)(None);
                }
            }
        }
    }
}
