//! A rollout as a state machine without I/O. Inputs and the time come in; events go out, and are
//! appended to the rollout's log (compare-and-swap on its length) before anything is done about
//! them. The state is a pure fold over the log, and says which effects are still to be carried out:
//! whoever takes over from a controller that crashed reads the log and goes on.
//!
//! An effect may be carried out again by whoever takes over; it bears an id that stays the same, and
//! a generation that grows with every change of what a target is to run, so that whoever receives it
//! does it once and refuses what is stale.

mod decide;
mod event;
mod forward;
mod lock;
mod spec;
mod state;
mod target;
#[cfg(test)]
mod tests;
mod waves;

pub use decide::{Input, Outcome, decide};
pub use event::{Effect, EffectId, End, Event, Logged, Shift, Why};
pub use lock::{Held, Lock, Locks, Lost};
pub use spec::{Desired, Generation, Limits, Millis, Running, Spec, StepSpec, TargetId, Version};
pub use state::{Phase, RolloutState};
pub use target::Target;
