//! A stream that has ended is put into few chunks: it was written in as many as there were commits.

use bytes::Bytes;

use super::head::{CHUNK_COST, HEADS, Head, close};
use super::log::{Chunk, EventLog, KIND, LogError, MAX_CHUNK, VERSION, of_all};
use super::names::CHUNKS;
use crate::storage::{self, Damage, Expect, Record, StorageError, Write};

/// Bytes of events in a chunk that nothing more is put into.
const FULL: usize = 4 << 20;
/// Records that are read, and put together, at once.
const PAGE: usize = 256;

impl EventLog {
    /// Compacts a stream, where it has ended. Whoever does it at the same time does the same, and one of them
    /// succeeds; whatever crashes in between, each event is there once. `name`: of the stream.
    pub(super) async fn compact(&self, name: &str) -> Result<(), LogError> {
        let prefix = format!("{CHUNKS}{name}/");
        let newest = self.records.list(&prefix, None, true, 1).await.map_err(of_all)?;
        let has_ended = newest.first().and_then(read).is_some_and(|it| it.finished);
        if !has_ended {
            return Ok(());
        }
        // Who believes that it goes on finds no gap to write into.
        self.records.write(vec![close(name)]).await.map_err(of_all)?;
        let mut after: Option<String> = None;
        let mut chunks = 0;
        loop {
            let page = self.records.list(&prefix, after.as_deref(), false, PAGE).await;
            let page = page.map_err(of_all)?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            chunks += self.join(name, page).await?;
        }
        self.settle(name, chunks).await
    }

    /// Joins neighbours as far as they fit, and says how many chunks that makes.
    async fn join(&self, name: &str, page: Vec<Record>) -> Result<u64, LogError> {
        let damaged = |source| LogError::Damaged { stream: name.to_owned(), source };
        let (mut chunks, mut group, mut raw) = (0, Vec::new(), Vec::new());
        for record in page {
            let chunk = read(&record).ok_or_else(|| damaged(Damage::Form("record")))?;
            let bytes = self.segments.read(&chunk.blob, 0..u64::MAX).await.map_err(of_all)?;
            let opened = storage::open(KIND, VERSION, &bytes, MAX_CHUNK).map_err(damaged)?;
            if !group.is_empty() && raw.len() + opened.len() > FULL {
                self.replace(std::mem::take(&mut group), std::mem::take(&mut raw)).await?;
                chunks += 1;
            }
            // Each begins with the number of its first event.
            let events = if group.is_empty() { Some(opened.as_slice()) } else { opened.get(8..) };
            raw.extend(events.ok_or_else(|| damaged(Damage::Short))?);
            group.push((record, chunk));
        }
        if !group.is_empty() {
            self.replace(group, raw).await?;
            chunks += 1;
        }
        Ok(chunks)
    }

    /// Writes one chunk in the place of several, in one step.
    async fn replace(&self, group: Vec<(Record, Chunk)>, raw: Vec<u8>) -> Result<(), LogError> {
        let (Some((first, _)), Some((_, last)), true) =
            (group.first(), group.last(), group.len() > 1)
        else {
            return Ok(());
        };
        let bytes = storage::seal(KIND, VERSION, &raw)
            .map_err(|source| LogError::Damaged { stream: first.key.clone(), source })?;
        let blob = self.segments.put(Bytes::from(bytes)).await.map_err(of_all)?;
        let value = serde_json::to_vec(&Chunk { blob: blob.clone(), ..last.clone() });
        let mut values = Some(value.unwrap_or_default().into());
        let write = |(record, _): &(Record, Chunk)| Write {
            key: record.key.clone(),
            expect: Expect::Version(record.version),
            value: values.take(),
        };
        let written = self.records.write(group.iter().map(write).collect()).await;
        match written {
            Ok(()) => {
                for (_, chunk) in &group {
                    // What is left here is found and removed with everything that no record names.
                    self.segments.remove(&chunk.blob).await.ok();
                }
                Ok(())
            }
            // Somebody else did it.
            Err(StorageError::Conflict(_)) => self.segments.remove(&blob).await.map_err(of_all),
            Err(error) => Err(of_all(error)),
        }
    }

    async fn settle(&self, name: &str, chunks: u64) -> Result<(), LogError> {
        let key = format!("{HEADS}{name}");
        let record = self.records.get(&key).await.map_err(of_all)?;
        let Some(record) = record else { return Ok(()) };
        let Ok(head) = serde_json::from_slice::<Head>(&record.value) else { return Ok(()) };
        let saved = head.chunks.saturating_sub(chunks).saturating_mul(CHUNK_COST);
        let head = Head {
            cost: head.cost.saturating_sub(saved),
            chunks: chunks.min(head.chunks),
            compacted: true,
            ..head
        };
        let write = Write { expect: Expect::Version(record.version), ..head.write(name) };
        match self.records.write(vec![write]).await {
            Ok(()) | Err(StorageError::Conflict(_)) => Ok(()),
            Err(error) => Err(of_all(error)),
        }
    }
}

fn read(record: &Record) -> Option<Chunk> {
    serde_json::from_slice(&record.value).ok()
}
