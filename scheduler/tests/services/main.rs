//! The services as clients and workers see them, over real gRPC.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

mod execute;
mod faults;
mod harness;
mod merging;
mod operations;
mod workers;
