//! Plans in records. Whoever hands out a piece writes who got it, and only if nobody else wrote since.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;

use super::course::{Course, Given, NextPiece, Progress, Refused, Turn};
use super::keys;
use crate::model::Time;
use crate::storage::{Damage, Expect, MAX_VALUE, Record, Records, StorageError, Write};

/// Bytes of the names of all tests of a plan.
pub const MAX_PLAN: usize = 8 << 20;
/// Bytes of a plan's name.
const MAX_ID: usize = 200;
/// Plans that wait for their end at one time, and bytes of their tests.
const MAX_PLANS: usize = 2_000;
const MAX_BYTES: u64 = 1 << 30;
/// How long a plan is kept where nobody says it, and at most.
const KEPT: Duration = Duration::from_secs(24 * 3600);
const MOST_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Plans that are removed when one is put here, the oldest first.
const REMOVED: usize = 8;
/// How often something is tried that others change, too.
const TRIES: u32 = 64;
/// Records that are read at once.
const PAGE: usize = 200;
/// Pieces that are written in one step.
const AT_ONCE: usize = 250;

/// A piece of a suite.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Piece {
    pub tests: Vec<String>,
    /// Seconds that the tests are expected to take; the longest pieces are given out first.
    pub expected_s: f64,
}

/// What is put here.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    pub instance: String,
    /// The plan's id, which its runners name: that of a pipeline, for example.
    pub id: String,
    pub pieces: Vec<Piece>,
    /// The time after which the piece of a runner that was not heard of again is given to another one. `None`: never.
    pub again_after: Option<Duration>,
    /// How long the plan is kept.
    pub keep: Option<Duration>,
}

/// How far a plan is.
#[derive(Clone, Debug, PartialEq)]
pub struct Standing {
    pub progress: Progress,
    pub tests: usize,
    pub expires: Time,
    pub again_after: Option<Duration>,
    pub course: Course,
    /// Whether the plan was there before, with the same tests.
    pub was_there: bool,
}

/// What a runner is to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Handed {
    Piece { piece: Piece, given: Given, progress: Progress },
    Wait(Progress),
    Nothing(Progress),
}

#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    #[error("there is no plan {0:?}, or it has expired")]
    NoPlan(String),
    #[error("there is a plan {0:?} already, of other tests")]
    OtherTests(String),
    #[error("{0}")]
    Invalid(String),
    #[error(
        "there are {MAX_PLANS} plans, or the tests of all take {MAX_BYTES} bytes: wait until some expire"
    )]
    Full,
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("plans cannot be read or written")]
    Storage(#[from] StorageError),
    #[error("record {key} is damaged")]
    Damaged {
        key: String,
        #[source]
        source: Damage,
    },
    #[error("a plan cannot be written")]
    Unwritable(#[source] Damage),
    #[error("others changed the plan again and again")]
    Restless,
}

#[derive(Serialize, Deserialize)]
struct Head {
    id: String,
    expires: Time,
    again_after: Option<Duration>,
    /// How the keys of its pieces begin.
    place: String,
    /// A hash over all names of tests, whatever pieces they are in.
    tests: String,
    count: usize,
    course: Course,
}

/// Clones hand out the same plans.
#[derive(Clone)]
pub struct Plans {
    records: Arc<dyn Records>,
    /// Runners that ask this server take turns: comparisons fail between servers alone.
    turn: Arc<Mutex<()>>,
}

impl Plans {
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records, turn: Arc::default() }
    }

    /// Puts a plan here, once: when there is one of this name with the same tests, that one stays as it is.
    pub async fn put(&self, plan: Plan, now: Time) -> Result<Standing, PlanError> {
        let bytes = check(&plan)?;
        let hash = keys::hash(&plan.instance, &plan.id);
        let mut pieces = plan.pieces;
        pieces.sort_by(|a, b| {
            b.expected_s.total_cmp(&a.expected_s).then_with(|| a.tests.cmp(&b.tests))
        });
        let expires = now.plus(plan.keep.unwrap_or(KEPT).min(MOST_KEPT));
        let head = Head {
            course: Course::new(pieces.len(), plan.again_after)?,
            count: pieces.iter().map(|it| it.tests.len()).sum(),
            place: keys::place(&hash, expires, &fingerprint(&pieces, false)),
            tests: fingerprint(&pieces, true),
            again_after: plan.again_after,
            id: plan.id,
            expires,
        };
        if let Some((_, there)) = self.head(&hash, now).await? {
            return same(there, &head);
        }
        self.make_room(bytes, now).await?;
        match self.write(&hash, &head, &pieces, bytes).await {
            Err(PlanError::Storage(StorageError::Conflict(_))) => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(Standing::of(head, false)),
        }
        // Somebody else has put it here meanwhile.
        let (_, there) = self.head(&hash, now).await?.ok_or(PlanError::Restless)?;
        if there.place != head.place {
            self.delete_all(&head.place).await?;
        }
        same(there, &head)
    }

    /// What expires comes first, so that nothing is left behind; the head last: what has one is whole.
    async fn write(
        &self,
        hash: &str,
        head: &Head,
        pieces: &[Piece],
        bytes: u64,
    ) -> Result<(), PlanError> {
        let put = |key, expect, value| Write { key, expect, value: Some(value) };
        let due = keys::encode(&bytes).map_err(PlanError::Unwritable)?;
        let mut writes = vec![put(keys::due(head.expires, hash), Expect::Anything, due)];
        for (number, piece) in pieces.iter().enumerate() {
            let value = keys::encode(piece).map_err(PlanError::Unwritable)?;
            if value.len() > MAX_VALUE {
                let message = "a piece has more tests than a record takes: cut it into more pieces";
                return Err(PlanError::Invalid(message.to_owned()));
            }
            writes.push(put(keys::piece(&head.place, number), Expect::Anything, value));
        }
        let value = keys::encode(head).map_err(PlanError::Unwritable)?;
        for batch in writes.chunks(AT_ONCE) {
            self.records.write(batch.to_vec()).await?;
        }
        Ok(self.records.write(vec![put(keys::head(hash), Expect::Absent, value)]).await?)
    }

    /// Removes what has expired, and refuses what there is no room for.
    async fn make_room(&self, bytes: u64, now: Time) -> Result<(), PlanError> {
        let mut after: Option<String> = None;
        let (mut plans, mut all, mut removed) = (0, bytes, 0);
        loop {
            let page = self.records.list(keys::DUE, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { return Ok(()) };
            after = Some(last.key.clone());
            for record in &page {
                let Some((expires, hash)) = keys::of_due(&record.key) else { continue };
                if expires <= now && removed < REMOVED {
                    self.remove(expires, hash).await?;
                    removed += 1;
                    continue;
                }
                plans += 1;
                all = all.saturating_add(decode::<u64>(record).unwrap_or(0));
            }
            if plans >= MAX_PLANS || all > MAX_BYTES {
                return Err(PlanError::Full);
            }
        }
    }

    /// All of a plan that has expired then. One of the same name that was put here since stays.
    async fn remove(&self, expires: Time, hash: &str) -> Result<(), PlanError> {
        let head = self.records.get(&keys::head(hash)).await?;
        let own = head.filter(|it| decode::<Head>(it).is_ok_and(|it| it.expires == expires));
        if let Some(own) = own {
            let expect = Expect::Version(own.version);
            match self.records.write(vec![Write { key: own.key, expect, value: None }]).await {
                // Somebody has removed it already.
                Err(StorageError::Conflict(_)) => {}
                removed => removed?,
            }
        }
        self.delete_all(&keys::place_of(hash, expires)).await?;
        let due = keys::due(expires, hash);
        Ok(self.records.write(vec![delete(due)]).await?)
    }

    async fn delete_all(&self, prefix: &str) -> Result<(), PlanError> {
        loop {
            let page = self.records.list(prefix, None, false, PAGE).await?;
            if page.is_empty() {
                return Ok(());
            }
            let writes = page.into_iter().map(|it| delete(it.key)).collect();
            self.records.write(writes).await?;
        }
    }

    /// The next piece for a runner.
    pub async fn next(
        &self,
        instance: &str,
        id: &str,
        turn: Turn<'_>,
    ) -> Result<Handed, PlanError> {
        let hash = keys::hash(instance, id);
        let changes = self.turn.lock().await;
        for _ in 0..TRIES {
            let found = self.head(&hash, turn.now).await?;
            let (version, mut head) = found.ok_or_else(|| PlanError::NoPlan(id.to_owned()))?;
            let before = head.course.clone();
            let answer = head.course.next(turn)?;
            if head.course != before {
                let value = Some(keys::encode(&head).map_err(PlanError::Unwritable)?);
                let expect = Expect::Version(version);
                match self
                    .records
                    .write(vec![Write { key: keys::head(&hash), expect, value }])
                    .await
                {
                    Err(StorageError::Conflict(_)) => continue,
                    written => written?,
                }
            }
            // Others need not wait until the piece is read.
            drop(changes);
            return self.handed(&head, answer).await;
        }
        Err(PlanError::Restless)
    }

    async fn handed(&self, head: &Head, answer: NextPiece) -> Result<Handed, PlanError> {
        let progress = head.course.progress();
        Ok(match answer {
            NextPiece::Wait => Handed::Wait(progress),
            NextPiece::Nothing => Handed::Nothing(progress),
            NextPiece::Piece(given) => {
                let key = keys::piece(&head.place, given.piece as usize);
                let record = self.records.get(&key).await?;
                let record = record.ok_or_else(|| PlanError::NoPlan(head.id.clone()))?;
                let piece = decode(&record)?;
                Handed::Piece { piece, given, progress }
            }
        })
    }

    pub async fn standing(
        &self,
        instance: &str,
        id: &str,
        now: Time,
    ) -> Result<Standing, PlanError> {
        let found = self.head(&keys::hash(instance, id), now).await?;
        let (_, head) = found.ok_or_else(|| PlanError::NoPlan(id.to_owned()))?;
        Ok(Standing::of(head, true))
    }

    async fn head(&self, hash: &str, now: Time) -> Result<Option<(u64, Head)>, PlanError> {
        let Some(record) = self.records.get(&keys::head(hash)).await? else { return Ok(None) };
        let head: Head = decode(&record)?;
        if head.expires <= now {
            self.remove(head.expires, hash).await?;
            return Ok(None);
        }
        Ok(Some((record.version, head)))
    }
}

fn decode<T: serde::de::DeserializeOwned>(record: &Record) -> Result<T, PlanError> {
    let damaged = |source| PlanError::Damaged { key: record.key.clone(), source };
    keys::decode(&record.value).map_err(damaged)
}

fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}

/// The plan that is there, where it is of the same tests: who cuts them anew gets the cut that others work on.
fn same(there: Head, wanted: &Head) -> Result<Standing, PlanError> {
    match there.tests == wanted.tests {
        true => Ok(Standing::of(there, true)),
        false => Err(PlanError::OtherTests(wanted.id.clone())),
    }
}

/// Checks a plan, and answers with the bytes of the names of its tests.
fn check(plan: &Plan) -> Result<u64, PlanError> {
    let invalid = |message: &str| Err(PlanError::Invalid(message.to_owned()));
    if plan.id.is_empty() || plan.id.len() > MAX_ID || plan.id.chars().any(char::is_control) {
        return Err(PlanError::Invalid(format!(
            "a plan has a name of 1 to {MAX_ID} bytes on one line"
        )));
    }
    if plan.pieces.iter().any(|it| it.tests.is_empty()) {
        return invalid("a piece without tests: most runners run everything when nothing is named");
    }
    if plan.pieces.iter().any(|it| !it.expected_s.is_finite() || it.expected_s < 0.0) {
        return invalid("a piece is expected to take a number of seconds");
    }
    let tests = || plan.pieces.iter().flat_map(|it| &it.tests);
    let bytes: usize = tests().map(String::len).sum();
    if bytes > MAX_PLAN {
        return Err(PlanError::Invalid(format!(
            "the names of its tests take more than {MAX_PLAN} bytes"
        )));
    }
    let mut names: Vec<&String> = tests().collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(twice) => Err(PlanError::Invalid(format!("test {:?} is in it twice", twice[0]))),
        None => Ok(bytes as u64),
    }
}

/// A hash over the tests, in order of their names or as they are cut.
fn fingerprint(pieces: &[Piece], sorted: bool) -> String {
    let mut names: Vec<&str> = Vec::new();
    for piece in pieces {
        names.extend(piece.tests.iter().map(String::as_str));
        if !sorted {
            names.push("");
        }
    }
    if sorted {
        names.sort_unstable();
    }
    let mut hash = blake3::Hasher::new();
    for name in names {
        hash.update(&(name.len() as u64).to_le_bytes());
        hash.update(name.as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}

impl Standing {
    fn of(head: Head, was_there: bool) -> Self {
        Self {
            progress: head.course.progress(),
            tests: head.count,
            expires: head.expires,
            again_after: head.again_after,
            course: head.course,
            was_there,
        }
    }
}

#[cfg(test)]
#[path = "service_tests.rs"]
mod tests;
