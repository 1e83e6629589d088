//! One download by pieces, as a state machine: what happens goes in, what to do comes out. It knows no clock, no network
//! and no disk; agents and the simulation run the same code.
//!
//! The rarest piece among the peers that are known is fetched first, any of several that are equally rare. The origin is
//! asked for what the tracker grants: so it gives each piece about once, however many fetch. Who finds nothing anywhere
//! says so to the tracker, and asks the origin by itself when even that does not help.

mod choice;
mod event;
mod machine;
mod peers;

pub use event::{Effect, Event, Failure, Limits, MAX_NAMED, PeerId, Source, Why};
pub use machine::Downloader;
