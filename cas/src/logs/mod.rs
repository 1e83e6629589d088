//! Output of running actions, readable while it grows (LogStream API).
//!
//! A log is at the frontend that the worker speaks to (`local`, `log`). In a fleet, `relay` brings it
//! to the frontends where it is read.

mod local;
mod log;
mod relay;
#[cfg(test)]
mod relay_tests;
mod streams;
#[cfg(test)]
mod tests;

pub use local::{MAX_ALL_LOGS_BYTES, MAX_LOGS};
pub use log::MAX_LOG_BYTES;
pub use streams::{LogNames, LogStreams, OpenLogs};
