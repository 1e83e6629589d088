//! The queue as a pure state machine: events and the time in, effects out.
//!
//! It knows no clock, no randomness, no message and no blob. An engine feeds it and keeps what
//! belongs to tasks and workers but does not decide anything; a frontend carries its effects out.
//!
//! A task waits (`Waiting`), perhaps for a while after a failure (`Delayed`), runs under a
//! lease (`Leased`), has its answer made durable (`Publishing`) and is then finished: it
//! ends exactly once, with one [`Effect::Finished`].

mod counters;
mod dispatch;
mod fleet;
mod lanes;
mod leases;
mod limits;
mod machine;
pub mod platform;
mod quotas;
mod ready;
mod tasks;
mod types;
mod view;
mod waiters;
mod workers;

pub use counters::Counters;
pub(crate) use fleet::paused_in_words;
pub use limits::{Limits, Millis, Quota, Refusal, Scope};
pub use machine::Machine;
pub use ready::UNKNOWN_EXPECTED_MS;
pub use types::{
    CancelReason, CloseReason, Effect, Ending, Event, Joined, LeaseId, OperationId, Phase, Submit,
    TaskId, WorkerId,
};
pub use view::{LaneFigures, LeaseFigures, WorkerFigures};
