//! Tools that stay between actions, in a worker with the real sandbox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/scheduler.rs"]
mod scheduler;

mod endings;
mod harness;
mod keeping;
mod requests;
