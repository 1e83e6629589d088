//! Test intelligence: what runs of tests say about the tests, and what follows from it.

pub mod attempts;
pub mod durations;
pub mod ephemeral;
pub mod events;
pub mod flakes;
pub mod forges;
pub mod gate;
pub mod history;
pub mod impact;
pub mod imports;
pub mod junit;
pub mod model;
pub mod pipelines;
pub mod plans;
pub mod quarantine;
pub mod queue;
pub mod recording;
pub mod services;
pub mod shards;
pub mod stages;
mod start;
pub mod storage;
mod upkeep;
pub mod verdicts;

pub use recording::{Recorder, Recordings};
pub use start::{CiOptions, CiParts, CiServices};
