//! Test intelligence: what runs of tests say about the tests, and what follows from it.

pub mod durations;
pub mod flakes;
pub mod gate;
pub mod impact;
pub mod junit;
pub mod model;
pub mod quarantine;
pub mod shards;
