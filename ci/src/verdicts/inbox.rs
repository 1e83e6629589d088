//! Attempts between their commit and whoever judges them. They are written in the step that commits them, and
//! deleted in the step that counts them: none is lost, and none counts twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::Notify;

use super::heard::Heard;
use super::keys;
use crate::attempts::Attempt;
use crate::history::Tap;
use crate::model::Time;
use crate::storage::{Expect, Record, Records, StorageError, Write};

/// Attempts in one record.
const PER_ITEM: usize = 100;
/// Records that are read at once.
pub const PAGE: usize = 100;

/// Attempts that were committed together.
#[derive(Clone, Debug)]
pub struct Item {
    pub key: String,
    pub heard: Vec<Heard>,
}

/// Takes in attempts that were committed, to be judged. Clones are one.
#[derive(Clone, Default)]
pub struct Inbox {
    came: Arc<Notify>,
}

impl Inbox {
    /// Waits until something was committed by this process.
    pub async fn came(&self) {
        self.came.notified().await;
    }
}

impl Tap for Inbox {
    fn writes(&self, now: Time, attempts: &[Attempt]) -> Vec<Write> {
        let heard: Vec<_> = attempts.iter().filter_map(Heard::of).collect();
        heard.chunks(PER_ITEM).filter_map(|chunk| item(now, chunk)).collect()
    }

    fn committed(&self) {
        self.came.notify_one();
    }
}

/// The record of attempts that are to be judged. The same attempts at the same time have the same key.
fn item(now: Time, heard: &[Heard]) -> Option<Write> {
    let value = keys::encode_quickly(&heard);
    let value =
        value.inspect_err(|error| tracing::error!(%error, "attempts are not judged")).ok()?;
    let hash = blake3::hash(&value).to_hex();
    let key = format!("{}{:016x}-{}", keys::INBOX, now.0, &hash[..16]);
    Some(Write { key, expect: Expect::Anything, value: Some(value) })
}

/// The oldest ones, at most a page, without those that are `known` by their keys: these are not decoded once more. What
/// cannot be read has nothing in it.
pub async fn oldest(
    records: &dyn Records,
    known: &BTreeMap<String, Item>,
) -> Result<Vec<Item>, StorageError> {
    let page = records.list(keys::INBOX, None, false, PAGE).await?;
    let read = |record: Record| {
        let heard = keys::decode(&record.value).unwrap_or_else(|error| {
            tracing::error!(%error, key = record.key, "attempts cannot be read, and are not judged");
            Vec::new()
        });
        Item { key: record.key, heard }
    };
    Ok(page.into_iter().filter(|it| !known.contains_key(&it.key)).map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::super::samples::attempt;
    use super::*;
    use crate::model::Outcome;
    use crate::storage::memory::Memory;

    #[tokio::test]
    async fn what_is_known_already_is_not_read_again() {
        let memory = Memory::default();
        for number in 1..=2 {
            let attempts = [attempt("//a:t", number, Outcome::Passed)];
            memory.write(Inbox::default().writes(Time(number), &attempts)).await.unwrap();
        }
        let both = oldest(&memory, &BTreeMap::new()).await.unwrap();
        assert_eq!(both.len(), 2);
        let known = both.into_iter().take(1).map(|it| (it.key.clone(), it)).collect();
        let left = oldest(&memory, &known).await.unwrap();
        let left: Vec<_> = left.iter().flat_map(|it| &it.heard).map(|it| it.execution).collect();
        assert_eq!(left, [2]);
    }
}
