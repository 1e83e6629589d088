//! Deliveries that were acted on, so that none is acted on twice: however often a forge sends it, and whoever has kept a
//! copy of it.
//!
//! | key | what it says |
//! | --- | --- |
//! | `forges/NAME/known/HASH` | that a delivery was begun or done, and when |
//! | `forges/NAME/order/TIME-HASH` | the same in the order of time, for what removes the oldest |
//!
//! Times of events are signed with them: what is older than records are kept is refused as late, so that to forget a
//! delivery is never to believe it again.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::forge::{ForgeName, Kind};
use super::proof::Head;
use crate::model::Time;
use crate::storage::{Expect, Records, StorageError, Write};

/// The time for which a delivery is known, and an event counts: forges deliver again for three days at most.
pub const WINDOW: Duration = Duration::from_secs(3 * 24 * 60 * 60);
/// Deliveries of one forge that are known.
const MAX_KNOWN: usize = 5_000;
/// Deliveries that are begun between two looks at what is too old.
const BETWEEN_SWEEPS: u64 = 64;
/// Removed at once; two records each.
const SWEPT: usize = 400;
/// Whoever began a delivery and has not ended it by then never will.
const BEGUN: Duration = Duration::from_secs(60);

/// What names one delivery: any of these being known makes it known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names(Vec<String>);

impl Names {
    /// GitHub and Gitea sign the body alone: a copy could come under another id, so the body is a name as well. What
    /// GitLab sends is named by its id, which is not always one event's alone.
    pub fn of(kind: Kind, head: &Head, body: &[u8]) -> Self {
        let hash = |what: &str, parts: &[&[u8]]| {
            let mut hasher = blake3::Hasher::new_derive_key(what);
            for part in parts {
                hasher.update(part);
            }
            hasher.finalize().to_hex().to_string()
        };
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
}

/// How a delivery begins.
#[derive(Debug)]
pub enum Begun {
    /// The delivery is new: it has to be ended, or given up.
    New(Taken),
    /// The delivery was acted on before.
    Known,
    /// The delivery is acted on at this moment.
    Busy,
}

/// A delivery that is acted on.
#[derive(Debug)]
pub struct Taken {
    names: Names,
    at: Time,
}

/// The deliveries of one forge.
pub struct Known {
    records: Arc<dyn Records>,
    forge: ForgeName,
    begun: AtomicU64,
}

impl Known {
    pub fn new(records: Arc<dyn Records>, forge: ForgeName) -> Self {
        Self { records, forge, begun: AtomicU64::new(0) }
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

    pub async fn begin(&self, names: Names, now: Time) -> Result<Begun, StorageError> {
        if self.begun.fetch_add(1, Ordering::Relaxed).is_multiple_of(BETWEEN_SWEEPS) {
            self.sweep(now).await?;
        }
        match self.records.write(self.taken(&names, now, Expect::Absent)).await {
            Ok(()) => Ok(Begun::New(Taken { names, at: now })),
            Err(StorageError::Conflict(_)) => self.begin_again(names, now).await,
            Err(error) => Err(error),
        }
    }

    /// Begins a delivery of which one of the names is known: it was done, or whoever began it may be gone.
    async fn begin_again(&self, names: Names, now: Time) -> Result<Begun, StorageError> {
        let mut writes = Vec::new();
        for name in &names.0 {
            let found = self.records.get(&self.key(name)).await?;
            let expect = found.as_ref().map_or(Expect::Absent, |it| Expect::Version(it.version));
            match found.map(|it| DeliveryState::read(&it.value)) {
                Some(DeliveryState::Done) => return Ok(Begun::Known),
                Some(DeliveryState::Begun(at)) if now.since(at) < BEGUN => return Ok(Begun::Busy),
                Some(DeliveryState::Begun(_)) | None => {}
            }
            let key = self.key(name);
            writes.push(Write { key, expect, value: Some(DeliveryState::Begun(now).write()) });
            writes.push(self.listed(now, name));
        }
        match self.records.write(writes).await {
            Ok(()) => Ok(Begun::New(Taken { names, at: now })),
            Err(StorageError::Conflict(_)) => Ok(Begun::Busy),
            Err(error) => Err(error),
        }
    }

    fn taken(&self, names: &Names, now: Time, expect: Expect) -> Vec<Write> {
        let value = DeliveryState::Begun(now).write();
        let write = |name: &String| {
            let own = Write { key: self.key(name), expect, value: Some(value.clone()) };
            [own, self.listed(now, name)]
        };
        names.0.iter().flat_map(write).collect()
    }

    fn listed(&self, now: Time, name: &str) -> Write {
        let value = Some(Bytes::from_static(b"1"));
        Write { key: self.order(now, name), expect: Expect::Anything, value }
    }

    /// Ends a delivery: what it asked for is durable, and it is known from now on.
    pub async fn done(&self, taken: Taken) -> Result<(), StorageError> {
        let value = DeliveryState::Done.write();
        let write = |name: &String| Write {
            key: self.key(name),
            expect: Expect::Anything,
            value: Some(value.clone()),
        };
        self.records.write(taken.names.0.iter().map(write).collect()).await
    }

    /// Gives up a delivery of which nothing came: the same may come again.
    pub async fn give_up(&self, taken: Taken) -> Result<(), StorageError> {
        let gone = |key| Write { key, expect: Expect::Anything, value: None };
        let both = |name: &String| [gone(self.key(name)), gone(self.order(taken.at, name))];
        self.records.write(taken.names.0.iter().flat_map(both).collect()).await
    }

    /// Removes what is too old, and the oldest of what is too much.
    async fn sweep(&self, now: Time) -> Result<(), StorageError> {
        let prefix = self.orders();
        let newest = self.records.list(&prefix, None, true, MAX_KNOWN + SWEPT).await?;
        let name = |key: &str| -> Option<(Time, String)> {
            let (at, name) = key.strip_prefix(&prefix)?.split_once('-')?;
            Some((Time(at.parse().ok()?), name.to_owned()))
        };
        let mut writes = Vec::new();
        for (place, record) in newest.iter().enumerate().rev() {
            let Some((at, name)) = name(&record.key) else { continue };
            let keep = place < MAX_KNOWN && now.since(at) <= WINDOW;
            if keep || writes.len() >= 2 * SWEPT {
                break;
            }
            for key in [record.key.clone(), self.key(&name)] {
                writes.push(Write { key, expect: Expect::Anything, value: None });
            }
        }
        match writes.is_empty() {
            true => Ok(()),
            false => self.records.write(writes).await,
        }
    }
}

enum DeliveryState {
    Begun(Time),
    Done,
}

impl DeliveryState {
    fn write(&self) -> Bytes {
        match self {
            Self::Begun(at) => Bytes::from(format!("begun {}", at.0)),
            Self::Done => Bytes::from_static(b"done"),
        }
    }

    /// What is not understood was done: it is not done again for that.
    fn read(value: &[u8]) -> Self {
        let at = std::str::from_utf8(value).ok().and_then(|it| it.strip_prefix("begun "));
        at.and_then(|it| it.parse().ok()).map_or(Self::Done, |at| Self::Begun(Time(at)))
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

    async fn begin(known: &Known, names: Names, now: Time) -> Begun {
        known.begin(names, now).await.unwrap()
    }

    #[tokio::test]
    async fn a_delivery_is_done_once_under_whatever_id_its_copy_comes() {
        let memory = Memory::default();
        let known = known(&memory);
        let Begun::New(taken) = begin(&known, github("1", b"a"), at(0)).await else {
            panic!("it is new");
        };
        assert!(matches!(begin(&known, github("1", b"a"), at(1)).await, Begun::Busy));
        known.done(taken).await.unwrap();
        for (id, body) in [("1", "a"), ("2", "a"), ("1", "b")] {
            let again = begin(&known, github(id, body.as_bytes()), at(3_600)).await;
            assert!(matches!(again, Begun::Known), "{id} {body}");
        }
        assert!(matches!(begin(&known, github("2", b"b"), at(1)).await, Begun::New(_)));
    }

    #[test]
    fn gitlabs_deliveries_are_named_by_id_and_body() {
        let name = |id: &str, body: &[u8]| Names::of(Kind::GitLab, &head(id), body);
        assert_eq!(name("1", b"a"), name("1", b"a"));
        // Hooks that set off each other share an id.
        assert_ne!(name("1", b"a"), name("1", b"b"));
        assert_ne!(name("1", b"a"), name("2", b"a"));
    }

    #[tokio::test]
    async fn what_came_to_nothing_may_come_again() {
        let memory = Memory::default();
        let known = known(&memory);
        let Begun::New(taken) = begin(&known, github("1", b"a"), at(0)).await else {
            panic!("it is new");
        };
        known.give_up(taken).await.unwrap();
        assert_eq!(memory.records(), 0);
        assert!(matches!(begin(&known, github("1", b"a"), at(1)).await, Begun::New(_)));
        // Whoever began it died.
        assert!(matches!(begin(&known, github("1", b"a"), at(60)).await, Begun::Busy));
        let Begun::New(taken) = begin(&known, github("1", b"a"), at(62)).await else {
            panic!("it is new again");
        };
        known.done(taken).await.unwrap();
        assert!(matches!(begin(&known, github("1", b"a"), at(200)).await, Begun::Known));
    }

    #[tokio::test]
    async fn so_many_are_known_and_for_so_long() {
        let memory = Memory::default();
        let known = known(&memory);
        for number in 0..BETWEEN_SWEEPS {
            let begun = begin(&known, github(&format!("{number}"), b""), at(number)).await;
            assert!(matches!(begun, Begun::New(_) | Begun::Busy));
        }
        assert!(memory.records() > 0);
        let late = at(WINDOW.as_secs() + 3_600);
        let begun = begin(&known, github("late", b"late"), late).await;
        assert!(matches!(begun, Begun::New(_)));
        assert_eq!(memory.records(), 4, "only the last one is left");
    }
}
