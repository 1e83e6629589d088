//! Tools that stay between actions: Bazel's persistent workers, inside the sandbox.
//!
//! | module | what it does |
//! | --- | --- |
//! | `arguments` | what of a command starts the tool, and what is the request |
//! | `plan` | whether an action can be a request to a tool, to which, and which one |
//! | [`protocol`] | requests and responses as bytes |
//! | `pool` | which tools are kept, and for whom |
//! | `tools` | starts and ends them, and has them do what an action would |
//! | `warm` | a tool that runs: a request to it, and its way back to those that wait |
//!
//! An action whose tool cannot stay, or for which there is no room, runs by itself, as all others do.
//! See docs/persistent-workers.md.

mod arguments;
mod json;
mod plan;
mod pool;
pub mod protocol;
mod stats;
mod tail;
mod tools;
mod warm;

use std::time::Duration;

pub use arguments::{Arguments, ExpandError, is_flag_file, lines, split};
pub use plan::{Job, Subject, Unfit};
pub use stats::{ToolFigures, ToolStats};
pub use tools::Tools;
pub use warm::{Kept, ToolAnswer};

/// Most tools on one machine: each has a user of its own, from a range that ends.
pub const MAX_TOOLS: u32 = 1024;

/// How many tools stay, and for how long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PersistentConfig {
    /// Most tools at a time, those that work included. 0: every action runs by itself.
    pub tools: u32,
    /// How long a tool may wait for a request before it is ended.
    pub idle: Duration,
    /// How many requests a tool may answer before it is ended, whatever it has leaked by then.
    pub requests: u32,
}

impl PersistentConfig {
    /// Settings that allow a tool for each of `slots` actions that run at a time.
    pub fn of_slots(slots: u32) -> Self {
        Self { tools: slots.min(MAX_TOOLS), idle: Duration::from_secs(300), requests: 10_000 }
    }
}
