//! What of this crate is asked over gRPC.

mod build_events;

pub use build_events::{Admit, BuildEvents, Charge, Clock, MAX_MESSAGE, Reports};
