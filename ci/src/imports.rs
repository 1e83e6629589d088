//! Reports of runs that Kiln did not make, as attempts.

use std::io::{self, Read};
use std::time::Duration;

use serde::Serialize;

use crate::attempts::{Attempt, CaseRun, Failure, IMPORT, Known, MAX_CASES, Slot, name};
use crate::junit::{self, CaseAttempt, Limits, Refused, Totals};
use crate::model::{CaseName, Outcome, TestKey, Time};

/// What a test is called whose report and importer do not say.
const NAMELESS: &str = "junit";

/// What a report does not say by itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Import {
    pub instance: String,
    /// The name of the suite; `None`: what the report calls its first one.
    pub suite: Option<String>,
    pub commit: String,
    pub branch: Option<String>,
    /// When the run began, as far as that is known.
    pub at: Time,
}

/// A report as it becomes history.
#[derive(Clone, Debug, PartialEq)]
pub struct Imported {
    pub attempt: Attempt,
    pub totals: Totals,
    /// Attempts at cases that failed or ran out of time.
    pub failed: u64,
    /// Attempts at cases beyond those that are kept.
    pub left_out: u64,
}

/// What is answered to whoever imports.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Receipt {
    pub suite: String,
    /// The id of the invocation that was recorded: the same for the same report of the same commit, which so counts
    /// once.
    pub invocation: String,
    pub outcome: Outcome,
    pub cases: u64,
    pub attempts: u64,
    pub failed: u64,
    pub left_out: u64,
}

/// How far the clock of whoever ran the tests may be ahead.
const SKEW: Duration = Duration::from_secs(300);

/// A report that says that it is older was unpacked, or made so that it can be made again: nobody knows its time.
const OLDEST: Duration = Duration::from_secs(400 * 24 * 3600);

/// When a run began, as far as that can be: what would be of tomorrow would stay for ever.
pub fn began(said: Option<Time>, now: Time) -> Time {
    let said = said.filter(|it| now.since(*it) <= OLDEST);
    said.unwrap_or(now).min(now.plus(SKEW))
}

impl Import {
    /// Reads a report. It is one run of one test with its cases, and failed where a case never passed. What it
    /// is called follows from all that is in it, so that it counts once however often it is brought.
    pub fn read(&self, source: impl Read) -> Result<Imported, Refused> {
        let mut cases = Cases::default();
        let mut source = Hashing { source, hash: self.hasher() };
        let totals = junit::read(&mut source, &Limits::default(), |it| cases.add(it))?;
        let invocation = format!("{IMPORT}{}", &source.hash.finalize().to_hex()[..32]);
        let label = self.suite.clone().or_else(|| cases.suite.clone());
        let test = TestKey {
            instance: name(&self.instance),
            label: name(&label.unwrap_or_else(|| NAMELESS.to_owned())),
            configuration: String::new(),
        };
        let slot = Slot { run: 1, shard: 1, attempt: 1 };
        let attempt = Attempt {
            shards: 1,
            outcome: cases.outcome(),
            started: self.at,
            duration: cases.duration(),
            failure: cases.runs.iter().find_map(|it| it.failure.clone()),
            commit: Some(name(&self.commit)),
            branch: self.branch.as_deref().map(name),
            cases: cases.runs,
            ..Attempt::new(test, &invocation, slot, Known::IMPORTED)
        };
        Ok(Imported { attempt, totals, failed: cases.failed, left_out: cases.left_out })
    }

    fn hasher(&self) -> blake3::Hasher {
        let mut hash = blake3::Hasher::new_derive_key("kiln 2026 name of an imported report");
        let (suite, branch) = (self.suite.as_deref(), self.branch.as_deref());
        for part in [Some(self.instance.as_str()), suite, Some(&self.commit), branch] {
            let part = part.unwrap_or_default();
            hash.update(&(part.len() as u64).to_le_bytes());
            hash.update(part.as_bytes());
        }
        hash
    }
}

impl Imported {
    pub fn receipt(&self) -> Receipt {
        // One that occurs again is a retry.
        let first = self.attempt.cases.iter().filter(|it| it.attempt <= 1).count() as u64;
        Receipt {
            suite: self.attempt.test.label.clone(),
            invocation: self.attempt.invocation.clone(),
            outcome: self.attempt.outcome,
            cases: first.saturating_add(self.left_out).min(self.totals.cases),
            attempts: self.totals.attempts,
            failed: self.failed,
            left_out: self.left_out,
        }
    }
}

/// What was read so far.
#[derive(Default)]
struct Cases {
    suite: Option<String>,
    runs: Vec<CaseRun>,
    failed: u64,
    left_out: u64,
}

impl Cases {
    fn add(&mut self, it: CaseAttempt) {
        if self.suite.is_none() && !it.suite.is_empty() {
            self.suite = it.suite.split(" > ").next().map(str::to_owned);
        }
        self.failed += u64::from(is_failure(it.result.outcome));
        if self.runs.len() >= MAX_CASES {
            self.left_out += 1;
            return;
        }
        self.runs.push(CaseRun {
            case: CaseName { class: name(&it.result.case.class), name: name(&it.result.case.name) },
            attempt: it.attempt,
            outcome: it.result.outcome,
            duration: it.result.duration,
            failure: it.result.message.as_deref().and_then(Failure::of),
        });
    }

    /// A case that was repeated ended as its last attempt did. Of several with one number, which are of
    /// different suites, each has to pass.
    fn outcome(&self) -> Outcome {
        let mut last = std::collections::HashMap::new();
        for it in &self.runs {
            let known = last.entry(&it.case).or_insert((it.attempt, it.outcome));
            let is_same = it.attempt == known.0;
            if it.attempt > known.0 || is_same && !is_failure(known.1) {
                *known = (it.attempt, it.outcome);
            }
        }
        let has = |wanted: fn(Outcome) -> bool| last.values().any(|(_, it)| wanted(*it));
        match () {
            () if has(is_failure) || (self.left_out > 0 && self.failed > 0) => Outcome::Failed,
            () if has(|it| it == Outcome::Passed) => Outcome::Passed,
            () => Outcome::Skipped,
        }
    }

    fn duration(&self) -> Option<Duration> {
        let known = self.runs.iter().filter_map(|it| it.duration);
        known.reduce(Duration::saturating_add)
    }
}

fn is_failure(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::Failed | Outcome::TimedOut)
}

/// Hashes what is read.
struct Hashing<R> {
    source: R,
    hash: blake3::Hasher,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.source.read(buffer)?;
        self.hash.update(buffer.get(..count).unwrap_or_default());
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPORT: &str = r#"<testsuites><testsuite name="unit"><testcase name="a" classname="C" time="1.5"/>
        <testcase name="b" classname="C" time="0.5"><failure message="boom"/></testcase>
        <testcase name="b" classname="C" time="0.25"/></testsuite></testsuites>"#;

    fn import() -> Import {
        Import { commit: "c0ffee".into(), at: Time(1000), ..Import::default() }
    }

    #[test]
    fn a_case_of_another_suite_is_no_retry() {
        let [fails, passes] = [
            "linux\"><testcase name=\"a\" classname=\"C\"><failure/></testcase>",
            "windows\"><testcase name=\"a\" classname=\"C\"/>",
        ]
        .map(|it| format!("<testsuite name=\"{it}</testsuite>"));
        for both in [format!("{fails}{passes}"), format!("{passes}{fails}")] {
            let report = format!("<testsuites>{both}</testsuites>");
            let it = import().read(report.as_bytes()).unwrap();
            assert_eq!(it.attempt.outcome, Outcome::Failed, "{report}");
        }
    }

    #[test]
    fn a_report_is_an_attempt_at_a_suite_with_its_cases() {
        let it = import().read(REPORT.as_bytes()).unwrap();
        assert_eq!((it.totals.cases, it.failed, it.left_out), (3, 1, 0), "each element is one");
        assert_eq!((it.receipt().cases, it.receipt().attempts), (2, 3));
        let attempt = &it.attempt;
        assert_eq!((attempt.test.label.as_str(), attempt.known), ("unit", Known::IMPORTED));
        assert_eq!(attempt.outcome, Outcome::Passed, "its retry passed");
        assert_eq!(attempt.duration, Some(Duration::from_millis(2250)));
        assert_eq!(attempt.commit.as_deref(), Some("c0ffee"));
        assert_eq!(attempt.cases.len(), 3);
        let failed = REPORT.replace(r#"<testcase name="b" classname="C" time="0.25"/>"#, "");
        assert_eq!(import().read(failed.as_bytes()).unwrap().attempt.outcome, Outcome::Failed);
    }

    #[test]
    fn the_same_report_has_the_same_name_and_another_has_another() {
        let of = |import: &Import, report: &str| {
            import.read(report.as_bytes()).unwrap().receipt().invocation
        };
        let name = of(&import(), REPORT);
        assert_eq!(of(&Import { at: Time(9), ..import() }, REPORT), name);
        for other in [
            Import { commit: "other".into(), ..import() },
            Import { branch: Some("main".into()), ..import() },
            Import { suite: Some("unit".into()), ..import() },
            Import { instance: "a".into(), ..import() },
        ] {
            assert_ne!(of(&other, REPORT), name, "{other:?}");
        }
        assert_ne!(of(&import(), &REPORT.replace("1.5", "1.6")), name);
    }

    #[test]
    fn nothing_began_tomorrow() {
        let now = Time(1_000_000);
        assert_eq!(began(None, now), now);
        assert_eq!(began(Some(Time(5)), now), Time(5));
        assert_eq!(began(Some(Time(1_000_009)), now), Time(1_000_009));
        assert_eq!(began(Some(Time(u64::MAX)), now), Time(1_300_000));
        let today = Time(20_000 * 24 * 3_600_000);
        assert_eq!(began(Some(Time(0)), today), today, "an archive kept no times");
    }

    #[test]
    fn what_is_no_report_is_refused() {
        assert!(import().read("<testsuites><testcase".as_bytes()).is_err());
        let nameless = "<testsuite><testcase name='a'/></testsuite>";
        assert_eq!(import().read(nameless.as_bytes()).unwrap().attempt.test.label, NAMELESS);
    }
}
