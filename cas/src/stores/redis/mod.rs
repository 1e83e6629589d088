//! Records, the action cache and the blob index in Redis.
//!
//! What is written is as durable as the server makes it. With `appendonly yes` and
//! `appendfsync everysec`, which is what is recommended, a crash of the server's process loses
//! nothing that was answered and a crash of its machine up to a second; `appendfsync always`
//! loses nothing and costs a sync each time. A replica that takes over may lack the last writes:
//! `min-replicas-to-write` bounds how many.

mod actions;
mod index;
mod records;

pub use actions::{RedisActionCache, RedisActionCacheOptions};
pub use index::{RedisBlobIndex, RedisBlobIndexOptions};
pub use records::RedisRecords;

use std::time::Duration;

/// Seconds for the server, rounded up; at most about a hundred years.
fn seconds(duration: Duration) -> u64 {
    const MOST: u64 = 100 * 366 * 24 * 3600;
    let up = u64::from(duration.subsec_nanos() > 0);
    duration.as_secs().saturating_add(up).min(MOST)
}
