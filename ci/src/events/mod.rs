//! What build tools say of their builds, over the Build Event Service.
//!
//! A stream is a row of numbered events. [`Order`] brings them into order and knows which are durable;
//! [`Build`] makes of them what a build was, and the attempts at tests in it; [`EventLog`] keeps them, so
//! that nothing that was acknowledged is lost, and [`Publisher`] puts these together: events in, durable
//! commits, acknowledgements out. Secrets of command lines are gone before anything is kept
//! ([`redact`]).

mod age;
mod attempt;
mod build;
mod builds;
mod compact;
mod difference;
mod facts;
mod failed;
mod head;
mod kept;
mod limits;
mod log;
mod names;
mod order;
mod publisher;
pub mod redact;
mod results;
mod room;
mod sets;
mod taken;
mod uri;
mod view;
mod wire;

pub use attempt::Told;
pub use build::Build;
pub use builds::{Noted, Summary};
pub use difference::{BuildDifference, Changed};
pub use facts::{
    Aborted, Configuration, Facts, FailedAction, FileRef, LeftOut, Options, Origin, Target,
    TargetKey, TargetOutcome, TestTotals,
};
pub use failed::FailedRuns;
pub use head::StreamLimits;
pub use limits::Limits;
pub use log::{Appended, EventLog, LogError, MAX_CHUNK, read_chunk, write_chunk};
pub use order::{Order, OrderLimits, Refusal, Step};
pub use publisher::{Committed, Publisher, PublisherError, Taken, Terms};
pub use results::{Results, TestRun};
pub use uri::blob_of;
pub use view::View;
pub use wire::{KeptEvent, Ordered, StreamKey, decode};
