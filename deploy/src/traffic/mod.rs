//! Balancers that split requests between the version that is new and the one that was there: nginx, HAProxy, Envoy, or
//! a program of the operator. What they are to do is checked strictly and rendered (`split`, `weights`, `nginx::render`,
//! `haproxy::render`), pure; the rest writes it, has the balancer check it before it counts, and reads back what
//! is in force. docs/rollouts.md says how they are set up.

mod command;
mod document;
mod envoy;
mod error;
mod file;
mod haproxy;
mod local;
mod nginx;
mod read;
mod rendered;
mod split;
mod weights;

pub use error::TrafficError;
pub use read::read;
pub use split::MAX_MEMBERS;
