//! Promises: what was reported present is kept for a lease, whatever else needs its room. When
//! a store is full of promises, those to invocations (builds) that are over give way, the oldest
//! first; those to an invocation that runs never do.
//!
//! [`Invocations`] knows which invocations run, [`holders`] says for whom a task works, and
//! [`Ruling`] decides what may go.

mod holders;
mod invocations;
mod ruling;
mod shortfall;
#[cfg(test)]
mod tests;
mod times;

use std::time::Duration;

pub use holders::{holders, on_behalf, on_behalf_now};
pub use invocations::{Invocations, Presence, Run};
pub use ruling::{Cut, Ruling, SEATS};
pub use shortfall::{CutShort, Shortfall};
pub use times::{ANYBODY, Times};

/// How long what was reported present is kept. Buck2 remembers for 12 hours what it was told.
pub const DEFAULT_LEASE: Duration = Duration::from_secs(13 * 3600);
/// How much longer than for a lease a pinned blob is promised. Pins are made anew all the time: this is how
/// long everything may stand still before one is in danger.
pub const PIN: Duration = Duration::from_secs(30 * 24 * 3600);
/// How long what was promised to an invocation that is over is kept at least.
pub const DEFAULT_MIN_LEASE: Duration = Duration::from_secs(30 * 60);
