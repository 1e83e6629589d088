//! The streams of each instance take no more than they may.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use kiln_net::causes::chain;

use super::head::{HEADS, Head, StreamLimits};
use super::log::{EventLog, LogError, of_all, storage};
use super::names::{CHUNKS, name_of, stream_name};
use super::wire::StreamKey;
use crate::model::Time;

/// Heads that are read at once.
const PAGE: usize = 256;
/// A stream that has not ended and of which was heard within this time goes on.
const LIVELY: Duration = Duration::from_secs(3600);

/// A stream, to be chosen among those of its instance.
struct Aged {
    at: Time,
    cost: u64,
    name: String,
    /// Whether the stream has not ended.
    goes_on: bool,
}

impl EventLog {
    /// Bytes that a stream is counted as; 0 where that is not known.
    pub async fn size(&self, stream: &StreamKey) -> Result<u64, LogError> {
        Ok(self.head(stream).await?.map_or(0, |it| it.cost))
    }

    /// Nothing for a stream that has not begun, or did so before heads were kept.
    pub(super) async fn head(&self, stream: &StreamKey) -> Result<Option<Head>, LogError> {
        let key = format!("{HEADS}{}", stream_name(stream));
        let record = self.records.get(&key).await.map_err(|source| storage(stream, source))?;
        Ok(record.and_then(|it| serde_json::from_slice(&it.value).ok()))
    }

    /// Whether a further stream of an instance may begin.
    pub(super) fn has_room(&self, instance: &str, limits: StreamLimits) -> bool {
        self.taken.add(&name_of(&[instance]), 0) < limits.instance.saturating_mul(2)
    }

    /// Whether some instance has more than it may, so that [`Self::make_room`] is due.
    pub fn is_crowded(&self, limits: StreamLimits) -> bool {
        self.taken.most() > limits.instance
    }

    /// Forgets the oldest streams of instances that have more than they may, and compacts those that ended while
    /// nobody did it. Says how many are gone.
    pub async fn make_room(&self, now: Time, limits: StreamLimits) -> Result<u64, LogError> {
        let mut gone = 0;
        let mut taken = HashMap::new();
        for (instance, mut streams) in self.heads().await? {
            let mut sum: u64 = streams.iter().fold(0, |sum, it| sum.saturating_add(it.cost));
            streams.sort_by_key(|it| it.at);
            for stream in &streams {
                if sum <= limits.instance {
                    break;
                }
                if !stream.goes_on || now.since(stream.at) >= LIVELY {
                    self.forget(&format!("{CHUNKS}{}/", stream.name)).await?;
                    sum = sum.saturating_sub(stream.cost);
                    gone += 1;
                }
            }
            taken.insert(instance, sum);
        }
        self.taken.set(taken);
        Ok(gone)
    }

    /// All streams by instance.
    async fn heads(&self) -> Result<BTreeMap<String, Vec<Aged>>, LogError> {
        let mut instances: BTreeMap<String, Vec<Aged>> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.records.list(HEADS, after.as_deref(), false, PAGE).await;
            let page = page.map_err(of_all)?;
            for record in &page {
                let Ok(head) = serde_json::from_slice::<Head>(&record.value) else { continue };
                let name = record.key.strip_prefix(HEADS).unwrap_or_default().to_owned();
                if head.finished
                    && !head.compacted
                    && let Err(error) = self.compact(&name).await
                {
                    // One that is damaged is no reason to count none of the others.
                    tracing::warn!(error = chain(&error), "a stream stays in many chunks for now");
                }
                let Head { at, cost, finished, .. } = head;
                let aged = Aged { at, cost, name, goes_on: !finished };
                instances.entry(head.instance).or_default().push(aged);
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => return Ok(instances),
            }
        }
    }
}
