//! Follows the stream: learns from it at every frontend, and writes it down at one of them.

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::records::RecordsError;
use kiln_cas::redis::Subscription;
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::clock::until;
use kiln_net::panics::caught;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::author::{Author, MAX_CHANGES};
use super::stream::{News, Page, Stream};
use crate::journal::shared::Inner;
use crate::journal::store::Meta;
use crate::journal::writer::{Command, MAX_BACKOFF, PRUNE_STEPS};

/// When nothing was written for so long although something is there to write, another frontend
/// begins to. If the first one is only slow, one of the two finds that it is no writer any more.
pub const TAKE_OVER: Duration = Duration::from_secs(2);
/// Milliseconds over which the frontends' attempts to take over are spread, so that not all begin
/// at once.
const SPREAD_MILLIS: u64 = 1000;
/// How often a writer that is busy says so.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// How long after an entry was added the writer looks at the stream.
const GATHER: Duration = Duration::from_millis(400);
/// How long after an entry was added a frontend looks that only learns durations from the stream.
const GATHER_TO_LEARN: Duration = Duration::from_secs(1);

pub struct Follower {
    inner: Arc<Inner>,
    stream: Stream,
    subscription: Subscription,
    commands: mpsc::Receiver<Command>,
    /// Place of the last execution that was learned from.
    followed: u64,
    /// `None`: another frontend is the writer, or nobody.
    author: Option<Author>,
    /// When to look whether there is something to do; `None`: not before there are news.
    due: Option<Instant>,
    /// When to look at what was added; `None`: nothing was.
    gathered: Option<Instant>,
    failures: u32,
}

impl Follower {
    pub fn new(
        inner: Arc<Inner>,
        stream: Stream,
        subscription: Subscription,
        commands: mpsc::Receiver<Command>,
    ) -> Self {
        let followed = inner.meta().last_seq;
        // What was left by frontends that are gone.
        let due = Some(Instant::now());
        Self {
            inner,
            stream,
            subscription,
            commands,
            followed,
            author: None,
            due,
            gathered: None,
            failures: 0,
        }
    }

    pub async fn run(mut self) {
        while let Err(panicked) = caught(self.turns()).await {
            panicked.goes_on("the journal of the fleet").await;
        }
    }

    async fn turns(&mut self) {
        loop {
            let (due, gathered) = (self.due, self.gathered);
            tokio::select! {
                biased;
                command = self.commands.recv() => match command {
                    Some(Command::Flush(done)) => {
                        self.look().await;
                        // Nobody may wait any more.
                        let _ = done.send(());
                    }
                    Some(Command::Shutdown(done)) => {
                        self.look().await;
                        let _ = done.send(());
                        return;
                    }
                    // Every handle is gone: what is in the stream stays there.
                    None => return,
                },
                event = self.subscription.next() => match event.map(|event| self.stream.parse(event)) {
                    Some(News::Added(place)) if place <= self.followed => {}
                    Some(News::Added(_)) => self.gather(),
                    Some(News::Unknown) => self.look().await,
                    Some(News::Written(meta)) => self.hear(meta),
                    Some(News::Own) => {}
                    None => return,
                },
                () = until(gathered) => self.look().await,
                () = until(due) => {
                    let result = self.take_over().await;
                    self.settle(result);
                    self.look().await;
                }
            }
        }
    }

    /// Takes in that another frontend has written.
    fn hear(&mut self, meta: Meta) {
        if let Some(author) = &self.author {
            if meta.last_seq <= author.meta().last_seq {
                // Said before this frontend took over.
                return;
            }
            self.author = None;
        }
        self.inner.publish_meta(meta);
        self.inner.memory().durations.written_elsewhere(meta.last_seq);
        self.due = None;
        self.watch();
    }

    /// Sets the time to look again, where something is not written yet, whether another frontend
    /// has written it.
    fn watch(&mut self) {
        if self.author.is_none() && self.due.is_none() && self.is_behind() {
            self.due = Some(self.later());
        }
    }

    /// Whether something is not written yet, as far as is known here.
    fn is_behind(&self) -> bool {
        self.followed > self.inner.meta().last_seq
    }

    fn later(&self) -> Instant {
        let spread = Duration::from_millis(self.stream.frontend() % SPREAD_MILLIS);
        // Never sooner: whoever writes has to have had its time.
        let pause = Backoff::new(TAKE_OVER, MAX_BACKOFF).pause(self.failures + 1);
        Instant::now() + pause.max(TAKE_OVER) + spread
    }

    /// Becomes the writer, if there is something to write.
    async fn take_over(&mut self) -> Result<(), RecordsError> {
        self.due = None;
        if self.author.is_some() || !self.is_behind() {
            return Ok(());
        }
        let author = Author::open(self.inner.records.clone(), &self.inner.config).await?;
        self.inner.publish_meta(author.meta());
        if self.is_behind() {
            tracing::debug!("this frontend writes the journal from now on");
            self.author = Some(author);
        }
        Ok(())
    }

    /// Sets the time to look at an entry that was added, together with those that others add at
    /// about the same time.
    fn gather(&mut self) {
        let time = if self.author.is_some() { GATHER } else { GATHER_TO_LEARN };
        self.gathered.get_or_insert(Instant::now() + time);
    }

    /// Takes in the entries that are new in the stream.
    async fn look(&mut self) {
        self.gathered = None;
        let result = self.advance().await;
        self.settle(result);
    }

    fn settle(&mut self, result: Result<(), RecordsError>) {
        match result {
            Ok(()) => {
                self.failures = 0;
                self.watch();
            }
            Err(RecordsError::Conflict { .. }) => {
                tracing::debug!("another frontend writes the journal");
                self.due = Some(self.later());
            }
            Err(error) => {
                self.due = Some(self.later());
                self.failures += 1;
                self.inner.memory().failed_writes += 1;
                let error = chain(&error);
                tracing::warn!(
                    error,
                    "the fleet's journal could not be read or written; it will be tried again"
                );
            }
        }
    }

    async fn advance(&mut self) -> Result<(), RecordsError> {
        let mut told = Instant::now();
        let mut untold = false;
        loop {
            let written = self.author.as_ref().map(|author| author.meta().last_seq);
            let page = self.stream.read(written.unwrap_or(self.followed)).await?;
            self.learn(&page);
            if page.last.is_some() && self.author.is_some() {
                self.write(&page).await?;
                untold = true;
            }
            if untold && (!page.full || told.elapsed() >= TELL_EVERY) {
                self.prune().await?;
                self.stream.tell(self.inner.meta()).await?;
                told = Instant::now();
                untold = false;
            }
            if !page.full {
                return Ok(());
            }
        }
    }

    fn learn(&mut self, page: &Page) {
        let mut memory = self.inner.memory();
        for (place, execution) in &page.executions {
            if *place > self.followed {
                memory.durations.observe(execution, *place);
                memory.remember_run(execution);
            }
        }
        self.followed = self.followed.max(page.last.unwrap_or_default());
    }

    async fn write(&mut self, page: &Page) -> Result<(), RecordsError> {
        let Some(mut author) = self.author.take() else { return Ok(()) };
        let changes = self.inner.memory().durations.take_changed(MAX_CHANGES);
        let result = author.write(page, &changes).await;
        match &result {
            Ok(()) => {
                self.inner.publish_meta(author.meta());
                self.author = Some(author);
            }
            Err(_) => self.inner.memory().durations.put_back(changes),
        }
        result
    }

    async fn prune(&mut self) -> Result<(), RecordsError> {
        let Some(mut author) = self.author.take() else { return Ok(()) };
        let mut more = true;
        for _ in 0..PRUNE_STEPS {
            more = more && author.prune(&self.inner.config).await?;
        }
        self.inner.publish_meta(author.meta());
        self.author = Some(author);
        Ok(())
    }
}
