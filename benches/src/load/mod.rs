//! The load generator: plain REAPI to any address, several targets in turn.
//!
//! | module | what it does |
//! | --- | --- |
//! | [`args`] | the command line |
//! | `wire`, `channel`, `lanes` | messages as bytes, two clients for them, and the threads they run on |
//! | `target` | one server: its connections and what was prepared on it |
//! | `burst` | runs one kind of operation for a while and measures it |
//! | `samples`, `prepare`, `upload`, `prepared` | the blobs that the works read are made and uploaded, once for each server |
//! | `works` | the operations |
//! | `process` | processor time and memory of a server on this machine |
//! | `spawn` | what a process in new namespaces costs here |
//! | `run`, `report` | works and targets interleaved; medians, ratios, table, JSON |

pub mod args;
mod burst;
mod channel;
mod error;
mod lanes;
mod prepare;
mod prepared;
pub mod process;
mod report;
mod run;
mod samples;
mod spawn;
mod target;
mod upload;
mod wire;
mod works;

pub use run::run;
