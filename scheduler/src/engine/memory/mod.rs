//! The state machine behind one lock, and timers.
//!
//! Nothing runs while nothing is due: one task sleeps until the machine's next timer.

mod tasks;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use kiln_cas::logs::LogStreams;
use kiln_net::panics::caught;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::api::Unavailable;
use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::frontend::Frontend;
use crate::frontend::engine::{Call, Engine};
use crate::frontend::inner::Inner;
use crate::frontend::react::Own;
use crate::frontend::told::Told;
use crate::names::Names;
use crate::queue::{Event, Limits, Millis, OperationId};

use tasks::Queued;

/// The queue's state machine in this process, behind a lock.
pub struct MemoryEngine {
    state: Mutex<EngineState>,
    started: Instant,
    timer: Arc<Notify>,
}

struct EngineState {
    queued: Queued,
    /// The time on the machine's clock until which the timer task sleeps; the maximum: nothing is
    /// due.
    armed: Millis,
}

/// The queue of this process alone. Must be called within a Tokio runtime.
pub fn start(
    config: &SchedulerConfig,
    logs: LogStreams,
    completion: SharedCompletion,
) -> Frontend<MemoryEngine> {
    let engine = MemoryEngine::new(config.limits.clone());
    let timer = engine.timer.clone();
    let inner = Inner::new(config, engine, Arc::new(Names::new()), logs, completion);
    tokio::spawn(run_timers(Arc::downgrade(&inner), timer));
    Frontend { inner }
}

/// Feeds the machine when something is due, until the queue is gone.
async fn run_timers(inner: Weak<Inner<MemoryEngine>>, wake: Arc<Notify>) {
    loop {
        let Some(strong) = inner.upgrade() else { return };
        let at = strong.engine.arm();
        drop(strong);
        match at {
            Some(at) => {
                tokio::select! {
                    () = tokio::time::sleep_until(at) => {}
                    () = wake.notified() => {}
                }
            }
            None => wake.notified().await,
        }
        let Some(strong) = inner.upgrade() else { return };
        if let Err(panicked) = caught(async { happened(&strong, Event::Tick) }).await {
            strong.look_again().await;
            drop(strong);
            panicked.goes_on("the queue's timers").await;
        }
    }
}

fn happened(frontend: &Arc<Inner<MemoryEngine>>, event: Event) {
    let react = |told| frontend.react(told, Own::default());
    frontend.follow_up(frontend.engine.turn(Call::Event(event), react));
}

impl MemoryEngine {
    pub(crate) fn new(limits: Limits) -> Self {
        let state = EngineState { queued: Queued::new(limits), armed: Millis::MAX };
        Self { state: Mutex::new(state), started: Instant::now(), timer: Arc::default() }
    }

    fn lock(&self) -> MutexGuard<'_, EngineState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> Millis {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(Millis::MAX)
    }

    /// When the timer task must wake up.
    fn arm(&self) -> Option<Instant> {
        let mut state = self.lock();
        let next = state.queued.next_timer();
        state.armed = next.unwrap_or(Millis::MAX);
        next.map(|next| self.started + Duration::from_millis(next))
    }

    /// Makes a call, and reacts to what it led to while the lock is held, so that what follows is
    /// carried out in the order of the calls.
    fn turn<T>(&self, call: Call, react: impl FnOnce(Vec<Told>) -> T) -> T {
        let mut state = self.lock();
        let told = state.queued.take(self.now(), call);
        let value = react(told);
        let next = state.queued.next_timer().unwrap_or(Millis::MAX);
        let earlier = next < state.armed;
        if earlier {
            state.armed = next;
        }
        drop(state);
        if earlier {
            self.timer.notify_one();
        }
        value
    }
}

impl Drop for MemoryEngine {
    fn drop(&mut self) {
        self.timer.notify_one();
    }
}

impl Engine for MemoryEngine {
    const HEARTBEATS_TOGETHER: bool = false;

    async fn call<T: Send>(
        &self,
        call: Call,
        react: impl FnOnce(Vec<Told>) -> T + Send,
    ) -> Result<T, Unavailable> {
        Ok(self.turn(call, react))
    }

    fn left(frontend: &Arc<Inner<Self>>, id: OperationId, gave_up: bool) {
        let event = if gave_up { Event::GaveUp } else { Event::Detach };
        happened(frontend, event(id));
    }

    /// Does nothing: effects are carried out in the order of the calls here, so that no news is
    /// missed.
    fn doubt(&self) {}

    fn close(&self) {
        self.turn(Call::Drain(Vec::new()), drop);
    }
}
