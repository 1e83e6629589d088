//! Redis as this project uses it: one [`Redis`] for all who need it in a process, with scripts,
//! pipelines and subscriptions, on a single server or a cluster.
//!
//! What every call may rely on:
//! - It ends: within [`RedisConfig::timeout`], retries included; within twice that where the
//!   server turned out to have lost a script.
//! - It is not run twice unless it says that this does no harm ([`Script::idempotent`]). What
//!   the server refused before running it (loading, failing over, moved, script unknown) is
//!   retried always.
//! - Connections come back by themselves, with growing pauses between attempts.
//! - Times come from the server (`redis.call('TIME')` in a script): clocks of machines that
//!   differ do no harm.
//!
//! All keys of one script must lie in one slot of a cluster: [`Redis::key`] puts a hash tag
//! into each. This is checked on a single server as well.
//!
//! The routing to the nodes of a cluster is done here, because the cluster connection of the
//! `redis` crate repeats whatever failed, run or not, and sends no pipeline over several slots.

mod address;
mod client;
mod config;
mod error;
mod exchange;
mod link;
mod node;
mod observe;
mod pipeline;
mod round;
mod script;
mod server;
mod slots;
mod subscription;
mod terms;
#[cfg(test)]
pub(crate) mod tests;
mod topology;

pub use ::redis::{FromRedisValue, ToRedisArgs, Value};
pub use address::Address;
pub use client::Redis;
pub use config::{RedisConfig, Secret, TlsFiles};
pub use error::RedisError;
pub use observe::{Flush, Observer, RedisStats};
pub use script::{Call, Script};
pub use subscription::{Event, Subscription};
