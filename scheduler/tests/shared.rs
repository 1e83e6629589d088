//! The same tests of the services, with the queue in a real Redis.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

/// Whether the queue is in Redis.
const SHARED: bool = true;

#[path = "services/errors.rs"]
mod errors;
#[path = "services/execute.rs"]
mod execute;
#[path = "services/fanout.rs"]
mod fanout;
#[path = "services/fanout_fleet.rs"]
mod fanout_fleet;
#[path = "services/fanout_rig.rs"]
mod fanout_rig;
#[path = "services/faults.rs"]
mod faults;
#[path = "services/fleet.rs"]
mod fleet;
#[path = "services/harness/mod.rs"]
mod harness;
#[path = "services/hedging.rs"]
mod hedging;
#[path = "services/hedging_fleet.rs"]
mod hedging_fleet;
#[path = "services/merging.rs"]
mod merging;
#[path = "services/operations.rs"]
mod operations;
#[path = "services/outages.rs"]
mod outages;
#[path = "services/quotas.rs"]
mod quotas;
#[path = "services/shards.rs"]
mod shards;
#[path = "services/truth.rs"]
mod truth;
#[path = "services/workers.rs"]
mod workers;
