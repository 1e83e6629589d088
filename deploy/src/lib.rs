//! Releases and how they come to hosts: where what was built came from, signatures, the formats in which other people's tools
//! read both, environments, rollouts and agents. What is read, kept and run is passed in as traits.
//!
//! | module | what it does |
//! | --- | --- |
//! | `executions`, `provenance` | what was executed, and where an output came from |
//! | `signing`, `audit` | signatures, of releases and of the audit log |
//! | `oci`, `registry` | formats of registries, and a registry |
//! | `releases`, `catalog`, `retention` | releases, those of a server, and which of them stay |
//! | `promotion`, `deployments` | which release stands in which environment, and DORA's four figures of that |
//! | `judge`, `signals` | canaries, and what is measured of them |
//! | `rollouts`, `traffic` | step by step to targets, and the balancers before them |
//! | `agent`, `fleet`, `swarm` | what runs on a host, what a server knows of it, and how hosts share |
//! | `programs`, `words` | programs of the operator, and what is said in their configuration |
//! | `news` | what somebody outside is to be told |
//! | `start` | what a server runs of all this |
//! | `json`, `encoding`, `resource`, `timestamp` | how documents are read and written |

pub mod agent;
pub mod audit;
pub mod catalog;
pub mod deployments;
mod encoding;
pub mod executions;
pub mod fleet;
pub mod json;
pub mod judge;
mod news;
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
mod start;
pub mod swarm;
pub mod timestamp;
pub mod traffic;
mod words;

pub use kiln_net::toml;
pub use start::{DeployOptions, DeployParts, DeployServices};
