//! The services as clients and workers see them, over real gRPC.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

/// Whether the queue is in Redis.
const SHARED: bool = false;

mod errors;
mod execute;
mod fanout;
mod fanout_rig;
mod faults;
#[allow(dead_code, reason = "several frontends are only tested on a shared queue")]
mod harness;
mod hedging;
mod merging;
mod operations;
mod quotas;
mod shards;
mod truth;
mod workers;
