//! The two engines of a queue: the state machine in this process, and the same in Redis.

pub mod memory;
pub mod redis;
