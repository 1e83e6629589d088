//! What goes on without being asked: the channel, heartbeats, timers, waiters that left.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};
use std::time::Duration;

use kiln_cas::redis::{Event, Subscription};
use kiln_net::Backoff;
use kiln_net::causes::chain;
use kiln_net::panics::caught;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::frontend::inner::Inner;
use crate::frontend::react::Own;
use crate::queue::TaskId;

use super::calls::{CallError, Heard};
use super::engine::RedisEngine;
use super::script::{self, Arguments};

/// Tasks asked about in one call.
const MAX_LOOKED_AT: usize = 500;
/// Clients wait for nothing longer than this that the queue knows to have ended, whatever got lost.
const COMPARED_EVERY: Duration = Duration::from_secs(60);
/// The pause before Redis is asked again after it did not answer: it may be back at any moment.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(1));

type Frontend = Arc<Inner<RedisEngine>>;

fn open(frontend: &Weak<Inner<RedisEngine>>) -> Option<Frontend> {
    frontend.upgrade().filter(|frontend| !frontend.engine.is_closed())
}

/// Follows the frontend's channel for as long as there is a frontend.
pub async fn listen(frontend: Weak<Inner<RedisEngine>>, mut subscription: Subscription) {
    while let Some(event) = subscription.next().await {
        let Some(frontend) = open(&frontend) else { return };
        if let Err(panicked) = caught(async { heard(&frontend, event) }).await {
            compare_soon(&frontend);
            drop(frontend);
            panicked.goes_on("news of other frontends").await;
        }
    }
}

fn heard(frontend: &Frontend, event: Event) {
    match event {
        Event::Message { payload, .. } => match frontend.engine.calls.parse_message(payload) {
            Ok(said) => frontend.hear(said.told),
            Err(error) => {
                tracing::error!(error = chain(&error), "a message of another frontend is lost");
                frontend.engine.doubted.store(true, Ordering::Release);
            }
        },
        Event::Reconnected => compare_soon(frontend),
    }
}

/// Has the background task compare what this frontend waits for and publishes with what the queue
/// knows, soon.
fn compare_soon(frontend: &Frontend) {
    frontend.engine.lapsed.store(true, Ordering::Release);
    frontend.engine.wake.notify_one();
}

/// Beats, ticks and tells who has left, until the frontend is closed.
pub async fn run(frontend: Weak<Inner<RedisEngine>>, wake: Arc<Notify>) {
    while let Err(panicked) = caught(turns(&frontend, &wake)).await {
        if let Some(frontend) = open(&frontend) {
            frontend.engine.lapsed.store(true, Ordering::Release);
        }
        panicked.goes_on("the frontend's beats").await;
    }
}

async fn turns(frontend: &Weak<Inner<RedisEngine>>, wake: &Notify) {
    let mut next_beat = Instant::now();
    let mut next_comparison = next_beat + COMPARED_EVERY;
    loop {
        let Some(strong) = open(frontend) else { return };
        let at = strong.engine.due().map_or(next_beat, |tick| tick.min(next_beat));
        drop(strong);
        tokio::select! {
            () = tokio::time::sleep_until(at) => {}
            () = wake.notified() => {}
        }
        let Some(strong) = open(frontend) else { return };
        flush_left(&strong).await;
        let now = Instant::now();
        let beats = next_beat <= now;
        if beats {
            next_beat = now + strong.engine.beat_every;
            // Whether it succeeds or not, the next time is set.
            let _ = beat(&strong).await;
        }
        let lapsed = strong.engine.lapsed.swap(false, Ordering::AcqRel);
        let doubted = beats && strong.engine.doubted.swap(false, Ordering::AcqRel);
        if lapsed || doubted || beats && next_comparison <= now {
            next_comparison = now + COMPARED_EVERY;
            if let Err(error) = compare(&strong, lapsed).await {
                tracing::warn!(error = chain(&error), "the queue does not answer; trying again");
                // Beats and ticks go on meanwhile.
                let again = if lapsed { &strong.engine.lapsed } else { &strong.engine.doubted };
                again.store(true, Ordering::Release);
                strong.engine.arm(Some(Instant::now() + AGAIN.pause(1)));
            }
        }
        if strong.engine.due().is_some_and(|due| due <= now) {
            let _ = try_call(&strong, vec![b"tick".to_vec()]).await;
        }
    }
}

fn answered(frontend: &Frontend, heard: Heard) {
    let after = frontend.react(frontend.engine.noted(heard), Own::default());
    frontend.follow_up(after);
}

async fn call(frontend: &Frontend, arguments: Arguments) -> Result<(), CallError> {
    answered(frontend, frontend.engine.calls.again(arguments).await?);
    Ok(())
}

/// Calls, and is called again a little later when that failed.
async fn try_call(frontend: &Frontend, arguments: Arguments) -> Result<(), CallError> {
    let result = call(frontend, arguments).await;
    if let Err(error) = &result {
        tracing::warn!(error = chain(error), "the queue does not answer");
        frontend.engine.arm(Some(Instant::now() + AGAIN.pause(1)));
    }
    result
}

/// Says that this frontend and its workers are alive.
pub async fn beat(frontend: &Frontend) -> Result<(), CallError> {
    let beats = frontend.lock().take_heartbeats();
    let told = try_call(frontend, script::beat(&frontend.names.secret(), &beats)).await;
    if told.is_err() {
        frontend.lock().put_back(beats);
    }
    told
}

/// Tells Redis of the waiters that have left. Those who may come back not twice: when the answer is lost, the next time
/// that all is compared sets it right.
async fn flush_left(frontend: &Frontend) {
    let engine = &frontend.engine;
    let left = engine.take_left();
    for operations in left.gone.chunks(MAX_LOOKED_AT) {
        told(frontend, engine.calls.once(script::left("detach", operations)).await);
    }
    for operations in left.gave_up.chunks(MAX_LOOKED_AT) {
        told(frontend, engine.gave_up(operations).await);
    }
}

/// Takes in the script's answer after it was told which waiters left; an error is logged, and leads
/// to a comparison.
fn told(frontend: &Frontend, told: Result<Heard, CallError>) {
    match told {
        Ok(heard) => answered(frontend, heard),
        Err(error) => {
            frontend.engine.lapsed.store(true, Ordering::Release);
            tracing::warn!(error = chain(&error), "the queue was not told who left");
        }
    }
}

/// After messages may have been lost: asks for everything that somebody waits for here, and
/// says what that is, and what is published here. `lapsed`: what the queue believes beyond that is wrong.
/// Not while somebody else calls [`flush_left`]: who left since this began would be counted for ever.
async fn compare(frontend: &Frontend, lapsed: bool) -> Result<(), CallError> {
    if lapsed {
        let waits = frontend.lock().waits();
        call(frontend, script::waits(&waits, true)).await?;
        // Clients that came and left meanwhile are counted wrongly now. Those that are known by then are told
        // below, those whose call is still under way when it ends.
        frontend.lock().early.doubt();
        flush_left(frontend).await;
        let publishing: Vec<TaskId> = frontend.lock().publishing.values().copied().collect();
        call(frontend, script::tasks("publishes", &publishing)).await?;
    }
    let waits = frontend.lock().waits();
    if waits.is_empty() {
        return Ok(());
    }
    call(frontend, script::waits(&waits, false)).await?;
    let tasks: Vec<TaskId> = waits.iter().map(|(task, _)| *task).collect();
    for tasks in tasks.chunks(MAX_LOOKED_AT) {
        call(frontend, script::tasks("look", tasks)).await?;
    }
    Ok(())
}
