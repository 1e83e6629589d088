//! What began and finished at this frontend goes to the stream, in batches.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use kiln_cas::events::EVENT_BUFFER;
use kiln_cas::redis::RedisError;
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::clock::until;
use kiln_net::panics::caught;
use kiln_protos::events::{Begun, Execution};
use prost::Message;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::{RecvError, TryRecvError};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::stream::{Kind, Stream};
use crate::journal::limits::{bounded, bounded_begun};
use crate::journal::memory::MAX_PENDING;
use crate::journal::shared::Inner;
use crate::journal::writer::{Command, GATHER, MAX_BACKOFF};

/// Sums of beginnings that wait to be sent; of more, the counts of what is open or missed are too low.
const MAX_BEGUN: usize = 4000;
/// Most bytes of executions in one batch, if it is more than one.
const MAX_BATCH_BYTES: usize = 4 << 20;

pub struct Sender {
    inner: Arc<Inner>,
    stream: Stream,
    events: Receiver<Arc<Execution>>,
    begun: Receiver<Arc<Begun>>,
    commands: mpsc::Receiver<Command>,
    /// Nothing more will be published to this sender.
    closed: bool,
    /// Encoded events that are not in the stream yet, oldest first.
    pending: VecDeque<(Kind, Bytes)>,
    /// What began since the last batch, added up by build and mnemonic.
    opened: HashMap<(String, String), Begun>,
    /// Number of the last batch, and how many of the pending are in it until its end is known.
    batch: u64,
    in_batch: usize,
    /// When to send what is pending; `None`: nothing is.
    due: Option<Instant>,
    failures: u32,
}

impl Sender {
    pub fn new(
        inner: Arc<Inner>,
        stream: Stream,
        events: Receiver<Arc<Execution>>,
        begun: Receiver<Arc<Begun>>,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        Self {
            inner,
            stream,
            events,
            begun,
            commands,
            closed: false,
            pending: VecDeque::new(),
            opened: HashMap::new(),
            batch: 0,
            in_batch: 0,
            due: None,
            failures: 0,
        }
    }

    pub async fn run(mut self) {
        while let Err(panicked) = caught(self.turns()).await {
            panicked.goes_on("what the journal of the fleet hears").await;
        }
    }

    async fn turns(&mut self) {
        let mut gathering = None;
        loop {
            let due = self.due;
            let listens = gathering.is_none() && !self.closed;
            tokio::select! {
                biased;
                command = self.commands.recv() => {
                    self.take_published();
                    self.send().await;
                    // Nobody may wait for the answer any more.
                    let _ = match command {
                        Some(Command::Flush(done)) => done.send(()),
                        Some(Command::Shutdown(done)) => {
                            let _ = done.send(());
                            return;
                        }
                        // Every handle is gone.
                        None => return,
                    };
                }
                () = until(due) => self.send().await,
                () = until(gathering), if gathering.is_some() => gathering = None,
                event = self.events.recv(), if listens => {
                    match event {
                        Ok(execution) => self.take(&execution),
                        Err(RecvError::Lagged(lost)) => self.inner.memory().lost_events += lost,
                        Err(RecvError::Closed) => self.closed = true,
                    }
                    self.take_published();
                    gathering = Some(Instant::now() + GATHER);
                },
                begun = self.begun.recv(), if listens => {
                    match begun {
                        Ok(begun) => self.begin(&begun),
                        Err(RecvError::Lagged(lost)) => self.inner.memory().lost_events += lost,
                        Err(RecvError::Closed) => self.closed = true,
                    }
                    self.take_published();
                    gathering = Some(Instant::now() + GATHER);
                },
            }
        }
    }

    /// Takes what was published, at most as many events as the buffer holds, so that the rest of
    /// the work gets its turn.
    fn take_published(&mut self) {
        for _ in 0..EVENT_BUFFER {
            match self.events.try_recv() {
                Ok(execution) => self.take(&execution),
                Err(TryRecvError::Lagged(lost)) => self.inner.memory().lost_events += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        for _ in 0..EVENT_BUFFER {
            match self.begun.try_recv() {
                Ok(begun) => self.begin(&begun),
                Err(TryRecvError::Lagged(lost)) => self.inner.memory().lost_events += lost,
                Err(TryRecvError::Empty | TryRecvError::Closed) => break,
            }
        }
        let config = &self.inner.config;
        if self.pending.len() >= config.batch_count && self.failures == 0 {
            self.due = Some(Instant::now());
        } else if !(self.pending.is_empty() && self.opened.is_empty()) && self.due.is_none() {
            self.due = Some(Instant::now() + config.batch_delay);
        }
    }

    fn take(&mut self, execution: &Execution) {
        let execution = bounded(execution);
        self.push(Kind::Finished, execution.encode_to_vec());
        self.inner.memory().counts.add(&execution);
    }

    fn push(&mut self, kind: Kind, message: Vec<u8>) {
        self.pending.push_back((kind, Bytes::from(message)));
        // What may be in Redis already cannot be taken out of its batch.
        let is_full = self.pending.len() > MAX_PENDING;
        let dropped = is_full && self.pending.remove(self.in_batch).is_some();
        let mut memory = self.inner.memory();
        memory.dropped += u64::from(dropped);
        memory.unsent = self.pending.len();
    }

    fn begin(&mut self, begun: &Begun) {
        let begun = bounded_begun(begun);
        self.inner.memory().counts.begin(&begun);
        let key = (begun.invocation_id.clone(), begun.mnemonic.clone());
        let is_known = self.opened.contains_key(&key);
        if begun.invocation_id.is_empty() || (!is_known && self.opened.len() >= MAX_BEGUN) {
            return;
        }
        match self.opened.get_mut(&key) {
            Some(all) => {
                all.requests += begun.requests;
                all.missed += begun.missed;
                (all.at, all.last_at) = (all.at.min(begun.at), all.last_at.max(begun.last_at));
            }
            None => {
                self.opened.insert(key, begun);
            }
        }
    }

    /// Sends what is pending.
    async fn send(&mut self) {
        self.due = None;
        for begun in std::mem::take(&mut self.opened).into_values() {
            self.push(Kind::Begun, begun.encode_to_vec());
        }
        while !self.pending.is_empty() {
            if self.in_batch == 0 {
                self.batch += 1;
                self.in_batch = self.next_batch();
            }
            let sent = self.stream.add(self.batch, self.pending.iter().take(self.in_batch)).await;
            if let Err(error) = sent {
                return self.back_off(&error);
            }
            self.failures = 0;
            self.pending.drain(..self.in_batch);
            self.in_batch = 0;
            self.inner.memory().unsent = self.pending.len();
        }
    }

    /// How many of the pending entries go into one batch.
    fn next_batch(&self) -> usize {
        let mut bytes = 0;
        let fits = self.pending.iter().take(self.inner.config.batch_count).take_while(|next| {
            bytes += next.1.len();
            bytes <= MAX_BATCH_BYTES
        });
        fits.count().max(1)
    }

    fn back_off(&mut self, error: &RedisError) {
        self.failures += 1;
        let backoff = Backoff::new(self.inner.config.batch_delay, MAX_BACKOFF);
        let delay = backoff.pause(self.failures);
        self.inner.memory().failed_writes += 1;
        self.due = Some(Instant::now() + delay);
        let error = chain(error);
        tracing::warn!(error, ?delay, "the fleet does not hear what finished; trying again");
    }
}
