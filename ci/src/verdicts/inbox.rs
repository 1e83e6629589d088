//! Attempts between their commit and whoever judges them. They are written in the step that commits them, and
//! deleted in the step that counts them: none is lost, and none counts twice.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::heard::Heard;
use super::keys;
use crate::attempts::Attempt;
use crate::history::Tap;
use crate::model::Time;
use crate::storage::{Expect, MAX_VALUE, Record, Records, StorageError, Write};

/// Attempts in one record.
const PER_ITEM: usize = 100;
/// Records that are read at once.
pub const PAGE: usize = 100;
/// Bytes of what this process has written last, about, that are kept for whoever decides here.
const MAX_OWN: usize = 4 << 20;

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
    own: Arc<Mutex<OwnItems>>,
}

/// What this process has written last, by key, so that it need not be decoded where it is read by the process itself. The
/// oldest ones make room: where another server decides, nobody asks for them.
#[derive(Default)]
struct OwnItems {
    items: BTreeMap<String, Vec<Heard>>,
    bytes: usize,
}

impl Inbox {
    /// Waits until something was committed by this process.
    pub async fn came(&self) {
        self.came.notified().await;
    }

    fn own(&self) -> MutexGuard<'_, OwnItems> {
        self.own.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl OwnItems {
    fn keep(&mut self, key: String, heard: Vec<Heard>) {
        self.bytes += bytes(&heard);
        let before = self.items.insert(key, heard);
        self.bytes -= before.map_or(0, |it| bytes(&it));
        while self.bytes > MAX_OWN {
            let Some((_, oldest)) = self.items.pop_first() else { break };
            self.bytes -= bytes(&oldest);
        }
    }

    /// What is in the record with this key, once; `None`: it is to be decoded.
    fn take(&mut self, key: &str) -> Option<Vec<Heard>> {
        let heard = self.items.remove(key)?;
        self.bytes -= bytes(&heard);
        Some(heard)
    }
}

fn bytes(heard: &[Heard]) -> usize {
    heard.iter().map(Heard::bytes).sum()
}

impl Tap for Inbox {
    fn writes(&self, now: Time, attempts: &[Attempt]) -> Vec<Write> {
        let mut heard = attempts.iter().filter_map(Heard::of);
        let mut writes = Vec::new();
        loop {
            let chunk: Vec<_> = heard.by_ref().take(PER_ITEM).collect();
            if chunk.is_empty() {
                return writes;
            }
            let items = items(now, &chunk);
            if let [only] = &items[..] {
                self.own().keep(only.key.clone(), chunk);
            }
            writes.extend(items);
        }
    }

    fn committed(&self) {
        self.came.notify_one();
    }
}

/// The record of attempts that are to be judged, or several where it would be larger than a record may be. The same
/// attempts at the same time have the same keys.
fn items(now: Time, heard: &[Heard]) -> Vec<Write> {
    let value = match keys::encode_quickly(&heard) {
        Ok(value) => value,
        Err(error) => {
            tracing::error!(%error, "attempts are not judged");
            return Vec::new();
        }
    };
    if value.len() > MAX_VALUE && heard.len() > 1 {
        let (one, two) = heard.split_at(heard.len() / 2);
        return [items(now, one), items(now, two)].concat();
    }
    let hash = blake3::hash(&value).to_hex();
    let key = format!("{}{:016x}-{}", keys::INBOX, now.0, &hash[..16]);
    vec![Write { key, expect: Expect::Anything, value: Some(value) }]
}

/// The oldest ones, at most a page, without those that are `known` by their keys: these are not decoded once more, and
/// neither is what `own` has written lately. What cannot be read has nothing in it.
pub async fn oldest(
    records: &dyn Records,
    known: &BTreeMap<String, Item>,
    own: Option<&Inbox>,
) -> Result<Vec<Item>, StorageError> {
    let page = records.list(keys::INBOX, None, false, PAGE).await?;
    let decode = |record: &Record| {
        keys::decode(&record.value).unwrap_or_else(|error| {
            tracing::error!(%error, key = record.key, "attempts cannot be read, and are not judged");
            Vec::new()
        })
    };
    let read = |record: Record| {
        let kept = own.and_then(|it| it.own().take(&record.key));
        let heard = kept.unwrap_or_else(|| decode(&record));
        Item { key: record.key, heard }
    };
    Ok(page.into_iter().filter(|it| !known.contains_key(&it.key)).map(read).collect())
}

#[cfg(test)]
mod tests {
    use super::super::samples::{attempt, case};
    use super::*;
    use crate::attempts::CaseRun;
    use crate::model::Outcome;
    use crate::storage::memory::Memory;

    #[tokio::test]
    async fn what_is_known_already_is_not_read_again() {
        let memory = Memory::default();
        for number in 1..=2 {
            let attempts = [attempt("//a:t", number, Outcome::Passed)];
            memory.write(Inbox::default().writes(Time(number), &attempts)).await.unwrap();
        }
        let both = oldest(&memory, &BTreeMap::new(), None).await.unwrap();
        assert_eq!(both.len(), 2);
        let known = both.into_iter().take(1).map(|it| (it.key.clone(), it)).collect();
        let left = oldest(&memory, &known, None).await.unwrap();
        let left: Vec<_> = left.iter().flat_map(|it| &it.heard).map(|it| it.execution).collect();
        assert_eq!(left, [2]);
    }

    #[tokio::test]
    async fn what_this_process_wrote_is_handed_out_once_without_being_decoded() {
        let (memory, inbox) = (Memory::default(), Inbox::default());
        let mut writes = inbox.writes(Time(1), &[attempt("//a:t", 7, Outcome::Passed)]);
        // Whoever decodes this finds nothing.
        writes[0].value = Some("no document".into());
        memory.write(writes).await.unwrap();
        let none = BTreeMap::new();
        let found = oldest(&memory, &none, Some(&inbox)).await.unwrap();
        let numbers: Vec<_> = found[0].heard.iter().map(|it| it.execution).collect();
        assert_eq!(numbers, [7]);
        assert!(oldest(&memory, &none, Some(&inbox)).await.unwrap()[0].heard.is_empty());
        assert_eq!(inbox.own().bytes, 0);
    }

    #[test]
    fn what_nobody_asks_for_makes_room() {
        let inbox = Inbox::default();
        let label = "l".repeat(16 << 10);
        let commit = |now: u64| {
            let attempts: Vec<_> =
                (1..=100).map(|it| attempt(&label, it, Outcome::Passed)).collect();
            let writes = inbox.writes(Time(now), &attempts);
            assert_eq!(writes.len(), 1);
            writes[0].key.clone()
        };
        let keys: Vec<_> = (1..=4).map(commit).collect();
        let mut own = inbox.own();
        assert!(own.bytes <= MAX_OWN);
        let kept: Vec<_> = keys.iter().map(|it| own.take(it).is_some()).collect();
        assert_eq!(kept, [false, false, true, true]);
    }

    #[tokio::test]
    async fn what_is_too_large_for_one_record_is_in_several() {
        let run = |name: String| CaseRun {
            case: case(&name),
            attempt: 1,
            outcome: Outcome::Passed,
            duration: None,
            failure: None,
        };
        // Of each case that passed there are 16 digits, which no compression makes less than 8 bytes.
        let large = |number: u64| Attempt {
            cases: (0..4_000).map(|it| run(format!("{number} {it}"))).collect(),
            ..attempt("//a:t", number, Outcome::Passed)
        };
        let writes = Inbox::default().writes(Time(1), &(1..=40).map(large).collect::<Vec<_>>());
        assert!(writes.len() > 1);
        assert!(writes.iter().flat_map(|it| &it.value).all(|it| it.len() <= MAX_VALUE));
        let memory = Memory::default();
        memory.write(writes).await.unwrap();
        let items = oldest(&memory, &BTreeMap::new(), None).await.unwrap();
        let mut all: Vec<_> =
            items.iter().flat_map(|it| &it.heard).map(|it| it.execution).collect();
        all.sort_unstable();
        assert_eq!(all, (1..=40).collect::<Vec<_>>());
    }
}
