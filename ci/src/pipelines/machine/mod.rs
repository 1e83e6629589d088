//! A run as a state machine, without I/O and clock: what happened is a list of events, and what it is now follows from them alone.
//! What has to be done follows from what it is: after a crash, whoever reads the events does the same.

mod event;
mod group;
mod spec;
mod state;
mod step;
#[cfg(test)]
mod tests;

pub use self::event::{End, Event, Input, Logged, Skip, StopWhy};
pub use self::group::{Group, GroupFull, MAX_QUEUE};
pub use self::spec::Spec;
pub use self::state::{Phase, RunState, Running, StageState, Standing, Stop};
pub use self::step::{LOST, MAX_RESUMES, step};
