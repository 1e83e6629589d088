//! What is remembered of tests that are fanned out: their cases, how long these take, and that a runner ignores
//! shards.
//!
//! There are so many places and no more: each test has its place by a hash, and who comes to a place that another
//! test has takes it. What is forgotten so is learned again from the next run.

use std::collections::BTreeSet;

use kiln_cas::DigestFunction;
use kiln_cas::records::{Expect, SharedRecords, Write};
use prost::Message;

use super::course::CaseId;
use crate::reports::CaseTime;

const PREFIX: &str = "fanout";
/// The number of places, each of which holds one test.
const PLACES: u16 = 8192;
/// Bytes of one record. Names of cases are left out where they are too many.
const MAX_BYTES: usize = 256 << 10;
/// Cases that are remembered of one test; one with more is not fanned out.
pub const MAX_CASES: usize = 30_000;

/// The key of a test, which stays the same over all revisions of its sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SuiteKey(String);

impl SuiteKey {
    /// `report`: where it writes its report, which names the configuration that it is built in. What a client
    /// calls its configuration changes with every flag, also with those that no test notices.
    pub fn new(instance: &str, label: &str, report: &str) -> Self {
        let parts = [instance, label, report];
        let lengths = parts.map(|part| format!("{}:{part}", part.len()));
        Self(DigestFunction::Sha256.digest(lengths.concat().as_bytes()).hex())
    }

    fn record(&self) -> String {
        let place = u16::from_str_radix(self.0.get(..4).unwrap_or_default(), 16);
        format!("{PREFIX}/{:04x}", place.unwrap_or_default() % PLACES)
    }
}

/// What is remembered of one test; also the message that its record holds.
#[derive(Clone, PartialEq, Message)]
pub struct Suite {
    /// The test's key: another one may have the same place.
    #[prost(string, tag = "1")]
    key: String,
    /// With these inputs the runner was seen to ignore shards; empty: it was not.
    #[prost(string, tag = "2")]
    pub ignores_with: String,
    /// Cases that the last full run had, or all parts of one together. Sorted.
    #[prost(fixed64, repeated, tag = "3")]
    ids: Vec<CaseId>,
    /// The same cases with names and times; empty where they are too many.
    #[prost(message, repeated, tag = "4")]
    timed: Vec<Timed>,
    /// Milliseconds that all cases took together.
    #[prost(uint64, tag = "5")]
    pub whole_ms: u64,
    #[prost(bool, tag = "6")]
    pub has_too_many: bool,
}

#[derive(Clone, PartialEq, Message)]
struct Timed {
    #[prost(string, tag = "1")]
    class: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(uint64, tag = "3")]
    ms: u64,
}

/// The id of a case.
pub fn id(case: &CaseTime) -> CaseId {
    let text = format!("{}:{}{}", case.class.len(), case.class, case.name);
    let digest = DigestFunction::Sha256.digest(text.as_bytes());
    u64::from_be_bytes(digest.hash.first_chunk().copied().unwrap_or_default())
}

impl Suite {
    /// Cases that every complete run has.
    pub fn full(&self) -> BTreeSet<CaseId> {
        self.ids.iter().copied().collect()
    }

    pub fn cases(&self) -> usize {
        self.ids.len()
    }

    /// Empty: names and times are not known.
    pub fn timed(&self) -> Vec<CaseTime> {
        let case = |it: &Timed| CaseTime {
            class: it.class.clone(),
            name: it.name.clone(),
            ran: true,
            ms: it.ms,
        };
        self.timed.iter().map(case).collect()
    }

    /// What a run of some cases, named by its client, tells of the whole test: only whether the
    /// runner ignores shards.
    pub fn of_some_cases(self) -> Self {
        Self { ignores_with: self.ignores_with, ..Self::default() }
    }

    /// Milliseconds of the longest case; `None`: not known.
    pub fn longest_ms(&self) -> Option<u64> {
        self.timed.iter().map(|it| it.ms).max().filter(|longest| *longest > 0)
    }

    /// Milliseconds that one of `count` shards may take where the runner divides the cases: the
    /// longest case may be in any. 0: not known.
    pub fn part_ms(&self, count: u32) -> u64 {
        (self.whole_ms / u64::from(count.max(1))).max(self.longest_ms().unwrap_or(0))
    }

    /// Learns the cases of a run that was complete and passed.
    pub fn learn(&mut self, cases: &[CaseTime], whole_ms: u64) {
        let mut ran: Vec<&CaseTime> = cases.iter().filter(|case| case.ran).collect();
        ran.sort();
        ran.dedup_by(|one, other| (&one.class, &one.name) == (&other.class, &other.name));
        self.whole_ms = if whole_ms > 0 { whole_ms } else { self.whole_ms };
        // Without a report nothing new is known of them.
        if ran.is_empty() {
            return;
        }
        self.has_too_many = ran.len() > MAX_CASES;
        (self.ids, self.timed) = Default::default();
        if self.has_too_many {
            return;
        }
        self.ids = ran.iter().map(|case| id(case)).collect();
        self.ids.sort_unstable();
        let timed = |case: &&CaseTime| Timed {
            class: case.class.clone(),
            name: case.name.clone(),
            ms: case.ms,
        };
        self.timed = ran.iter().map(timed).collect();
        if self.encoded_len() > MAX_BYTES {
            self.timed.clear();
        }
    }
}

/// The records of all remembered tests.
#[derive(Clone)]
pub struct Suites {
    records: SharedRecords,
}

impl Suites {
    pub fn new(records: SharedRecords) -> Self {
        Self { records }
    }

    /// What is remembered of the test; an empty `Suite` where there is no record, or none that can
    /// be read.
    pub async fn get(&self, key: &SuiteKey) -> Suite {
        let fresh = Suite { key: key.0.clone(), ..Suite::default() };
        match self.records.get(&key.record()).await {
            Ok(Some(record)) => {
                let kept = Suite::decode(record.value).ok().filter(|kept| kept.key == key.0);
                kept.unwrap_or(fresh)
            }
            Ok(None) => fresh,
            Err(error) => {
                tracing::warn!(%error, "what is known of a test's cases could not be read");
                fresh
            }
        }
    }

    /// Writes what is known of a test, in place of whatever had its place before; an error is
    /// logged.
    pub async fn keep(&self, key: &SuiteKey, suite: &Suite) {
        let value = Some(suite.encode_to_vec().into());
        let write = Write { key: key.record(), expect: Expect::Anything, value };
        if let Err(error) = self.records.write(vec![write]).await {
            tracing::warn!(%error, "what is known of a test's cases could not be written");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kiln_cas::stores::MemoryRecords;

    use super::*;

    fn case(name: &str, ran: bool, ms: u64) -> CaseTime {
        CaseTime { class: "C".to_owned(), name: name.to_owned(), ran, ms }
    }

    fn key(label: &str) -> SuiteKey {
        SuiteKey::new("main", label, "out/test.xml")
    }

    #[tokio::test]
    async fn what_is_learned_is_remembered_and_belongs_to_one_test() {
        let suites = Suites::new(Arc::new(MemoryRecords::default()));
        let mut suite = suites.get(&key("//a")).await;
        assert_eq!((suite.cases(), suite.longest_ms()), (0, None));
        suite.learn(
            &[case("a", true, 5), case("b", true, 7), case("a", true, 5), case("c", false, 0)],
            20,
        );
        suites.keep(&key("//a"), &suite).await;
        let kept = suites.get(&key("//a")).await;
        assert_eq!(kept.full(), BTreeSet::from([id(&case("a", true, 0)), id(&case("b", true, 0))]));
        assert_eq!((kept.longest_ms(), kept.whole_ms, kept.timed().len()), (Some(7), 20, 2));
        assert_eq!(suites.get(&key("//b")).await.cases(), 0);
        suite.learn(&[], 30);
        assert_eq!((suite.cases(), suite.whole_ms), (2, 30), "a run without a report");
    }

    #[test]
    fn a_record_is_bounded() {
        let cases = |count: usize| -> Vec<CaseTime> {
            (0..count).map(|n| case(&format!("{n}{}", "x".repeat(40)), true, 1)).collect()
        };
        let mut suite = Suite::default();
        suite.learn(&cases(MAX_CASES), 1);
        assert_eq!((suite.cases(), suite.timed().len()), (MAX_CASES, 0), "names are left out");
        assert!(suite.encoded_len() <= MAX_BYTES, "{}", suite.encoded_len());
        suite.learn(&cases(MAX_CASES + 1), 1);
        assert!(suite.has_too_many && suite.cases() == 0);
        suite.learn(&cases(10), 1);
        assert!(!suite.has_too_many && suite.timed().len() == 10);
    }

    #[test]
    fn places_are_bounded_and_names_cannot_be_confused() {
        for label in ["//a", "//b"] {
            let place = u16::from_str_radix(&key(label).record()[7..], 16).unwrap();
            assert!(place < PLACES);
        }
        let other = CaseTime { class: "Ca".to_owned(), ..case("", true, 0) };
        assert_ne!(id(&case("a", true, 0)), id(&other));
    }
}
