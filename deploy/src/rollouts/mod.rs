//! Rollouts: how a release comes to its targets, step by step, and back. Pure: what is decided here
//! is carried out elsewhere. docs/rollouts.md says what stands.

pub mod machine;
pub mod plan;
