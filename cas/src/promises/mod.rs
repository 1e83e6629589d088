//! Promises: what was reported present is kept for a lease, whatever else needs its room. When
//! a store is full of promises, those to invocations (builds) that are over give way, the oldest
//! first; those to an invocation that runs never do.
//!
//! [`Invocations`] knows which invocations run, [`attribute`] says whose calls a task answers, and
//! [`Ruling`] decides what may go.

mod attribute;
mod invocations;
mod ruling;
mod shortfall;
#[cfg(test)]
mod tests;

pub use attribute::{Attributed, holders, invocation_id, on_behalf};
pub use invocations::{Invocations, Presence, Run};
pub use ruling::{Cut, Ruling, SEATS};
pub use shortfall::{CutShort, Shortfall};

/// How long what was promised to an invocation that is over is kept at least.
pub const DEFAULT_MIN_LEASE: std::time::Duration = std::time::Duration::from_secs(30 * 60);
