//! The queue in Redis, shared by any number of frontends.

pub mod script;
pub mod wire;
