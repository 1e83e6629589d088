//! Streams as they are kept: rows of chunks, each of which was durable before its events were acknowledged.
//!
//! A chunk is a blob, and a record under the number of its first event says which one. Who writes that
//! record first has written these events; another server, or another connection, with the same stream
//! finds it there and goes on behind it. So nothing is written twice, whoever receives it how often.

use bytes::Bytes;
use kiln_net::{Ages, Unread};
use kiln_protos::bep;
use prost::Message;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use thiserror::Error;

use super::head::{self, Head};
use super::names::{CHUNKS, stream_name};
use super::taken::Taken;
use super::wire::{KeptEvent, StreamKey};
use crate::model::Time;
use crate::storage::{self, Damage, Expect, Records, Segments, StorageError, Write};

pub(super) const KIND: [u8; 4] = *b"KEVT";
pub(super) const VERSION: u32 = 1;

/// Most bytes of events in one chunk.
pub const MAX_CHUNK: usize = 32 << 20;

/// How often a stream is read from where it was when chunks are put together meanwhile.
const TRIES: u32 = 5;

/// Chunks that are listed at once.
const PAGE: usize = 256;

const OTHER: u8 = 0;
const BAZEL: u8 = 1;
const FINISHED: u8 = 2;
const CUT: u8 = 3;

#[derive(Debug, Error)]
pub enum LogError {
    #[error("the events of stream {stream} cannot be kept or read")]
    Storage {
        stream: String,
        #[source]
        source: StorageError,
    },
    #[error("a chunk of stream {stream} is damaged")]
    Damaged {
        stream: String,
        #[source]
        source: Damage,
    },
}

/// What became of events that were to be appended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The events are durable.
    Done,
    /// Somebody else has written there; the stream is durable up to this event.
    Behind { durable: u64, is_finished: bool },
}

/// What a record says of a chunk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Chunk {
    pub(super) blob: String,
    pub(super) last: u64,
    pub(super) finished: bool,
    /// When the chunk was written; 0 where that is not known.
    #[serde(default)]
    pub(super) at: Time,
}

/// All streams of build events, in chunks that are blobs and records that say what these hold.
pub struct EventLog {
    pub(super) segments: Arc<dyn Segments>,
    pub(super) records: Arc<dyn Records>,
    pub(super) taken: Taken,
    pub(super) unread: Unread,
    /// Chunks that were seen and that nothing names.
    pub(super) unnamed: Ages,
}

impl EventLog {
    pub fn new(segments: Arc<dyn Segments>, records: Arc<dyn Records>) -> Self {
        let (taken, unread, unnamed) = (Taken::default(), Unread::default(), Ages::default());
        Self { segments, records, taken, unread, unnamed }
    }

    /// The number of the event up to which a stream is durable, and whether that was its last.
    pub async fn durable(&self, stream: &StreamKey) -> Result<(u64, bool), LogError> {
        let newest = self.records.list(&prefix(stream), None, true, 1).await;
        let newest = newest.map_err(|source| storage(stream, source))?;
        match newest.first() {
            None => Ok((0, false)),
            Some(record) => {
                let chunk = chunk(stream, &record.value)?;
                Ok((chunk.last, chunk.finished))
            }
        }
    }

    /// Hands out the events of a stream behind one of them, in order.
    pub async fn replay(
        &self,
        stream: &StreamKey,
        behind: u64,
        mut each: impl FnMut(u64, KeptEvent),
    ) -> Result<(), LogError> {
        let mut done = behind;
        for _ in 0..TRIES {
            match self.replay_once(stream, &mut done, &mut each).await {
                // It is in another chunk by now.
                Err(LogError::Storage { source: StorageError::NotFound(_), .. }) => {}
                ended => return ended,
            }
        }
        self.replay_once(stream, &mut done, &mut each).await
    }

    async fn replay_once(
        &self,
        stream: &StreamKey,
        done: &mut u64,
        each: &mut impl FnMut(u64, KeptEvent),
    ) -> Result<(), LogError> {
        let mut after = None;
        loop {
            let page = self.records.list(&prefix(stream), after.as_deref(), false, PAGE).await;
            let page = page.map_err(|source| storage(stream, source))?;
            for record in &page {
                let chunk = chunk(stream, &record.value)?;
                if chunk.last > *done {
                    self.replay_chunk(stream, &chunk, *done, each).await?;
                    *done = chunk.last;
                }
            }
            match page.into_iter().last() {
                Some(record) => after = Some(record.key),
                None => return Ok(()),
            }
        }
    }

    async fn replay_chunk(
        &self,
        stream: &StreamKey,
        chunk: &Chunk,
        behind: u64,
        each: &mut impl FnMut(u64, KeptEvent),
    ) -> Result<(), LogError> {
        let bytes = self.segments.read(&chunk.blob, 0..u64::MAX).await;
        let bytes = bytes.map_err(|source| storage(stream, source))?;
        let damaged = |source| LogError::Damaged { stream: label(stream), source };
        let (first, entries) = open_chunk(&bytes).map_err(damaged)?;
        for (number, entry) in (first..).zip(entries) {
            let entry = entry.map_err(damaged)?;
            if number > behind {
                each(number, entry);
            }
        }
        Ok(())
    }

    /// Makes events durable behind those that are. `first` is the number of the first of them.
    pub async fn append(
        &self,
        stream: &StreamKey,
        now: Time,
        first: u64,
        entries: &[KeptEvent],
    ) -> Result<Appended, LogError> {
        self.append_with(stream, now, (first, entries), None).await
    }

    /// Appends events as [`Self::append`] does; `head` says what is known of the stream by then.
    pub(super) async fn append_with(
        &self,
        stream: &StreamKey,
        now: Time,
        (first, entries): (u64, &[KeptEvent]),
        head: Option<&Head>,
    ) -> Result<Appended, LogError> {
        let damaged = |source| LogError::Damaged { stream: label(stream), source };
        let bytes = write_chunk(first, entries).map_err(damaged)?;
        let blob = self.segments.put(bytes).await.map_err(|source| storage(stream, source))?;
        let last = first + entries.len() as u64 - 1;
        let finished = matches!(entries.last(), Some(KeptEvent::Finished));
        let chunk = Chunk { blob, last, finished, at: now };
        let value = serde_json::to_vec(&chunk).unwrap_or_default();
        let key = format!("{}{first:016x}", prefix(stream));
        let name = stream_name(stream);
        let mut writes = vec![
            Write { key, expect: Expect::Absent, value: Some(value.into()) },
            head::is_open(&name),
        ];
        writes.extend(head.map(|it| Head { finished, at: now, ..it.clone() }.write(&name)));
        match self.records.write(writes).await {
            Ok(()) => Ok(Appended::Done),
            Err(StorageError::Conflict(_)) => {
                // What is left here is found and removed with everything that no record names.
                self.segments.remove(&chunk.blob).await.ok();
                let (durable, is_finished) = self.durable(stream).await?;
                Ok(Appended::Behind { durable, is_finished })
            }
            Err(source) => Err(storage(stream, source)),
        }
    }
}

pub(super) fn of_all(source: StorageError) -> LogError {
    LogError::Storage { stream: "*".to_owned(), source }
}

pub(super) fn storage(stream: &StreamKey, source: StorageError) -> LogError {
    LogError::Storage { stream: label(stream), source }
}

fn label(stream: &StreamKey) -> String {
    format!("{}/{}", stream.build, stream.invocation)
}

fn chunk(stream: &StreamKey, value: &Bytes) -> Result<Chunk, LogError> {
    serde_json::from_slice(value)
        .map_err(|_| LogError::Damaged { stream: label(stream), source: Damage::Form("record") })
}

fn prefix(stream: &StreamKey) -> String {
    format!("{CHUNKS}{}/", stream_name(stream))
}

/// Events as a blob.
pub fn write_chunk(first: u64, entries: &[KeptEvent]) -> Result<Bytes, Damage> {
    let mut raw = first.to_le_bytes().to_vec();
    for entry in entries {
        // A kind and an event behind its length.
        match entry {
            KeptEvent::Other => raw.extend([OTHER, 0]),
            KeptEvent::Finished => raw.extend([FINISHED, 0]),
            KeptEvent::Cut => raw.extend([CUT, 0]),
            KeptEvent::Bazel(event) => {
                raw.push(BAZEL);
                let written = event.encode_length_delimited(&mut raw);
                written.map_err(|_| Damage::Form("event"))?;
            }
        }
    }
    if raw.len() > MAX_CHUNK {
        return Err(Damage::Length(raw.len() as u64));
    }
    storage::seal(KIND, VERSION, &raw).map(Bytes::from)
}

/// The events of a chunk, and the number of the first one.
pub fn read_chunk(bytes: &[u8]) -> Result<(u64, Vec<KeptEvent>), Damage> {
    let (first, entries) = open_chunk(bytes)?;
    Ok((first, entries.collect::<Result<_, _>>()?))
}

/// Opens a chunk, whose events come one after the other: decoded, all of them take many times the bytes that they are
/// kept as.
fn open_chunk(bytes: &[u8]) -> Result<(u64, Entries), Damage> {
    let raw = storage::open(KIND, VERSION, bytes, MAX_CHUNK)?;
    let first = raw.first_chunk::<8>().ok_or(Damage::Short)?;
    Ok((u64::from_le_bytes(*first), Entries { at: first.len(), raw }))
}

struct Entries {
    raw: Vec<u8>,
    at: usize,
}

impl Iterator for Entries {
    type Item = Result<KeptEvent, Damage>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.raw.get(self.at..).filter(|rest| !rest.is_empty())?;
        let entry = read_entry(rest);
        // Behind what cannot be read nothing can be.
        self.at = entry.as_ref().map_or(self.raw.len(), |(_, more)| self.raw.len() - more);
        Some(entry.map(|(entry, _)| entry))
    }
}

/// The first event, and how many bytes are behind it.
fn read_entry(bytes: &[u8]) -> Result<(KeptEvent, usize), Damage> {
    let (kind, mut rest) = bytes.split_first().ok_or(Damage::Short)?;
    let length = prost::encoding::decode_varint(&mut rest).map_err(|_| Damage::Form("chunk"))?;
    let length = usize::try_from(length).map_err(|_| Damage::Form("chunk"))?;
    let (event, more) = rest.split_at_checked(length).ok_or(Damage::Short)?;
    let entry = match *kind {
        OTHER => KeptEvent::Other,
        FINISHED => KeptEvent::Finished,
        CUT => KeptEvent::Cut,
        BAZEL => {
            let event = bep::BuildEvent::decode(event).map_err(|_| Damage::Form("event"))?;
            KeptEvent::Bazel(Box::new(event))
        }
        _ => return Err(Damage::Form("kind")),
    };
    Ok((entry, more.len()))
}
