//! Tests of releases, the registry, promotion, rollouts and agents.

mod agents;
mod example;
mod judge;
mod promotion;
mod registry;
mod release;
mod releases;
mod rollouts;
mod sharing;
mod ship;
#[path = "../support/mod.rs"]
mod support;
mod switching;
mod told;
mod verifiers;
mod way;
