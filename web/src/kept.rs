//! What pages keep between requests, and how they do what takes long.

use std::collections::HashMap;
use std::future::Future;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::num::NonZeroUsize;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::Extensions;
use kiln_cas::budget::{Charge, Share};
use kiln_ci::events::{EventLog, Limits, Noted, StreamKey, View};
use kiln_ci::history::{History, Tested};
use kiln_ci::model::Time;
use kiln_ci::verdicts::{Account, Survey, Surveyed, Told};
use kiln_net::clock::unix_millis;
use lru::LruCache;
use tokio::runtime::Handle;
use tokio::sync::{Mutex, MutexGuard, Semaphore};

use super::error::WebError;

/// Requests that are worked on at once where each may read much.
const AT_ONCE: usize = 4;
/// How long a request waits for its turn.
const PATIENCE: Duration = Duration::from_secs(20);
/// How old what is shown of all tests may be.
const FRESH: Duration = Duration::from_secs(3);
/// How old what is shown of flaky tests may be, for which all records of tests are read.
const SURVEYED: Duration = Duration::from_secs(10);
/// Spans of days of which all tests are kept.
const MAX_SPANS: usize = 4;
/// Builds that are kept as their streams tell them: one of a million events takes hundreds of megabytes.
const MAX_BUILDS: NonZeroUsize = NonZeroUsize::new(4).expect("it is not 0");

/// Accounts of builds that are kept for gates, which ask every second, and bytes of one that is kept.
const MAX_ACCOUNTS: NonZeroUsize = NonZeroUsize::new(256).expect("it is not 0");
const MAX_ACCOUNT: usize = 256 << 10;
/// Streams that are read at the same time: of who asks for the same one, the first reads it.
const READERS: usize = 64;

/// What is put together of a build takes so much for each byte of its events.
const KEPT: u64 = 2;

/// Shared by all pages.
#[derive(Clone, Default)]
pub struct Kept(Arc<Inner>);

struct Inner {
    turns: Arc<Semaphore>,
    tested: Mutex<HashMap<u64, (Instant, AllTests)>>,
    builds: Mutex<LruCache<StreamKey, Held>>,
    /// What builds that are kept are charged to; nothing: to nobody.
    memory: Option<Share>,
    surveyed: Mutex<Option<(Instant, Arc<Surveyed>)>>,
    accounts: Mutex<LruCache<StreamKey, Arc<Account>>>,
    reading: [Mutex<()>; READERS],
}

impl Default for Inner {
    fn default() -> Self {
        Self::new(None)
    }
}

/// Tests in order, with their days.
pub type AllTests = Arc<Vec<Tested>>;

/// A build with the memory that it takes.
struct Held {
    view: Arc<View>,
    /// Given back when this is dropped.
    memory: Charge,
}

impl Inner {
    fn new(memory: Option<Share>) -> Self {
        Self {
            memory,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
            tested: Mutex::default(),
            builds: Mutex::new(LruCache::new(MAX_BUILDS)),
            surveyed: Mutex::default(),
            accounts: Mutex::new(LruCache::new(MAX_ACCOUNTS)),
            reading: std::array::from_fn(|_| Mutex::default()),
        }
    }
}

impl Kept {
    /// What is kept is charged to a share of the memory of all requests.
    pub fn charged(share: Share) -> Self {
        Self(Arc::new(Inner::new(Some(share))))
    }

    /// Does what reads and decodes much on a thread of its own, so that whoever else is served meanwhile
    /// does not wait.
    pub async fn beside<T: Send + 'static>(
        &self,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, WebError> {
        let turn = tokio::time::timeout(PATIENCE, self.0.turns.clone().acquire_owned()).await;
        let Ok(Ok(turn)) = turn else { return Err(WebError::busy()) };
        let runtime = Handle::current();
        let done = tokio::task::spawn_blocking(move || {
            let done = runtime.block_on(work);
            drop(turn);
            done
        });
        done.await.map_err(|error| WebError::failed(error.to_string()))
    }

    /// What a stream of build events says by now.
    pub async fn view(
        &self,
        streams: &Arc<EventLog>,
        stream: &StreamKey,
    ) -> Result<Arc<View>, WebError> {
        let _reads = self.reads(stream).await;
        let before = self.0.builds.lock().await.pop(stream);
        let held = match before {
            Some(held) if held.view.build.is_complete() => held,
            before => {
                let (before, memory) = before.map(|it| (it.view, it.memory)).unzip();
                let memory = self.memory_of(memory, streams, stream).await?;
                let (streams, stream) = (streams.clone(), stream.clone());
                let before = before.map(Arc::unwrap_or_clone);
                let read = async move { streams.view(&stream, before).await };
                Held { view: Arc::new(self.beside(read).await??), memory }
            }
        };
        let view = held.view.clone();
        self.0.builds.lock().await.put(stream.clone(), held);
        Ok(view)
    }

    /// Memory for a build, in which all others make room for it where there is none. `before`: what an earlier look
    /// at it takes, which grows.
    async fn memory_of(
        &self,
        before: Option<Charge>,
        streams: &EventLog,
        stream: &StreamKey,
    ) -> Result<Charge, WebError> {
        let most = Limits::default().bytes as u64;
        let bytes = streams.size(stream).await?.min(most).saturating_mul(KEPT);
        let mut memory = before.unwrap_or_else(|| {
            let mut caller = Extensions::new();
            if let Some(share) = &self.0.memory {
                caller.insert(share.clone());
            }
            Charge::of(&caller)
        });
        if memory.try_grow_to(bytes).is_err() {
            self.0.builds.lock().await.clear();
            let grown = memory.grow_to(bytes).await;
            grown.map_err(|error| WebError { message: error.to_string(), ..WebError::busy() })?;
        }
        Ok(memory)
    }

    /// What the build events of an invocation in this instance say to a gate.
    pub async fn told(
        &self,
        streams: &Arc<EventLog>,
        noted: Option<Noted>,
        instance: &str,
    ) -> Result<Told, WebError> {
        let summary = noted.map(|it| it.summary).filter(|it| it.stream.instance == instance);
        let Some(summary) = summary else { return Ok(Told::Nothing) };
        // All of it is read once, when it has ended.
        if !summary.is_complete {
            return Ok(Told::GoesOn);
        }
        let account = self.account(streams, &summary.stream).await?;
        Ok(Told::Ended(account))
    }

    /// What a stream that has ended says to a gate.
    async fn account(
        &self,
        streams: &Arc<EventLog>,
        stream: &StreamKey,
    ) -> Result<Arc<Account>, WebError> {
        if let Some(account) = self.0.accounts.lock().await.get(stream) {
            return Ok(account.clone());
        }
        let view = self.view(streams, stream).await?;
        let is_complete = view.build.is_complete();
        let account = async move { Account::of(view.build.known(), &view.failed) };
        let account = Arc::new(self.beside(account).await?);
        if is_complete && account.bytes() <= MAX_ACCOUNT {
            self.0.accounts.lock().await.put(stream.clone(), account.clone());
        }
        Ok(account)
    }

    /// Who asks for a stream that somebody reads waits for what that one finds.
    async fn reads(&self, stream: &StreamKey) -> Option<MutexGuard<'_, ()>> {
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(stream);
        let reader =
            usize::try_from(hash % READERS as u64).ok().and_then(|it| self.0.reading.get(it));
        match reader {
            Some(reader) => Some(reader.lock().await),
            None => None,
        }
    }

    /// What all tests came to in the last days, today included, a few seconds old at most. Who asks meanwhile
    /// waits for the same answer.
    pub async fn tested(&self, history: &Arc<History>, days: u64) -> Result<AllTests, WebError> {
        let mut kept = self.0.tested.lock().await;
        if let Some((_, tests)) = kept.get(&days).filter(|(read, _)| read.elapsed() < FRESH) {
            return Ok(tests.clone());
        }
        let (history, span) = (history.clone(), last_days(today(), days));
        let tests = self.beside(async move { history.tested(span).await }).await??;
        let tests = Arc::new(tests);
        kept.retain(|_, (read, _)| read.elapsed() < FRESH);
        if kept.len() < MAX_SPANS {
            kept.insert(days, (Instant::now(), tests.clone()));
        }
        Ok(tests)
    }

    /// What is known of flaky tests, a few seconds old at most. Who asks meanwhile waits for the same answer.
    pub async fn surveyed(&self, survey: &Survey, now: Time) -> Result<Arc<Surveyed>, WebError> {
        let mut kept = self.0.surveyed.lock().await;
        if let Some((_, known)) = kept.as_ref().filter(|(read, _)| read.elapsed() < SURVEYED) {
            return Ok(known.clone());
        }
        let survey = survey.clone();
        let surveyed = Arc::new(self.beside(async move { survey.look(now).await }).await??);
        *kept = Some((Instant::now(), surveyed.clone()));
        Ok(surveyed)
    }
}

/// The number of this day, in UTC.
pub fn today() -> u64 {
    Time(unix_millis()).day()
}

/// The last `days` days up to and with `today`, as charts show them.
pub fn shown_days(today: u64, days: u64) -> RangeInclusive<u64> {
    today.saturating_sub(days.saturating_sub(1))..=today
}

/// The last `days` days as they are read: with tomorrow, since clocks of workers may be ahead.
fn last_days(today: u64, days: u64) -> RangeInclusive<u64> {
    today.saturating_sub(days.saturating_sub(1))..=today.saturating_add(1)
}
