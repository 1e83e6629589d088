//! Logs of other frontends.
//!
//! Whoever reads a log that is not here says so to all ([`Wanted`]), and says it again while the
//! reader waits. The frontend that has the log sends its bytes to the reader's own channel until
//! it is at the end, or nobody has asked for long. While nobody reads, nothing is sent.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_protos::logs::{Piece, Wanted};
use prost::Message;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::local::LocalLogs;
use super::log::{Log, Next};
use crate::error::StoreError;
use crate::redis::{Event, Redis, RedisError, Subscription};

const WANTED: &str = "logs-wanted";
/// Readers at this frontend of logs that are elsewhere; each has a connection to Redis.
const MAX_READERS: usize = 64;
/// Readers elsewhere of logs at this frontend.
const MAX_SENT: usize = 256;
/// How long a reader waits for the frontend that has the log: that one answers at once.
const ANSWER_WITHIN: Duration = Duration::from_secs(1);
/// How often a reader says that it still waits. What was lost on the way comes again then.
const ASK_EVERY: Duration = Duration::from_secs(10);
/// How soon it asks again when nobody answers.
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(200), ASK_EVERY);
/// After so many questions the pauses are the longest.
const OFTEN: u32 = 7;
/// Readers that have not asked for so long are gone.
const GONE_AFTER: Duration = Duration::from_secs(30);
/// Silence after which the log is gone: its action may be waiting for another worker meanwhile.
const LOST_AFTER: Duration = Duration::from_secs(60);
/// Silence after which a connection is looked at.
const PING: Duration = Duration::from_secs(60);

pub struct Relay {
    redis: Redis,
    wanted: String,
    readers: Arc<Semaphore>,
    /// Its drop ends the task that sends.
    _task: oneshot::Sender<()>,
}

impl Relay {
    /// Sends the logs of `logs` to whoever asks, until this is dropped.
    pub async fn start(redis: Redis, logs: LocalLogs) -> Result<Arc<Self>, RedisError> {
        let wanted = redis.channel(WANTED);
        let subscription = redis.subscribe_patiently(vec![wanted.clone()], PING).await?;
        let (stop, stopped) = oneshot::channel();
        let owner = Owner { redis: redis.clone(), logs, sending: HashMap::new() };
        tokio::spawn(async move {
            tokio::select! {
                () = owner.run(subscription) => {}
                _ = stopped => {}
            }
        });
        let readers = Arc::new(Semaphore::new(MAX_READERS));
        Ok(Arc::new(Self { redis, wanted, readers, _task: stop }))
    }

    /// Reads a log of another frontend; `None`: nobody has it.
    pub async fn follow(
        self: &Arc<Self>,
        name: &str,
        offset: u64,
    ) -> Result<Option<Following>, StoreError> {
        let mut following = self.ask(name, offset).await?;
        match timeout(ANSWER_WITHIN, following.subscription.next()).await {
            Ok(Some(Event::Message { payload, .. })) => {
                following.early = Some(payload);
                Ok(Some(following))
            }
            // It will be asked for again.
            Ok(Some(Event::Reconnected)) => Ok(Some(following)),
            Ok(None) | Err(_) => Ok(None),
        }
    }

    /// Reads a log that there was a moment ago: waits longer for a frontend that has it.
    pub async fn ask(self: &Arc<Self>, name: &str, offset: u64) -> Result<Following, StoreError> {
        let permit = self.readers.clone().try_acquire_owned().map_err(|_| {
            let message = "too many logs of other frontends are being read here; try again";
            StoreError::unavailable(message)
        })?;
        let reply = self.redis.channel(&format!("log:{:032x}", fastrand::u128(..)));
        let subscription = self.redis.subscribe(vec![reply.clone()]).await?;
        let mut following = Following {
            relay: self.clone(),
            wanted: Wanted { name: name.to_owned(), offset, reply },
            subscription,
            early: None,
            answered: Instant::now(),
            ask_at: Instant::now(),
            unanswered: 0,
            asked_for: None,
            _permit: permit,
        };
        following.ask().await?;
        Ok(following)
    }
}

/// A reader of a log that is at another frontend.
pub struct Following {
    relay: Arc<Relay>,
    wanted: Wanted,
    subscription: Subscription,
    /// A piece that arrived before [`Following::next`] was called.
    early: Option<Bytes>,
    /// When somebody last had the log.
    answered: Instant,
    ask_at: Instant,
    /// How often it has asked since the log moved.
    unanswered: u32,
    /// The gap that was asked for: what was on its way then shows the same gap.
    asked_for: Option<u64>,
    _permit: OwnedSemaphorePermit,
}

impl Following {
    async fn ask(&mut self) -> Result<(), StoreError> {
        self.unanswered = self.unanswered.saturating_add(1);
        self.ask_at = Instant::now() + BACKOFF.pause(self.unanswered);
        let message = self.wanted.encode_to_vec();
        Ok(self.relay.redis.publish(&self.relay.wanted, &message).await?)
    }

    /// The next bytes; `None`: the end. Errors: `Unavailable`, when the log is nowhere any more.
    pub async fn next(&mut self) -> Result<Option<Bytes>, StoreError> {
        loop {
            let event = match self.early.take() {
                Some(payload) => Event::Message { channel: Arc::default(), payload },
                None => tokio::select! {
                    event = self.subscription.next() => event.ok_or_else(shutdown)?,
                    () = sleep_until(self.ask_at) => {
                        self.ask_again().await?;
                        continue;
                    }
                },
            };
            let Event::Message { payload, .. } = event else {
                self.ask().await?;
                continue;
            };
            let Ok(piece) = Piece::decode(payload) else { continue };
            self.note(piece.moved);
            match take(self.wanted.offset, piece) {
                Taken::Data(data) => {
                    self.wanted.offset += data.len() as u64;
                    return Ok(Some(data));
                }
                Taken::Nothing => {}
                Taken::End => return Ok(None),
                Taken::Gap if self.asked_for == Some(self.wanted.offset) => {}
                Taken::Gap => {
                    self.asked_for = Some(self.wanted.offset);
                    self.ask().await?;
                }
            }
        }
    }

    /// Somebody has the log, or does not have it any more.
    fn note(&mut self, moved: bool) {
        let now = Instant::now();
        self.answered = now;
        if moved {
            self.unanswered = 0;
            self.ask_at = now + BACKOFF.pause(1);
        } else if self.unanswered < OFTEN {
            self.unanswered = OFTEN;
            self.ask_at = now + ASK_EVERY;
        }
    }

    async fn ask_again(&mut self) -> Result<(), StoreError> {
        if self.answered.elapsed() > LOST_AFTER {
            let message = format!("the log {:?} is at no frontend any more", self.wanted.name);
            return Err(StoreError::unavailable(message));
        }
        self.asked_for = None;
        self.ask().await
    }
}

fn shutdown() -> StoreError {
    StoreError::unavailable("the server shuts down")
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    Data(Bytes),
    Nothing,
    End,
    /// Bytes before this piece were lost.
    Gap,
}

/// What a piece brings to a reader that has seen everything before `offset`. The end comes in a
/// piece of its own, or with bytes: then the owner says it once more when asked.
pub(super) fn take(offset: u64, piece: Piece) -> Taken {
    let Some(known) = offset.checked_sub(piece.offset) else { return Taken::Gap };
    match usize::try_from(known) {
        Ok(known) if known < piece.data.len() => Taken::Data(piece.data.slice(known..)),
        Ok(known) if piece.finished && known == piece.data.len() => Taken::End,
        _ => Taken::Nothing,
    }
}

/// The side that sends: the logs of this frontend, and who reads them at other frontends.
struct Owner {
    redis: Redis,
    logs: LocalLogs,
    /// Readers by their reply channel, and the first byte that each has not seen yet.
    sending: HashMap<String, watch::Sender<u64>>,
}

impl Owner {
    async fn run(mut self, mut subscription: Subscription) {
        while let Some(event) = subscription.next().await {
            // Questions that were lost come again.
            let Event::Message { payload, .. } = event else { continue };
            if let Ok(wanted) = Wanted::decode(payload) {
                self.answer(wanted);
            }
        }
    }

    fn answer(&mut self, wanted: Wanted) {
        self.sending.retain(|_, reader| !reader.is_closed());
        if let Some(reader) = self.sending.get(&wanted.reply) {
            reader.send_replace(wanted.offset);
            return;
        }
        let Some(log) = self.logs.find(&wanted.name) else { return };
        if self.sending.len() == MAX_SENT {
            return tracing::warn!(log = wanted.name, "too many readers at other frontends");
        }
        let (reader, offset) = watch::channel(wanted.offset);
        self.sending.insert(wanted.reply.clone(), reader);
        let sender = Sender { redis: self.redis.clone(), log, reply: wanted.reply };
        tokio::spawn(async move {
            if let Err(error) = sender.run(offset).await {
                tracing::debug!(error = %chain(&error), "a log was not sent to its reader");
            }
        });
    }
}

/// Sends one log to one reader.
struct Sender {
    redis: Redis,
    log: Arc<Log>,
    reply: String,
}

impl Sender {
    async fn run(self, mut wanted: watch::Receiver<u64>) -> Result<(), RedisError> {
        loop {
            let mut offset = *wanted.borrow_and_update();
            let gone = Instant::now() + GONE_AFTER;
            // It is here, whether or not there is more.
            self.send(Piece { offset, ..Piece::default() }).await?;
            loop {
                let next = tokio::select! {
                    next = self.log.next(offset) => next,
                    changed = wanted.changed() => match changed {
                        Ok(()) => break,
                        Err(_) => return Ok(()),
                    },
                    () = sleep_until(gone) => return Ok(()),
                };
                match next {
                    Next::Chunk(chunk) => {
                        let size = chunk.len() as u64;
                        self.send(Piece { offset, data: chunk, ..Piece::default() }).await?;
                        offset += size;
                    }
                    Next::End => {
                        return self
                            .send(Piece { offset, finished: true, ..Piece::default() })
                            .await;
                    }
                    Next::Moved => {
                        return self.send(Piece { offset, moved: true, ..Piece::default() }).await;
                    }
                }
            }
        }
    }

    async fn send(&self, piece: Piece) -> Result<(), RedisError> {
        self.redis.publish(&self.reply, &piece.encode_to_vec()).await
    }
}
