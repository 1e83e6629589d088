//! One journal of all frontends of a fleet.
//!
//! Each frontend sends what began and finished there to a stream in Redis ([`sender`]). Each follows the
//! stream, and learns durations from it ([`follower`]). One of them writes it into the records
//! that all share ([`author`]): the one that did so last, for as long as it does. When nothing
//! of what is in the stream was written for [`follower::TAKE_OVER`], another one begins to.
//!
//! The record of counts names the last execution of the stream that is in the records. It is
//! written with every batch, and only if nobody else wrote it since it was read: a writer that
//! was paused, or is cut off, can do no harm, and whoever goes on knows where.
//!
//! The place of an execution in the journal is its id in the stream, so all agree on it.

mod author;
mod follower;
mod sender;
mod stream;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use kiln_cas::events::Events;
use kiln_cas::records::{RecordsError, SharedRecords};
use kiln_cas::redis::Redis;
use tokio::sync::mpsc;

use super::shared::Inner;
use super::store::Store;
use super::{Journal, JournalConfig, MAX_COMMANDS};
use follower::Follower;
use sender::Sender;
use stream::Stream;

impl Journal {
    /// Joins the journal of the fleet that shares `records` and `redis`, and adds to it what is
    /// published to `events`. Call within a tokio runtime: its tasks live there until
    /// [`Self::shutdown`].
    pub async fn join(
        records: SharedRecords,
        redis: Redis,
        events: &Events,
        config: JournalConfig,
    ) -> Result<Self, RecordsError> {
        // First of all, so that nothing published from now on is missed.
        let (begun, events) = (events.subscribe_begun(), events.subscribe());
        // The standard library seeds its hasher from the system's randomness.
        let frontend = RandomState::new().hash_one(std::process::id());
        let stream = Stream::new(redis, frontend);
        let subscription = stream.subscribe().await?;
        let meta = Store::open_fenced(records.clone()).await?.meta;
        let inner = Arc::new(Inner::restore(config, records, meta).await?);
        let (to_sender, inbox) = mpsc::channel(MAX_COMMANDS);
        tokio::spawn(Sender::new(inner.clone(), stream.clone(), events, begun, inbox).run());
        let (to_follower, inbox) = mpsc::channel(MAX_COMMANDS);
        tokio::spawn(Follower::new(inner.clone(), stream, subscription, inbox).run());
        Ok(Self { inner, commands: vec![to_sender, to_follower] })
    }
}
