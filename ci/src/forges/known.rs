//! Deliveries that were acted on, so that none is acted on twice: however often a forge sends it, and whoever has kept a
//! copy of it.
//!
//! | key | what it says |
//! | --- | --- |
//! | `forges/NAME/known/HASH` | that a delivery was acted on, or that something it asks for was left with a queue |
//! | `forges/NAME/order/TIME-HASH` | the same in the order of time, for what removes the oldest |
//!
//! That something was left is noted in one write with the request itself. So it is left once, whoever acts on the delivery at
//! the same time, and whoever is killed in between.
//!
//! Times of events are signed with them: what is older than records are kept is refused as late, so that to forget a
//! delivery is never to believe it again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::forge::{ForgeName, Kind};
use super::proof::Head;
use crate::model::Time;
use crate::storage::{Expect, Record, Records, StorageError, Write};

/// The time for which a delivery is known, and an event counts: forges deliver again for three days at most.
pub const WINDOW: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// For so much longer records are kept: clocks of frontends may be apart.
const APART: Duration = Duration::from_secs(60 * 60);
/// Names of one forge that are known: those of deliveries, and as many of what these asked for.
const MAX_KNOWN: usize = 10_000;
/// Deliveries that come between two looks at what is too old.
const BETWEEN_SWEEPS: u64 = 64;
/// Removed at once; two records each.
const SWEPT: usize = 400;
/// What a record says.
const DONE: &[u8] = b"done";
/// How it begins where an earlier version had begun with a delivery, which was not done for that.
const BEGUN: &[u8] = b"begun ";

/// What names one delivery, or one thing that it asks for: any of these being known makes it known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

fn hash(what: &str, parts: &[&[u8]]) -> String {
    let mut hasher = blake3::Hasher::new_derive_key(what);
    for part in parts {
        hasher.update(part);
    }
    hasher.finalize().to_hex().to_string()
}

impl Names {
    /// GitHub and Gitea sign the body alone: a copy could come under another id, so the body is a name as well. What
    /// GitLab sends is named by its id, which is not always one event's alone.
    pub fn of(kind: Kind, head: &Head, body: &[u8]) -> Self {
        let id = head.id.as_deref().map(str::as_bytes);
        Self(match kind {
            Kind::GitHub | Kind::Gitea => {
                let of_id = id.map(|id| hash("kiln forges: id", &[id]));
                let of_body = hash("kiln forges: body", &[body]);
                of_id.into_iter().chain([of_body]).collect()
            }
            Kind::GitLab => {
                let body = blake3::hash(body);
                let parts = [body.as_bytes().as_slice(), id.unwrap_or_default()];
                vec![hash("kiln forges: both", &parts)]
            }
        })
    }

    /// The names of one thing that the delivery asks for.
    pub fn of_part(&self, part: &str) -> Self {
        // All names are equally long: what one of them and a part make is nothing else.
        let of = |name: &String| hash("kiln forges: part", &[name.as_bytes(), part.as_bytes()]);
        Self(self.0.iter().map(of).collect())
    }
}

/// The deliveries of one forge.
pub struct Known {
    records: Arc<dyn Records>,
    forge: ForgeName,
    /// Deliveries that came.
    came: AtomicU64,
}

impl Known {
    pub fn new(records: Arc<dyn Records>, forge: ForgeName) -> Self {
        Self { records, forge, came: AtomicU64::new(0) }
    }

    fn key(&self, name: &str) -> String {
        format!("forges/{}/known/{name}", self.forge)
    }

    fn orders(&self) -> String {
        format!("forges/{}/order/", self.forge)
    }

    fn order(&self, at: Time, name: &str) -> String {
        format!("{}{:016}-{name}", self.orders(), at.0)
    }

    /// Whether a delivery was acted on before.
    pub async fn knows(&self, names: &Names, now: Time) -> Result<bool, StorageError> {
        if self.came.fetch_add(1, Ordering::Relaxed).is_multiple_of(BETWEEN_SWEEPS) {
            self.sweep(now).await?;
        }
        for name in &names.0 {
            let found = self.records.get(&self.key(name)).await?;
            // What is not understood was done: it is not done again for that.
            if found.is_some_and(|it| !it.value.starts_with(BEGUN)) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// What is written together with one thing that a delivery asks for, so that this is done once. `names`: those of the thing.
    pub fn once(&self, names: &Names, now: Time) -> Vec<Write> {
        self.noted(names, now, Expect::Absent)
    }

    /// Notes that a delivery was acted on: what it asked for is durable.
    pub async fn done(&self, names: &Names, now: Time) -> Result<(), StorageError> {
        self.records.write(self.noted(names, now, Expect::Anything)).await
    }

    fn noted(&self, names: &Names, now: Time, expect: Expect) -> Vec<Write> {
        let value = Some(Bytes::from_static(DONE));
        let write = |name: &String| {
            let own = Write { key: self.key(name), expect, value: value.clone() };
            [own, self.listed(now, name)]
        };
        names.0.iter().flat_map(write).collect()
    }

    fn listed(&self, now: Time, name: &str) -> Write {
        let value = Some(Bytes::from_static(b"1"));
        Write { key: self.order(now, name), expect: Expect::Anything, value }
    }

    /// Removes what is too old, and the oldest of what is too much.
    async fn sweep(&self, now: Time) -> Result<(), StorageError> {
        let newest = self.records.list(&self.orders(), None, true, MAX_KNOWN + SWEPT).await?;
        let gone = self.outdated(&newest, now);
        let delete = |key| Write { key, expect: Expect::Anything, value: None };
        match gone.is_empty() {
            true => Ok(()),
            false => self.records.write(gone.into_iter().map(delete).collect()).await,
        }
    }

    /// The keys of what is to go, of these records in the order of time, newest first. Each is there once, as a batch of
    /// writes has to have them: a name that two frontends have noted is in the order twice.
    fn outdated(&self, newest: &[Record], now: Time) -> BTreeSet<String> {
        let prefix = self.orders();
        let name = |key: &str| -> Option<(Time, String)> {
            let (at, name) = key.strip_prefix(&prefix)?.split_once('-')?;
            Some((Time(at.parse().ok()?), name.to_owned()))
        };
        let mut gone = BTreeSet::new();
        for (place, record) in newest.iter().enumerate().rev() {
            let Some((at, name)) = name(&record.key) else { continue };
            let keep = place < MAX_KNOWN && now.since(at) <= WINDOW + APART;
            if keep || gone.len() >= 2 * SWEPT {
                break;
            }
            gone.extend([record.key.clone(), self.key(&name)]);
        }
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::forges::proof::Proof;
    use crate::storage::memory::Memory;

    fn head(id: &str) -> Head {
        let (event, id) = ("pull_request".to_owned(), Some(id.to_owned()));
        Head { event, id, proof: Proof::Mac([0; 32]) }
    }

    fn github(id: &str, body: &[u8]) -> Names {
        Names::of(Kind::GitHub, &head(id), body)
    }

    fn known(memory: &Memory) -> Known {
        Known::new(Arc::new(memory.clone()), ForgeName::new("hub").unwrap())
    }

    fn at(seconds: u64) -> Time {
        Time(1_000_000_000 + seconds * 1_000)
    }

    async fn knows(known: &Known, id: &str, body: &str, now: Time) -> bool {
        known.knows(&github(id, body.as_bytes()), now).await.unwrap()
    }

    #[tokio::test]
    async fn a_delivery_is_done_once_under_whatever_id_its_copy_comes() {
        let memory = Memory::default();
        let known = known(&memory);
        assert!(!knows(&known, "1", "a", at(0)).await);
        known.done(&github("1", b"a"), at(0)).await.unwrap();
        for (id, body) in [("1", "a"), ("2", "a"), ("1", "b")] {
            assert!(knows(&known, id, body, at(3_600)).await, "{id} {body}");
        }
        assert!(!knows(&known, "2", "b", at(1)).await);
    }

    #[tokio::test]
    async fn each_thing_that_a_delivery_asks_for_is_noted_once_whatever_clocks_say() {
        let memory = Memory::default();
        let known = known(&memory);
        let once = |id: &str, part: &str, now| known.once(&github(id, b"a").of_part(part), at(now));
        memory.write(once("1", "app", 0)).await.unwrap();
        for (id, now) in [("1", 0), ("1", 90_000), ("2", 5)] {
            let again = memory.write(once(id, "app", now)).await;
            assert!(matches!(again, Err(StorageError::Conflict(_))), "{id} {now}");
        }
        memory.write(once("1", "lib", 0)).await.unwrap();
        // A delivery counts as known only once everything that it asks for is done.
        assert!(!knows(&known, "1", "a", at(1)).await);
    }

    #[tokio::test]
    async fn what_an_earlier_version_began_was_not_done() {
        let memory = Memory::default();
        let known = known(&memory);
        let names = github("1", b"a");
        for (value, done) in [("begun 1000000000", false), ("done", true), ("odd", true)] {
            let key = known.key(&names.0[0]);
            let write = Write { key, expect: Expect::Anything, value: Some(value.into()) };
            memory.write(vec![write]).await.unwrap();
            assert_eq!(knows(&known, "1", "a", at(1)).await, done, "{value}");
        }
    }

    #[test]
    fn gitlabs_deliveries_are_named_by_id_and_body() {
        let name = |id: &str, body: &[u8]| Names::of(Kind::GitLab, &head(id), body);
        assert_eq!(name("1", b"a"), name("1", b"a"));
        // Hooks that set off each other share an id, so the body has to count, too.
        assert_ne!(name("1", b"a"), name("1", b"b"));
        assert_ne!(name("1", b"a"), name("2", b"a"));
    }

    #[tokio::test]
    async fn what_two_frontends_have_noted_goes_in_one_batch_that_has_no_key_twice() {
        let memory = Memory::default();
        let known = known(&memory);
        for now in [at(0), at(5)] {
            known.done(&github("1", b"a"), now).await.unwrap();
        }
        let listed = memory.list(&known.orders(), None, true, 10).await.unwrap();
        let late = at(WINDOW.as_secs() + APART.as_secs() + 60);
        assert_eq!((listed.len(), known.outdated(&listed, late).len()), (4, 4 + 2));
        known.sweep(late).await.unwrap();
        assert_eq!(memory.records(), 0);
    }

    #[tokio::test]
    async fn so_many_are_known_and_for_so_long() {
        let memory = Memory::default();
        let known = known(&memory);
        for number in 0..BETWEEN_SWEEPS {
            let names = github(&format!("{number}"), format!("{number}").as_bytes());
            assert!(!known.knows(&names, at(number)).await.unwrap());
            known.done(&names, at(number)).await.unwrap();
        }
        // The clock of this one is ahead: what counts yet by the clocks of others is not forgotten.
        let ahead = at(WINDOW.as_secs() + 3_600);
        assert!(!knows(&known, "ahead", "ahead", ahead).await);
        assert_eq!(memory.records() as u64, 4 * BETWEEN_SWEEPS);
        let known = self::known(&memory);
        let late = at(WINDOW.as_secs() + APART.as_secs() + BETWEEN_SWEEPS);
        assert!(!knows(&known, "late", "late", late).await);
        assert_eq!(memory.records(), 0);
    }
}
