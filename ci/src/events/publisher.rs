//! Events in, durable commits, acknowledgements out: one stream at one connection.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::sync::{Semaphore, SemaphorePermit};

use super::build::Build;
use super::builds::Summary;
use super::facts::FileRef;
use super::head::{CHUNK_COST, EVENT_COST, Head, StreamLimits};
use super::limits::Limits;
use super::log::{Appended, EventLog, LogError};
use super::names::stream_name;
use super::order::{Order, OrderLimits, Refusal, Step};
use super::wire::{KeptEvent, Ordered, StreamKey};
use crate::attempts::Attempt;
use crate::history::{History, HistoryError};
use crate::model::Time;

/// Bytes and events after which a commit is due though more are there.
const BATCH_BYTES: usize = 4 << 20;
const BATCH_EVENTS: usize = 4096;

/// Events that wait for their acknowledgement. A client that sends more waits.
const MAX_UNACKNOWLEDGED: usize = 64 << 10;

/// Streams that are read from their beginning at the same time, because somebody goes on with them; others wait. One
/// chunk of each is in memory.
const MAX_REPLAYING: usize = 2;
static REPLAYING: Semaphore = Semaphore::const_new(MAX_REPLAYING);
/// How long one waits for its turn: a storage that does not answer must not hold all others up.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a build that goes on is noted.
const BETWEEN_NOTES: Duration = Duration::from_secs(5);

#[derive(Debug, Error)]
pub enum PublisherError {
    #[error(transparent)]
    Log(#[from] LogError),
    #[error("the attempts of a build cannot be kept")]
    History(#[from] HistoryError),
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error("a connection is for one stream")]
    OtherStream,
    #[error("the stream was begun with another credential")]
    Foreign,
    #[error("the stream takes more than twice {0} bytes (tests.max_stream)")]
    Large(u64),
    #[error("the streams of this instance take more than twice {0} bytes (tests.max_streams)")]
    Crowded(u64),
    #[error("other streams are read from their beginning before this one can go on: try again")]
    Busy,
    #[error("more than {MAX_UNACKNOWLEDGED} events wait for their acknowledgement: commit first")]
    Full,
}

/// What to do after an event was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// Take more while there are more at hand, then commit.
    More,
    /// Commit now, before more is taken.
    Commit,
}

/// What a commit brought.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Committed {
    /// Numbers of events to be acknowledged, in this order.
    pub acknowledge: Vec<i64>,
    /// Attempts whose cases are in a report: what is read from it is to be committed to the history once more.
    pub reports: Vec<(Attempt, FileRef)>,
    /// The last event of the stream is among those that are durable.
    pub is_finished: bool,
}

/// Who sends a stream, and what it may take.
#[derive(Clone, Debug, Default)]
pub struct Terms {
    /// The owner of the credential that sends the stream; `None`: nobody is asked who calls.
    pub owner: Option<String>,
    pub limits: StreamLimits,
}

/// A stream as one connection sends it. Others may send the same: each acknowledges what it received.
pub struct Publisher {
    log: Arc<EventLog>,
    history: Arc<History>,
    stream: StreamKey,
    order: Order<KeptEvent>,
    build: Build,
    /// Received at this connection and not acknowledged, in the order in which they came.
    waiting: VecDeque<i64>,
    pending: usize,
    pending_bytes: usize,
    noted: Option<(Time, Summary)>,
    limits: StreamLimits,
    /// The head as it was written last; `cost` is ahead of that by what waits.
    head: Head,
    written_cost: u64,
}

impl Publisher {
    /// Goes on where the stream stands, whoever received its beginning. `room`: whether so many bytes that are kept of
    /// its build fit into memory; from then on nothing more of it is kept. Errors: somebody else began it, or no further
    /// one may begin.
    pub async fn open(
        log: Arc<EventLog>,
        history: Arc<History>,
        stream: StreamKey,
        terms: Terms,
        room: &mut (dyn FnMut(u64) -> bool + Send),
    ) -> Result<Self, PublisherError> {
        let head = own_head(&log, &stream, &terms).await?;
        let _turn = match head.chunks > 0 {
            true => turn().await?,
            false => None,
        };
        let mut build = Build::new(&stream.instance, &stream.invocation, Limits::default());
        let (mut durable, mut is_finished, mut known) = (0, false, 0);
        log.replay(&stream, 0, |number, entry| {
            build.apply(&entry);
            // Attempts are in the history.
            build.take_attempts();
            if build.kept_bytes() > known {
                known = build.kept_bytes();
                if !room(known) {
                    build.keep_no_more();
                }
            }
            durable = number;
            is_finished = entry == KeptEvent::Finished;
        })
        .await?;
        if durable == 0 && !log.has_room(&stream.instance, terms.limits) {
            return Err(PublisherError::Crowded(terms.limits.instance));
        }
        let order = Order::new(OrderLimits::default(), durable, is_finished);
        Ok(Self {
            log,
            history,
            stream,
            order,
            build,
            waiting: VecDeque::new(),
            pending: 0,
            pending_bytes: 0,
            noted: None,
            limits: terms.limits,
            written_cost: head.cost,
            head,
        })
    }

    pub fn stream(&self) -> &StreamKey {
        &self.stream
    }

    /// Bytes of events that wait: they came too early, or are to be committed.
    pub fn pending_bytes(&self) -> u64 {
        (self.pending_bytes + self.order.held_bytes()) as u64
    }

    pub fn build(&self) -> &Build {
        &self.build
    }

    /// Nothing more of the build is kept in memory: there is no room for it.
    pub fn keep_no_more(&mut self) {
        self.build.keep_no_more();
    }

    /// Puts a stream that has ended into few chunks, for which nothing of the connection is needed.
    pub fn compact(&self) -> impl Future<Output = Result<(), LogError>> + Send + use<> {
        let (log, name) = (self.log.clone(), stream_name(&self.stream));
        async move { log.compact(&name).await }
    }

    pub fn receive(&mut self, event: Ordered) -> Result<Taken, PublisherError> {
        if event.stream != self.stream {
            return Err(PublisherError::OtherStream);
        }
        if self.waiting.len() >= MAX_UNACKNOWLEDGED {
            return Err(PublisherError::Full);
        }
        let is_last = event.entry == KeptEvent::Finished;
        let bytes = (event.bytes as u64).saturating_add(EVENT_COST);
        let is_over = self.head.cost.saturating_add(bytes) > self.limits.stream;
        if self.head.cost > self.limits.stream.saturating_mul(2) {
            return Err(PublisherError::Large(self.limits.stream));
        }
        let entry = if is_over { event.entry.cut() } else { event.entry };
        let step = self.order.receive(event.number, entry, event.bytes, is_last)?;
        if step != Step::Again {
            let cost = if is_over { EVENT_COST } else { bytes };
            self.head.cost = self.head.cost.saturating_add(cost);
        }
        self.waiting.push_back(event.number);
        if step == Step::Taken {
            self.pending += 1;
            self.pending_bytes += event.bytes;
        }
        let is_due = is_last || self.pending >= BATCH_EVENTS || self.pending_bytes >= BATCH_BYTES;
        Ok(if is_due { Taken::Commit } else { Taken::More })
    }

    /// Makes durable what was taken: first the attempts, then the events, so that an event that is
    /// durable needs nothing more. After an error the connection has to end: the client sends again what was
    /// not acknowledged, and what is durable already counts once.
    pub async fn commit(&mut self, now: Time) -> Result<Committed, PublisherError> {
        let (first, entries) = self.order.take();
        (self.pending, self.pending_bytes) = (0, 0);
        let mut reports = Vec::new();
        if !entries.is_empty() {
            entries.iter().for_each(|it| self.build.apply(it));
            let told = self.build.take_attempts();
            let attempts: Vec<_> = told.iter().map(|it| it.attempt.clone()).collect();
            self.history.commit(now, &attempts).await?;
            let with_report = |it: super::attempt::Told| Some((it.attempt, it.report?));
            reports = told.into_iter().filter_map(with_report).collect();
            self.append(now, first, entries).await?;
        }
        self.note(now).await?;
        let durable = self.order.durable();
        let is_due = |number: &&i64| u64::try_from(**number).is_ok_and(|it| it <= durable);
        let due = self.waiting.iter().take_while(is_due).count();
        let acknowledge = self.waiting.drain(..due).collect();
        Ok(Committed { acknowledge, reports, is_finished: self.order.is_finished() })
    }

    /// Lists of builds show how far this one is: at its beginning and end, when its commit is known, and from time to
    /// time in between.
    async fn note(&mut self, now: Time) -> Result<(), LogError> {
        let facts = self.build.known();
        let is_recent = |(at, noted): &(Time, Summary)| {
            let is_same = noted.is_complete == facts.is_complete
                && noted.exit_code.is_some() == facts.exit_code.is_some()
                && noted.origin.commit.is_some() == facts.origin.commit.is_some();
            is_same && (now.since(*at) < BETWEEN_NOTES || facts.is_complete)
        };
        if self.noted.as_ref().is_some_and(is_recent) {
            return Ok(());
        }
        let Some(summary) = Summary::of(&self.stream, facts) else { return Ok(()) };
        self.log.note(now, &summary).await?;
        self.noted = Some((now, summary));
        Ok(())
    }

    /// What others have written meanwhile is skipped.
    async fn append(
        &mut self,
        now: Time,
        mut first: u64,
        mut entries: Vec<KeptEvent>,
    ) -> Result<(), PublisherError> {
        while !entries.is_empty() {
            let last = first + entries.len() as u64 - 1;
            self.head.cost = self.head.cost.saturating_add(CHUNK_COST);
            self.head.chunks += 1;
            let events = (first, entries.as_slice());
            match self.log.append_with(&self.stream, now, events, Some(&self.head)).await? {
                Appended::Done => {
                    self.order.committed(last);
                    let more = self.head.cost.saturating_sub(self.written_cost);
                    self.log.taken.add(&self.head.instance, more);
                    self.written_cost = self.head.cost;
                }
                Appended::Behind { durable, .. } if durable + 1 < first => {
                    // It is being forgotten: what these follow is gone, and another number would be wrong.
                    return Err(Refusal::Gap { expected: durable + 1, got: first }.into());
                }
                Appended::Behind { durable, is_finished } => {
                    let terms = Terms { owner: self.head.owner.clone(), limits: self.limits };
                    self.head = own_head(&self.log, &self.stream, &terms).await?;
                    self.written_cost = self.head.cost;
                    let build = &mut self.build;
                    let apply = |_, entry: KeptEvent| build.apply(&entry);
                    if durable > last {
                        self.log.replay(&self.stream, last, apply).await?;
                        self.build.take_attempts();
                    }
                    self.order.advance(durable, is_finished);
                    let skip =
                        usize::try_from((durable + 1).saturating_sub(first)).unwrap_or(usize::MAX);
                    if skip < entries.len() {
                        entries.drain(..skip);
                        first = durable + 1;
                        continue;
                    }
                }
            }
            return Ok(());
        }
        Ok(())
    }
}

/// Waits for a turn: whoever has one may read a stream from its beginning. Errors: all were taken for too long.
async fn turn() -> Result<Option<SemaphorePermit<'static>>, PublisherError> {
    let turn = tokio::time::timeout(PATIENCE, REPLAYING.acquire()).await;
    // Never closed, so that there is one.
    turn.map(Result::ok).map_err(|_| PublisherError::Busy)
}

/// What is known of a stream, where it is the caller's or nobody's yet.
async fn own_head(
    log: &EventLog,
    stream: &StreamKey,
    terms: &Terms,
) -> Result<Head, PublisherError> {
    let head = log.head(stream).await?.unwrap_or_else(|| Head::new(stream, terms.owner.clone()));
    match head.owner.is_none() || head.owner == terms.owner {
        true => Ok(head),
        false => Err(PublisherError::Foreign),
    }
}
