//! Releases: where what was built came from, signatures, and the formats in which other people's
//! tools read both. What is read, kept and run is passed in as traits.

pub mod agent;
pub mod audit;
pub mod catalog;
pub mod deployments;
mod encoding;
pub mod executions;
pub mod fleet;
pub mod json;
pub mod judge;
pub mod oci;
pub mod programs;
pub mod promotion;
pub mod provenance;
pub mod registry;
pub mod releases;
pub mod resource;
pub mod retention;
pub mod rollouts;
pub mod signals;
pub mod signing;
pub mod swarm;
pub mod timestamp;
pub mod traffic;
mod words;

pub use kiln_net::toml;
