//! How many agents there may be, and how long one is believed.

use std::time::Duration;

/// An agent that was not heard of for so long is silent. Three reports may be lost.
pub const SILENT: Duration = Duration::from_secs(30);
/// An agent that was not heard of for so long is forgotten.
pub const FORGOTTEN: Duration = Duration::from_secs(30 * 24 * 3600);
/// Agents that are registered at most, in all places together.
pub const MAX_AGENTS: u64 = 20_000;
