//! The worker: input roots, sandbox, outputs.
//!
//! A lease passes through these modules in this order: [`session`] takes it and `work` gives it
//! to a free slot; `execute` fetches Action and Command and asks [`input_root`] for the tree;
//! [`command`] says what to run, [`images`] with which root file system; [`runner`] runs it in
//! the [`sandbox`] while `streams` keeps
//! what it prints; [`outputs`] names and stores what it left; [`response`] is what the client gets.

pub mod command;
pub mod config;
mod execute;
pub mod failure;
mod health;
mod hermeticity;
pub mod images;
pub mod input_root;
mod isolation;
mod keyed_lock;
pub mod lease_blobs;
pub mod outputs;
pub mod paths;
pub mod persistent;
pub mod platform;
pub mod remote;
mod report;
pub mod response;
pub mod runner;
pub mod sandbox;
mod sandbox_runners;
pub mod session;
pub mod spool;
mod status;
mod streams;
mod unacknowledged;
mod work;
pub mod worker;

pub use config::{SandboxMode, WorkerConfig};
pub use failure::Failure;
pub use status::{Condition, Observer, WorkerStatus};
pub use worker::{Worker, WorkerError, run};
