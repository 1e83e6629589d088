//! Builds that told of themselves, listed in the order in which they began and found by their invocation.
//!
//! | key | what it says |
//! | --- | --- |
//! | `events/builds/BEGAN/STREAM` | what lists show of a build; when its first events came, by this server's clock |
//! | `events/named/INVOCATION` | the key of its record, and the stream |

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::facts::{Facts, Origin, TargetOutcome};
use super::log::{EventLog, LogError, storage};
use super::names::{name_of, stream_name};
use super::wire::StreamKey;
use crate::attempts::cut;
use crate::model::Time;
use crate::storage::{Expect, Record, Write};

const BUILDS: &str = "events/builds/";
const NAMED: &str = "events/named/";

/// Patterns in a summary, and bytes of each of its texts.
const MAX_PATTERNS: usize = 20;
/// Records that are listed at once.
const PAGE: usize = 256;
const MAX_TEXT: usize = 512;
/// Builds that are looked through for the beginning of an invocation.
const MAX_LOOKED_AT: usize = 5_120;

/// What lists show of a build.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub stream: StreamKey,
    /// When the build began, by its client's clock, as is the end.
    pub started: Option<Time>,
    pub finished: Option<Time>,
    pub command: String,
    pub patterns: Vec<String>,
    pub origin: Origin,
    pub exit_code: Option<(i32, String)>,
    pub targets: u64,
    pub failed_targets: u64,
    pub tests: u64,
    pub failed_tests: u64,
    pub first_failure: Option<String>,
    /// The build tool said that nothing more comes.
    pub is_complete: bool,
}

/// A build and its place in the list of builds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// The place of the build, which orders the list: what comes before it is older.
    pub place: String,
    pub summary: Summary,
}

#[derive(Serialize, Deserialize)]
struct Named {
    place: String,
    stream: StreamKey,
}

impl Summary {
    /// Nothing for a stream that is of no build of Bazel.
    pub fn of(stream: &StreamKey, facts: &Facts) -> Option<Self> {
        let text = |text: &str| cut(text, MAX_TEXT).to_owned();
        let some = |it: &Option<String>| it.as_deref().map(text);
        let has_started = facts.started.is_some() || !facts.command.is_empty();
        let outcomes = |wanted: &[TargetOutcome]| {
            facts.targets.iter().filter(|(_, it)| wanted.contains(&it.outcome)).count() as u64
        };
        let tests = || facts.targets.iter().filter_map(|(_, it)| it.test.as_ref());
        let is_bad = |status: &str| !matches!(status, "passed" | "flaky" | "no_status");
        has_started.then(|| Self {
            stream: stream.clone(),
            started: facts.started,
            finished: facts.finished,
            command: text(&facts.command),
            patterns: facts.patterns.iter().take(MAX_PATTERNS).map(|it| text(it)).collect(),
            origin: Origin {
                commit: some(&facts.origin.commit),
                branch: some(&facts.origin.branch),
                repository: some(&facts.origin.repository),
                user: some(&facts.origin.user),
                host: some(&facts.origin.host),
            },
            exit_code: facts.exit_code.as_ref().map(|(code, name)| (*code, text(name))),
            targets: facts.targets.len() as u64,
            failed_targets: outcomes(&[TargetOutcome::Failed, TargetOutcome::Aborted]),
            tests: tests().count() as u64,
            failed_tests: tests().filter(|it| is_bad(&it.status)).count() as u64,
            first_failure: some(&facts.first_failure),
            is_complete: facts.is_complete,
        })
    }
}

impl EventLog {
    /// Notes how far a build is. Its place is that of when it was noted first, at whichever server. An invocation is
    /// that of the stream which told of it first: whoever knows its id cannot take its page or its gate.
    pub async fn note(&self, now: Time, summary: &Summary) -> Result<(), LogError> {
        let stream = &summary.stream;
        let named = format!("{NAMED}{}", name_of(&[&stream.invocation]));
        let fresh = || format!("{:016x}/{}", now.0, stream_name(stream));
        let known = self.named(&named, stream).await?;
        if known.as_ref().is_some_and(|it| it.stream != *stream) {
            return Ok(());
        }
        let place = known.map_or_else(fresh, |it| it.place);
        let value = |json: serde_json::Result<Vec<u8>>| Some(json.unwrap_or_default().into());
        let writes = vec![
            Write {
                key: format!("{BUILDS}{place}"),
                expect: Expect::Anything,
                value: value(serde_json::to_vec(summary)),
            },
            Write {
                key: named,
                expect: Expect::Anything,
                value: value(serde_json::to_vec(&Named { place, stream: stream.clone() })),
            },
        ];
        self.records.write(writes).await.map_err(|source| storage(stream, source))
    }

    async fn named(&self, key: &str, of: &StreamKey) -> Result<Option<Named>, LogError> {
        let record = self.records.get(key).await.map_err(|source| storage(of, source))?;
        Ok(record.and_then(|it| serde_json::from_slice(&it.value).ok()))
    }

    /// The build with this invocation id.
    pub async fn build(&self, invocation: &str) -> Result<Option<Noted>, LogError> {
        let of = StreamKey { invocation: invocation.to_owned(), ..StreamKey::default() };
        let key = format!("{NAMED}{}", name_of(&[&of.invocation]));
        let Some(Named { place, .. }) = self.named(&key, &of).await? else { return Ok(None) };
        let record = self.records.get(&format!("{BUILDS}{place}")).await;
        let record = record.map_err(|source| storage(&of, source))?;
        let summary = record.and_then(|it| serde_json::from_slice(&it.value).ok());
        Ok(summary.map(|summary| Noted { place, summary }))
    }

    /// Forgets builds that began longer ago than `keep` and whose streams are gone.
    pub(super) async fn age_builds(&self, now: Time, keep: Duration) -> Result<(), LogError> {
        let of_all = |source| storage(&StreamKey::default(), source);
        let mut after: Option<String> = None;
        loop {
            let page = self.records.list(BUILDS, after.as_deref(), false, PAGE).await;
            let page = page.map_err(of_all)?;
            for record in &page {
                if now.since(began(&record.key)) <= keep {
                    return Ok(());
                }
                let summary: Option<Summary> = serde_json::from_slice(&record.value).ok();
                self.forget_build(&record.key, summary.as_ref()).await?;
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => return Ok(()),
            }
        }
    }

    async fn forget_build(&self, key: &str, summary: Option<&Summary>) -> Result<(), LogError> {
        let none = StreamKey::default();
        let stream = summary.map_or(&none, |it| &it.stream);
        if summary.is_some() {
            match self.durable(stream).await {
                Ok((0, _)) => {}
                // A stream that cannot be read is there as well.
                Ok(_) | Err(LogError::Damaged { .. }) => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        let delete = |key: String| Write { key, expect: Expect::Anything, value: None };
        let named = format!("{NAMED}{}", name_of(&[&stream.invocation]));
        // Another stream may have the invocation's name by now.
        let is_own = self.named(&named, stream).await?.is_some_and(|it| it.stream == *stream);
        let named = is_own.then(|| delete(named));
        let writes = [delete(key.to_owned())].into_iter().chain(named).collect();
        self.records.write(writes).await.map_err(|source| storage(stream, source))
    }

    /// Builds before a place, the one that began last first, at most so many, but those that cannot be read.
    pub async fn builds(&self, before: Option<&str>, limit: usize) -> Result<Vec<Noted>, LogError> {
        let mut before = before.map(|place| format!("{BUILDS}{place}"));
        let mut builds: Vec<Noted> = Vec::new();
        // Whoever asks takes a short list for the last one.
        while builds.len() < limit {
            let listed = self.records.list(BUILDS, before.as_deref(), true, limit).await;
            let listed = listed.map_err(|source| storage(&StreamKey::default(), source))?;
            builds.extend(listed.iter().filter_map(|it| self.noted(it)));
            match listed.last() {
                Some(last) if listed.len() == limit => before = Some(last.key.clone()),
                _ => break,
            }
        }
        builds.truncate(limit);
        Ok(builds)
    }

    fn noted(&self, record: &Record) -> Option<Noted> {
        let place = record.key.strip_prefix(BUILDS)?.to_owned();
        let summary = self.unread.readable(&record.key, serde_json::from_slice(&record.value))?;
        Some(Noted { place, summary })
    }

    /// Builds whose invocation begins so, among the newest [`MAX_LOOKED_AT`], at most `limit`.
    pub async fn builds_like(&self, beginning: &str, limit: usize) -> Result<Vec<Noted>, LogError> {
        let mut found = Vec::new();
        let mut before: Option<String> = None;
        for _ in 0..MAX_LOOKED_AT / PAGE {
            let page = self.builds(before.as_deref(), PAGE).await?;
            before = page.last().map(|it| it.place.clone());
            let is_like = |it: &Noted| it.summary.stream.invocation.starts_with(beginning);
            found.extend(page.into_iter().filter(is_like));
            if before.is_none() || found.len() >= limit {
                break;
            }
        }
        found.truncate(limit);
        Ok(found)
    }
}

/// When a build was noted first, as its key says.
fn began(key: &str) -> Time {
    let time = key.strip_prefix(BUILDS).and_then(|place| place.get(..16));
    Time(time.and_then(|it| u64::from_str_radix(it, 16).ok()).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::events::KeptEvent;
    use crate::storage::Records;
    use crate::storage::memory::Memory;

    fn stream(invocation: &str) -> StreamKey {
        StreamKey { invocation: invocation.into(), component: 3, ..StreamKey::default() }
    }

    fn facts(command: &str) -> Facts {
        let origin = Origin { user: Some("ada".into()), ..Origin::default() };
        Facts { command: command.into(), origin, started: Some(Time(9)), ..Facts::default() }
    }

    #[tokio::test]
    async fn builds_are_listed_newest_first_and_keep_their_places() {
        let memory = Memory::default();
        let log = EventLog::new(Arc::new(memory.clone()), Arc::new(memory));
        for (now, invocation, command) in
            [(1, "a", "build"), (2, "b", "test"), (9, "a", "run"), (3, "c", "query")]
        {
            let summary = Summary::of(&stream(invocation), &facts(command)).unwrap();
            log.note(Time(now), &summary).await.unwrap();
        }
        let all = log.builds(None, 9).await.unwrap();
        let named = |all: &[Noted]| -> Vec<String> {
            all.iter().map(|it| it.summary.stream.invocation.clone()).collect()
        };
        assert_eq!(named(&all), ["c", "b", "a"]);
        assert_eq!(named(&log.builds(Some(&all[0].place), 1).await.unwrap()), ["b"]);
        let first = log.build("a").await.unwrap().unwrap();
        assert_eq!((&*first.summary.command, &first.place), ("run", &all[2].place));
        assert_eq!(log.build("d").await.unwrap(), None);
        let like = |beginning| log.builds_like(beginning, 2);
        assert_eq!(named(&like("").await.unwrap()), ["c", "b"]);
        assert_eq!(named(&like("a").await.unwrap()), ["a"]);
        assert_eq!(like("ab").await.unwrap(), []);
        // The build "b" still has a stream, so ageing keeps it.
        log.append(&stream("b"), Time(3), 1, &[KeptEvent::Other]).await.unwrap();
        log.age_builds(Time(20), Duration::from_millis(17)).await.unwrap();
        assert_eq!(named(&log.builds(None, 9).await.unwrap()), ["c", "b"]);
        assert_eq!(log.build("a").await.unwrap(), None);
        assert_eq!(Summary::of(&stream("x"), &Facts::default()), None);
    }

    #[tokio::test]
    async fn a_build_that_cannot_be_read_hides_none_behind_it() {
        let memory = Memory::default();
        let log = EventLog::new(Arc::new(memory.clone()), Arc::new(memory.clone()));
        for (now, invocation) in [(1, "a"), (2, "b"), (3, "c")] {
            let summary = Summary::of(&stream(invocation), &facts("build")).unwrap();
            log.note(Time(now), &summary).await.unwrap();
        }
        let place = log.build("b").await.unwrap().unwrap().place;
        let (key, value) = (format!("{BUILDS}{place}"), Some("no build".into()));
        let odd = Write { key, expect: Expect::Anything, value };
        Records::write(&memory, vec![odd]).await.unwrap();
        // A list of two that is cut to one would be taken for the last one.
        for limit in [2, 9] {
            let found = log.builds(None, limit).await.unwrap();
            let found: Vec<_> = found.iter().map(|it| &*it.summary.stream.invocation).collect();
            assert_eq!(found, ["c", "a"], "{limit}");
        }
    }
}
