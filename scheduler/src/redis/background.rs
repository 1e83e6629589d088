//! What goes on without being asked: the channel, heartbeats, timers, waiters that left.

use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError, Weak};
use std::time::Duration;

use kiln_cas::redis::{Event, Subscription};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::queue::TaskId;

use super::Inner;
use super::calls::{Answer, CallError};
use super::react::Own;
use super::script::{self, Arguments};
use super::wire::parse_all;

/// How many times a frontend says that it and its workers are alive, in one call for all, within
/// the time after which they are taken for lost.
const BEATS: f64 = 3.5;
/// Tasks asked about in one call.
const MAX_LOOKED_AT: usize = 500;
/// Before Redis is asked again after it did not answer.
const PAUSE: Duration = Duration::from_secs(1);

/// Follows the frontend's channel for as long as there is a frontend.
pub async fn listen(inner: Weak<Inner>, mut subscription: Subscription) {
    while let Some(event) = subscription.next().await {
        let Some(inner) = inner.upgrade().filter(|inner| !inner.is_closed()) else { return };
        match event {
            Event::Message { payload, .. } => match parse_all(payload) {
                Ok(told) => {
                    inner.hear(told);
                    inner.count_busy();
                }
                Err(error) => tracing::error!(%error, "a message of another frontend is lost"),
            },
            Event::Reconnected => inner.catch_up().await,
        }
    }
}

/// Beats, ticks and tells who has left, until the frontend is closed.
pub async fn run(inner: Weak<Inner>, wake: Arc<Notify>) {
    let mut next_beat = Instant::now();
    loop {
        let Some(strong) = inner.upgrade().filter(|inner| !inner.is_closed()) else { return };
        let at = strong.due().map_or(next_beat, |tick| tick.min(next_beat));
        drop(strong);
        tokio::select! {
            () = tokio::time::sleep_until(at) => {}
            () = wake.notified() => {}
        }
        let Some(strong) = inner.upgrade().filter(|inner| !inner.is_closed()) else { return };
        strong.flush_left().await;
        let now = Instant::now();
        if next_beat <= now {
            next_beat = now + strong.beat_every();
            strong.beat().await;
            if strong.lapsed.swap(false, Ordering::AcqRel) {
                strong.catch_up().await;
            }
        }
        if strong.due().is_some_and(|due| due <= now) {
            strong.tick().await;
        }
    }
}

impl Inner {
    fn due(&self) -> Option<Instant> {
        *self.next_tick.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn beat_every(&self) -> Duration {
        Duration::from_millis(self.limits.heartbeat_timeout).div_f64(BEATS)
    }

    /// Calls, and is called again a little later when that failed.
    async fn try_call(self: &Arc<Self>, arguments: Arguments) -> Result<(), CallError> {
        let result = self.calls.again(arguments).await;
        match result {
            Ok(answer) => {
                self.answered(answer, Own::default());
                Ok(())
            }
            Err(error) => {
                tracing::warn!(%error, "the queue does not answer");
                self.arm(Some(Instant::now() + PAUSE));
                Err(error)
            }
        }
    }

    async fn tick(self: &Arc<Self>) {
        // Whether it succeeds or not, the next time is set.
        let _ = self.try_call(vec![b"tick".to_vec()]).await;
    }

    async fn beat(self: &Arc<Self>) {
        let beats = self.lock().take_heartbeats();
        if self.try_call(script::beat(&self.names.secret(), &beats)).await.is_ok() {
            return;
        }
        // Said again with the next beat, unless the worker has spoken since.
        let now = Instant::now();
        let mut local = self.lock();
        for (worker, leases) in beats {
            if let Some(session) = local.sessions.get_mut(&worker) {
                session.heard.get_or_insert((leases, now));
            }
        }
    }

    /// Tells Redis of the waiters that have left. Not twice: when the answer is lost, the next
    /// time that all is compared sets it right.
    async fn flush_left(self: &Arc<Self>) {
        let (left, gave_up) = {
            let mut local = self.lock();
            (std::mem::take(&mut local.left), std::mem::take(&mut local.gave_up))
        };
        for (event, operations) in [("detach", left), ("gave_up", gave_up)] {
            for operations in operations.chunks(MAX_LOOKED_AT) {
                match self.calls.once(script::left(event, operations)).await {
                    Ok(answer) => self.answered(answer, Own::default()),
                    Err(error) => tracing::warn!(%error, "the queue was not told who left"),
                }
            }
        }
    }

    /// After messages may have been lost: asks for everything that somebody waits for here, and
    /// says what that is, and what is published here.
    async fn catch_up(self: &Arc<Self>) {
        while !self.is_closed() {
            match self.compare().await {
                Ok(()) => return,
                Err(error) => {
                    tracing::warn!(%error, "the queue does not answer; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    async fn compare(self: &Arc<Self>) -> Result<(), CallError> {
        let waits: Vec<(TaskId, usize)> = {
            let local = self.lock();
            let open = local.tasks.iter().filter(|(_, watched)| !watched.is_done());
            open.map(|(task, watched)| (*task, watched.tickets)).collect()
        };
        let answer: Answer = self.calls.again(script::waits(&waits)).await?;
        self.answered(answer, Own::default());
        let publishing: Vec<TaskId> = self.lock().publishing.iter().copied().collect();
        let answer = self.calls.again(script::tasks("publishes", &publishing)).await?;
        self.answered(answer, Own::default());
        let tasks: Vec<TaskId> = waits.iter().map(|(task, _)| *task).collect();
        for tasks in tasks.chunks(MAX_LOOKED_AT) {
            let answer = self.calls.again(script::tasks("look", tasks)).await?;
            self.answered(answer, Own::default());
        }
        Ok(())
    }
}
