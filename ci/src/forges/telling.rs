//! Tells a forge what becomes of changes: in order, at least once, at the pace of the forge. How far it has come is in
//! records, and one process of a fleet tells at a time.

use std::time::Duration;

use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::{Panicked, caught};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::calls;
use super::client::{Api, Failed};
use super::comment;
use super::figures::count;
use super::forge::Binding;
use super::heard::{Heard, Turned};
use super::status::{Notices, Rejection, Status, notices, turned_down};
use crate::queue::hosted::{Feed, HostedError, Queues, Told};
use crate::queue::serving::LaneName;

/// How often it is looked whether there is something to tell.
const LOOK: Duration = Duration::from_secs(2);
/// Pauses between tries while the forge does not take what it is told.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(300));
/// Steps that are told at once.
const AT_ONCE: usize = 20;
/// Tries of a comment: statuses do not wait for it.
const COMMENT_TRIES: u32 = 3;

/// Tells one forge what became of changes.
pub struct Teller {
    api: Api,
    queues: Queues,
    feed: Feed,
    base_url: String,
    heard: Heard,
}

/// Why a round ended early.
enum Stopped {
    Queues(HostedError),
    Forge(String, Option<Duration>),
}

impl From<HostedError> for Stopped {
    fn from(error: HostedError) -> Self {
        Self::Queues(error)
    }
}

impl Teller {
    /// `base_url`: where pages are, for links.
    pub fn new(api: Api, queues: Queues, base_url: &str, heard: Heard) -> Self {
        let feed = queues.feed(format!("forge-{}", api.forge().name));
        Self { api, queues, feed, base_url: base_url.to_owned(), heard }
    }

    /// Tells the forge of what happens, until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let forge = self.api.forge().name.clone();
        let mut failures = 0;
        loop {
            let round = caught(self.round(failures)).await;
            let lost = |panicked: Panicked| Err(Stopped::Forge(panicked.to_string(), None));
            let pause = match round.unwrap_or_else(lost) {
                Ok(()) => {
                    failures = 0;
                    LOOK
                }
                Err(Stopped::Queues(error)) => {
                    failures += 1;
                    tracing::warn!(%forge, error = chain(&error), "queues cannot be read");
                    AGAIN.pause(failures)
                }
                Err(Stopped::Forge(why, after)) => {
                    failures += 1;
                    tracing::warn!(%forge, why, failures, "the forge cannot be told for now");
                    AGAIN.pause(failures).max(after.unwrap_or_default())
                }
            };
            self.heard.counts.failing(failures);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.wait(pause) => {}
            }
        }
    }

    /// Meanwhile it is told what was turned down, once each.
    async fn wait(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        loop {
            tokio::select! {
                () = tokio::time::sleep_until(until) => return,
                Some(turned) = self.heard.turned.recv() => self.turned(&turned).await,
            }
        }
    }

    async fn turned(&self, turned: &Turned) {
        let mut all = self.api.forge().rules.bindings.iter();
        let Some(binding) = all.find(|it| it.repository.is(&turned.repository)) else { return };
        let status = turned_down(turned, &self.base_url);
        if let Err(Stopped::Forge(why, _)) = self.status(binding, &status).await {
            let forge = &self.api.forge().name;
            tracing::warn!(%forge, why, "the forge is not told what cannot be queued");
        }
    }

    /// Tells what is new. `failures`: so often in a row the forge did not take what it was told.
    async fn round(&self, failures: u32) -> Result<(), Stopped> {
        // One alone, where it is not known whether the forge is there, and of another queue each time: what it refuses of
        // one repository holds up no other.
        let limit = if failures > 0 { 1 } else { AT_ONCE };
        let first = usize::try_from(failures).unwrap_or_default();
        let told = self.feed.take_from(limit, first).await?;
        let of_step = |it: &Told| self.bindings(&it.queue).next().is_some();
        let notices = notices(&told, &self.base_url);
        for (step, notices) in told.iter().zip(notices).filter(|(step, _)| of_step(step)) {
            // A step may be of many changes, and the forge slow.
            match self.feed.telling(self.tell(&step.queue, &notices)).await {
                Some(told) => told?,
                // Another process tells by now.
                None => return Ok(()),
            }
            self.feed.done(step).await?;
        }
        // Queues that are none of this forge's: the newest step is noted for those before it.
        for step in told.iter().rev().filter(|it| !of_step(it)) {
            self.feed.done(step).await?;
        }
        Ok(())
    }

    /// The branches that a queue lands on at this forge.
    fn bindings(&self, queue: &LaneName) -> impl Iterator<Item = &Binding> {
        self.api.forge().rules.bindings.iter().filter(move |it| it.queue == *queue)
    }

    async fn tell(&self, queue: &LaneName, notices: &Notices) -> Result<(), Stopped> {
        for binding in self.bindings(queue) {
            for status in &notices.statuses {
                self.status(binding, status).await?;
            }
            if self.api.forge().comment {
                for rejection in &notices.rejections {
                    self.comment(binding, rejection).await;
                }
            }
        }
        Ok(())
    }

    async fn status(&self, binding: &Binding, status: &Status) -> Result<(), Stopped> {
        let call = calls::status(self.api.forge().kind, &binding.repository, status);
        match self.api.send(&call).await {
            Ok(_) => {
                count(&self.heard.counts.told);
                Ok(())
            }
            Err(Failed::Later { why, after }) => Err(Stopped::Forge(why, after)),
            Err(Failed::Refused(why)) => {
                let (forge, repository) = (&self.api.forge().name, &binding.repository);
                count(&self.heard.counts.untold);
                tracing::warn!(%forge, %repository, commit = %status.commit, why, "a status is refused");
                Ok(())
            }
        }
    }

    /// What cannot be said in a few tries is left out: the status says it as well.
    async fn comment(&self, binding: &Binding, rejection: &Rejection) {
        for failures in 1..=COMMENT_TRIES {
            let (why, after) = match self.try_comment(binding, rejection).await {
                Ok(()) => return,
                Err(Failed::Later { why, after: None }) if failures < COMMENT_TRIES => {
                    (why, AGAIN.pause(failures))
                }
                Err(failed) => {
                    count(&self.heard.counts.untold);
                    let forge = &self.api.forge().name;
                    let branch = &rejection.branch;
                    tracing::warn!(%forge, %branch, why = %failed, "a rejection is not commented on");
                    return;
                }
            };
            tracing::debug!(why, "a comment is tried again");
            tokio::time::sleep(after).await;
        }
    }

    async fn try_comment(&self, binding: &Binding, rejection: &Rejection) -> Result<(), Failed> {
        let kind = self.api.forge().kind;
        let call = calls::changes_of(kind, binding, &rejection.branch);
        let answer = self.api.send(&call).await?;
        let Some(number) = calls::number(&answer) else { return Ok(()) };
        let log = match rejection.run {
            Some(run) => self.queues.run_of(&rejection.queue, run).await.ok().map(|it| it.log),
            None => None,
        };
        let text = comment::text(rejection, log.as_deref());
        self.api.send(&calls::comment(kind, &binding.repository, number, &text)).await?;
        count(&self.heard.counts.told);
        Ok(())
    }
}
