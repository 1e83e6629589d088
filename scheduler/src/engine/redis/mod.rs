//! The queue in Redis, shared by any number of frontends.
//!
//! The state machine is a script (`lua/`) that runs in Redis, one event at a time. What concerns
//! another frontend than the one that told the event (its worker gets a lease, its client's action
//! has ended) reaches that one over its channel. A message that gets lost does no harm: leases that
//! a worker does not know are given up after two heartbeats, and a frontend whose channel was cut
//! asks for all that it waits for.

mod background;
mod calls;
mod engine;
mod lease_blobs;
pub mod payload;
pub mod script;
pub mod wire;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use kiln_cas::logs::LogStreams;
use kiln_cas::redis::Redis;

use crate::api::Unavailable;
use crate::completion::SharedCompletion;
use crate::config::SchedulerConfig;
use crate::frontend::Frontend;
use crate::frontend::inner::Inner;
use crate::names::{Names, draw_secret};

use calls::{CallError, Calls};
pub use engine::RedisEngine;

/// Joins the queue in `redis`. Must be called within a Tokio runtime. Errors: Redis does not
/// answer, or holds a queue of another version.
pub async fn join(
    config: &SchedulerConfig,
    redis: Redis,
    logs: LogStreams,
    completion: SharedCompletion,
) -> Result<Frontend<RedisEngine>, Unavailable> {
    // The standard library seeds its hasher from the system's randomness.
    let random = RandomState::new().hash_one(std::process::id());
    let frontend = format!("{random:016x}");
    let calls = Calls::new(redis, &frontend, &config.limits);
    let channel = calls.channel(&frontend);
    let subscription = calls.redis().subscribe(vec![channel]).await.map_err(CallError::from)?;
    let names = Arc::new(Names::shared(calls.key(), &draw_secret()));
    let engine = RedisEngine::new(calls, names.clone(), completion.clone(), &config.limits);
    let inner = Inner::new(config, engine, names, logs, completion);
    // From now on it is noticed when this frontend is gone.
    background::beat(&inner).await?;
    // It waits for nothing yet.
    inner.engine.lapsed.store(false, Ordering::Release);
    tokio::spawn(background::listen(Arc::downgrade(&inner), subscription));
    tokio::spawn(background::run(Arc::downgrade(&inner), inner.engine.wake.clone()));
    Ok(Frontend { inner })
}
