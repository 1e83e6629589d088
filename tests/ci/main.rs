//! Tests of test intelligence, change impact, the merge queue and its forges, and pipelines.

mod example_tests;
mod forges;
mod hosted_queue;
mod impact;
mod impact_buck2;
mod independent;
mod pipelines;
mod plans;
mod queue;
mod stages;
mod suite;
#[path = "../support/mod.rs"]
mod support;
mod told;
mod verdicts;
