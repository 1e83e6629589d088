//! Several frontends and workers on one Redis and one S3: what they do together, and what
//! becomes of builds when any of them fails.

#![allow(clippy::panic, clippy::unwrap_used)]

mod absence;
mod builds;
mod clocks;
mod cluster;
mod copies;
mod drain;
#[path = "../server/telemetry/exposition.rs"]
mod exposition;
mod history;
mod losses;
mod merge_queues;
mod probes;
mod redis;
mod releases;
mod rig;
mod rounds;
mod s3;
mod secrets;
mod secured;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod workers;
