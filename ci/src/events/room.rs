//! How much the streams of each instance take, and that it is no more than they may.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::head::{HEADS, Head, StreamLimits};
use super::log::{CHUNKS, EventLog, LogError, name_of, of_all};
use crate::model::Time;

/// Heads that are read at once.
const PAGE: usize = 256;
/// A stream that has not ended and of which was heard within this time goes on.
const LIVELY: Duration = Duration::from_secs(3600);

/// What the streams of each instance take, as far as this server knows: as of when all were counted, and what it
/// has appended since.
#[derive(Debug, Default)]
pub struct Taken(Mutex<HashMap<String, u64>>);

impl Taken {
    /// Counts what was appended, and says what the instance's streams take now.
    pub(super) fn add(&self, instance: &str, bytes: u64) -> u64 {
        let mut taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let own = taken.entry(instance.to_owned()).or_default();
        *own = own.saturating_add(bytes);
        *own
    }

    fn set(&self, counted: HashMap<String, u64>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = counted;
    }

    fn most(&self) -> u64 {
        let taken = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        taken.values().copied().max().unwrap_or(0)
    }
}

/// A stream, to be chosen among those of its instance.
struct Aged {
    at: Time,
    cost: u64,
    name: String,
    /// It has not ended.
    goes_on: bool,
}

impl EventLog {
    /// Whether a further stream of an instance may begin.
    pub(super) fn has_room(&self, instance: &str, limits: StreamLimits) -> bool {
        self.taken.add(&name_of(&[instance]), 0) < limits.instance.saturating_mul(2)
    }

    /// Some instance has more than it may: [`Self::make_room`] is due.
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
                if head.finished && !head.compacted {
                    self.compact(&name).await?;
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
