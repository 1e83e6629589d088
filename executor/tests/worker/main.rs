//! A worker and its parts: inputs and outputs on a real disk, sessions, the remote store, the real sandbox.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../common/mod.rs"]
mod common;
#[path = "../common/scheduler.rs"]
mod scheduler;

mod input_root;
mod outputs;
mod remote;
mod resume;
mod sandboxed;
mod session;
