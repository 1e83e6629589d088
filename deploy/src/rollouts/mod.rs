//! Rollouts: how a release comes to its targets, step by step, and back. What is decided (`machine`, `plan`) is pure;
//! what it stands on (`parts`) is passed in; `control` keeps the logs and carries out what follows from them.
//! docs/rollouts.md says what stands.

pub mod command;
pub mod control;
pub mod machine;
pub mod parts;
pub mod plan;
