//! Operations, queue and leases, and the services over them.

pub mod journal;
