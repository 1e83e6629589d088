//! What is known of a stream without reading it: who began it, and how much it takes.

use serde::{Deserialize, Serialize};

use super::names::name_of;
use super::wire::StreamKey;
use crate::model::Time;
use crate::storage::{Expect, Write};

/// How keys of heads begin: `events/streams/STREAM`.
pub(super) const HEADS: &str = "events/streams/";
/// How keys of records begin that say that a stream has ended and takes nothing more: `events/closed/STREAM`.
const CLOSED: &str = "events/closed/";

/// What a chunk takes beside its events: its blob, its pin, its record.
pub(super) const CHUNK_COST: u64 = 4 << 10;
/// What an event takes at least, whatever is in it.
pub(super) const EVENT_COST: u64 = 64;

/// Bounds on what streams may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StreamLimits {
    /// Bytes that one stream may take. What comes beyond is numbered and not kept; with twice as much it is refused.
    pub stream: u64,
    /// Bytes that all streams of one instance may take. Beyond it the oldest ones go; with twice as much no further one
    /// begins.
    pub instance: u64,
}

impl Default for StreamLimits {
    fn default() -> Self {
        Self { stream: 1 << 30, instance: 16 << 30 }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Head {
    /// The hash of the name of the instance that the stream is in.
    pub instance: String,
    /// The owner of the credential that began the stream; `None`: nobody was asked who calls.
    pub owner: Option<String>,
    #[serde(default)]
    pub chunks: u64,
    /// Bytes that the stream is counted as.
    pub cost: u64,
    /// When something was appended to the stream last.
    pub at: Time,
    pub finished: bool,
    /// Whether the stream is in as few chunks as it can be.
    #[serde(default)]
    pub compacted: bool,
}

impl Head {
    pub fn new(stream: &StreamKey, owner: Option<String>) -> Self {
        Self { instance: name_of(&[&stream.instance]), owner, ..Self::default() }
    }

    /// The write that keeps the head. `name`: that of the stream.
    pub fn write(&self, name: &str) -> Write {
        let value = serde_json::to_vec(self).unwrap_or_default();
        Write { key: format!("{HEADS}{name}"), expect: Expect::Anything, value: Some(value.into()) }
    }
}

/// A write that fails where the stream takes nothing more.
pub(super) fn is_open(name: &str) -> Write {
    Write { key: format!("{CLOSED}{name}"), expect: Expect::Absent, value: None }
}

/// The write after which the stream takes nothing more.
pub(super) fn close(name: &str) -> Write {
    let value = Some(bytes::Bytes::from_static(b"{}"));
    Write { key: format!("{CLOSED}{name}"), expect: Expect::Anything, value }
}

/// What is deleted with the last chunk of a stream.
pub(super) fn forget(name: &str) -> [Write; 2] {
    [HEADS, CLOSED].map(|place| Write {
        key: format!("{place}{name}"),
        expect: Expect::Anything,
        value: None,
    })
}
