//! The stream of executions and their beginnings in Redis, and the channel on which all hear of it.

use std::time::Duration;

use bytes::Bytes;
use kiln_cas::redis::{Call, Event, Redis, RedisError, Script, Subscription};
use kiln_protos::events::{Begun, Execution};
use prost::Message;

use crate::journal::store::Meta;

/// Entries that wait for a writer at most; then the oldest are lost.
pub const MAX_WAITING: usize = 65_536;
/// Entries read at once.
pub const PAGE: usize = 100;
/// How long written executions stay, for frontends that follow more slowly.
const KEPT: Duration = Duration::from_secs(60);
/// How long a frontend may try to send the same batch.
const REMEMBERED: Duration = Duration::from_secs(24 * 3600);
/// Silence on the channel after which its connection is tested: when it has died, the pages
/// come late, and nothing else happens.
const PING: Duration = Duration::from_secs(60);
/// Places in the journal are nanoseconds since the Unix epoch; ids in the stream are
/// milliseconds and a number.
const PER_MILLI: u64 = 1_000_000;
const TAG: &str = "journal";

/// The kind of an entry of the stream, which is the name of its field.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Finished,
    Begun,
}

impl Kind {
    fn field(self) -> &'static str {
        match self {
            Self::Finished => "x",
            Self::Begun => "b",
        }
    }
}

/// Some entries of the stream, in its order.
#[derive(Debug, Default)]
pub struct Page {
    pub executions: Vec<(u64, Execution)>,
    pub begun: Vec<(u64, Begun)>,
    /// Place of the last one; `None`: there is nothing more.
    pub last: Option<u64>,
    /// There may be more entries after this page.
    pub full: bool,
}

/// The message by which a writer tells the other frontends what is in the records.
#[derive(Clone, Copy, PartialEq, prost::Message)]
struct Written {
    #[prost(uint64, tag = "1")]
    frontend: u64,
    #[prost(message, required, tag = "2")]
    meta: Meta,
}

/// News from the channels of the stream.
#[derive(Debug, PartialEq)]
pub enum News {
    /// Executions were added, the last of them at this place.
    Added(u64),
    /// Another frontend has written.
    Written(Meta),
    /// A message may have been missed, so the stream has to be read.
    Unknown,
    /// The message does not concern this frontend.
    Own,
}

impl Page {
    /// Takes in one entry of the stream; `None`: its fields are not those of an entry.
    fn take(&mut self, place: u64, fields: Vec<Vec<u8>>) -> Option<()> {
        let [field, value] = <[Vec<u8>; 2]>::try_from(fields).ok()?;
        let value = Bytes::from(value);
        if field == Kind::Begun.field().as_bytes() {
            self.begun.push((place, Begun::decode(value).ok()?));
        } else {
            self.executions.push((place, Execution::decode(value).ok()?));
        }
        Some(())
    }
}

#[derive(Clone)]
pub struct Stream {
    redis: Redis,
    frontend: u64,
    key: Vec<u8>,
    sent: Vec<u8>,
    added: String,
    written: String,
    add: Script,
    tell: Script,
}

impl Stream {
    /// `frontend` is the name of this one among all.
    pub fn new(redis: Redis, frontend: u64) -> Self {
        Self {
            frontend,
            key: redis.key(TAG, "stream"),
            sent: redis.key(TAG, format!("sent:{frontend:016x}")),
            added: redis.channel("journal:added"),
            written: redis.channel("journal:written"),
            add: Script::idempotent("journal.add", include_str!("add.lua")),
            tell: Script::idempotent("journal.written", include_str!("written.lua")),
            redis,
        }
    }

    pub fn frontend(&self) -> u64 {
        self.frontend
    }

    pub async fn subscribe(&self) -> Result<Subscription, RedisError> {
        let channels = vec![self.added.clone(), self.written.clone()];
        self.redis.subscribe_patiently(channels, PING).await
    }

    /// Adds encoded messages. `batch` grows with every batch of this frontend; calling it
    /// again for the same one does no harm.
    pub async fn add<'a>(
        &self,
        batch: u64,
        entries: impl Iterator<Item = &'a (Kind, Bytes)>,
    ) -> Result<(), RedisError> {
        let call = self.add.call(&[&self.key, &self.sent]);
        let call = call.arg(batch).arg(REMEMBERED.as_secs()).arg(MAX_WAITING).arg(&self.added);
        let call = entries.fold(call, |call, (kind, data)| call.arg(kind.field()).arg(&data[..]));
        self.redis.run(call).await.map(drop)
    }

    /// The entries after the place `after`, at most [`PAGE`].
    pub async fn read(&self, after: u64) -> Result<Page, RedisError> {
        let read = Call::command("XRANGE", &self.key)
            .arg(format!("({}", id(after)))
            .arg("+")
            .arg("COUNT")
            .arg(PAGE)
            .idempotent();
        let entries: Vec<(String, Vec<Vec<u8>>)> = self.redis.query(read).await?;
        let mut page = Page { full: entries.len() == PAGE, ..Page::default() };
        for (id, fields) in entries {
            let Some(place) = place(&id) else {
                return Err(foreign(format!("the id {id} in the stream of executions")));
            };
            page.last = Some(place);
            if page.take(place, fields).is_none() {
                tracing::warn!(id, "what is in the stream is no execution; it is left out");
            }
        }
        Ok(page)
    }

    /// Tells the others what is written.
    pub async fn tell(&self, meta: Meta) -> Result<(), RedisError> {
        let keep = meta.last_seq.saturating_sub(KEPT.as_nanos() as u64);
        let message = Written { frontend: self.frontend, meta }.encode_to_vec();
        let call = self.tell.call(&[&self.key]).arg(id(keep)).arg(&self.written).arg(message);
        self.redis.run(call).await.map(drop)
    }

    pub fn parse(&self, event: Event) -> News {
        let Event::Message { channel, payload } = event else { return News::Unknown };
        if *channel != *self.written {
            let place = std::str::from_utf8(&payload).ok().and_then(place);
            return place.map_or(News::Unknown, News::Added);
        }
        match Written::decode(payload) {
            Ok(written) if written.frontend == self.frontend => News::Own,
            Ok(written) => News::Written(written.meta),
            Err(_) => News::Unknown,
        }
    }
}

fn foreign(message: String) -> RedisError {
    RedisError::Script { name: "XRANGE", reason: message.into() }
}

/// The id of the execution at a place in the journal.
fn id(place: u64) -> String {
    format!("{}-{}", place / PER_MILLI, place % PER_MILLI)
}

fn place(id: &str) -> Option<u64> {
    let (millis, number) = id.split_once('-')?;
    millis.parse::<u64>().ok()?.checked_mul(PER_MILLI)?.checked_add(number.parse().ok()?)
}

#[cfg(test)]
mod unit {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn places_are_ids_and_in_their_order(a: u64, b: u64) {
            prop_assert_eq!(place(&id(a)), Some(a));
            let numbers = |seq: u64| (seq / PER_MILLI, seq % PER_MILLI);
            prop_assert_eq!(a < b, numbers(a) < numbers(b));
        }
    }

    #[test]
    fn what_is_no_id_is_no_place() {
        for id in ["", "1", "1-", "x-1", "18446744073709551615-1"] {
            assert_eq!(place(id), None, "{id}");
        }
    }
}
