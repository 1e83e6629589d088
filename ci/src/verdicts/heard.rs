//! An attempt as far as it is evidence.

use std::collections::HashMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::attempts::{Attempt, BlobName, CaseRun, Known, SHADOW};
use crate::flakes::{Identity, Purpose, Run, Signature};
use crate::model::{CaseName, Outcome, TestKey, Time};

/// Cases of a report, and failed ones among them, up to which each is looked at. Beyond that the test as a whole is.
const MAX_CASES: usize = 4_096;
const MAX_FAILED: usize = 16;
/// Hexadecimal digits that are kept of the hash of a case's name.
const DIGITS: usize = 16;

/// What shadow runs are for, as their strategies say.
const PURPOSES: [(Purpose, &str); 3] =
    [(Purpose::Decide, "decide"), (Purpose::Control, "control"), (Purpose::Probe, "probe")];

/// What counts of an attempt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Heard {
    pub test: TestKey,
    pub invocation: String,
    /// Tells attempts apart: what was heard before counts no second time.
    pub execution: u64,
    /// The number of the run, counted from 1, as is the shard.
    pub run: u32,
    pub shard: u32,
    pub identity: Identity,
    pub seed: Option<String>,
    pub commit: Option<String>,
    pub at: Time,
    pub took: Option<Duration>,
    pub worker: String,
    /// The action by which it can be run again; `None` where Kiln did not run it.
    pub action: Option<BlobName>,
    pub outcome: Outcome,
    pub signature: Option<Signature>,
    /// Cases that failed, where the report names them.
    pub failed: Vec<(CaseName, Option<Signature>)>,
    /// Hashes of the names of cases that passed in the end, [`DIGITS`] digits each.
    pub(super) passed: String,
    /// Whether another request's execution answered it: its failure is that one's, and evidence of nothing.
    #[serde(default)]
    pub merged: bool,
    /// What a shadow run was for; nothing for what a client asked for.
    pub shadow: Option<Purpose>,
}

impl Heard {
    /// Nothing for what says nothing: passes of others, parts, and what client and executions both tell of.
    pub fn of(it: &Attempt) -> Option<Self> {
        let merged = it.known.has(Known::MERGED);
        // What was put together of parts says what these say.
        if it.is_part() {
            return None;
        }
        if it.outcome == Outcome::Skipped || merged && it.outcome != Outcome::Failed {
            return None;
        }
        let identity = identity(it)?;
        let (failed, passed) = cases(it);
        Some(Self {
            test: it.test.clone(),
            invocation: it.invocation.clone(),
            execution: execution(it, identity),
            run: it.slot.run,
            shard: it.slot.shard,
            identity,
            seed: it.seed.clone(),
            commit: it.commit.clone(),
            at: it.started,
            took: it.duration,
            worker: it.worker.clone(),
            action: it.action.clone(),
            outcome: it.outcome,
            signature: it.failure.as_ref().and_then(|it| it.signature),
            failed,
            passed,
            merged,
            shadow: it.known.has(Known::SHADOW).then(|| purpose(&it.strategy)),
        })
    }

    pub fn has_passed(&self, case: &CaseName) -> bool {
        let wanted = hash(case, &mut Vec::new()).to_hex();
        let wanted = &wanted.as_bytes()[..DIGITS];
        self.passed.as_bytes().chunks(DIGITS).any(|it| it == wanted)
    }

    /// Bytes of memory that it takes, about.
    pub(super) fn bytes(&self) -> usize {
        let TestKey { instance, label, configuration } = &self.test;
        let texts = [instance, label, configuration, &self.invocation, &self.worker, &self.passed];
        let told = [&self.seed, &self.commit].into_iter().flatten();
        let cases = self.failed.iter().map(|(case, _)| {
            size_of::<(CaseName, Option<Signature>)>() + case.class.len() + case.name.len()
        });
        let texts = texts.into_iter().chain(told).map(String::len).chain(cases);
        size_of::<Self>()
            + texts.sum::<usize>()
            + self.action.as_ref().map_or(0, |it| it.hash.len())
    }

    /// Whether a client is to be told of it.
    pub fn is_failure(&self) -> bool {
        matches!(self.outcome, Outcome::Failed | Outcome::TimedOut)
    }
}

/// Makes an attempt one of a shadow run.
pub fn mark(attempt: &mut Attempt, purpose: Purpose, of: u64) {
    let name = PURPOSES.iter().find(|it| it.0 == purpose).map_or("decide", |it| it.1);
    attempt.known |= Known::SHADOW;
    attempt.strategy = format!("{SHADOW}{name}");
    attempt.invocation = format!("{SHADOW}{name}-{of:x}");
}

fn purpose(strategy: &str) -> Purpose {
    let name = strategy.strip_prefix(SHADOW).unwrap_or_default();
    PURPOSES.iter().find(|it| it.1 == name).map_or(Purpose::Decide, |it| it.0)
}

/// What Kiln did not run is equal to itself alone: to its repetitions in one report, and to retries of a client.
fn identity(it: &Attempt) -> Option<Identity> {
    let ran = it.known.has(Known::EXECUTED) || it.known.has(Known::MERGED);
    if let Some(identity) = it.identity.filter(|_| ran) {
        return Some(identity);
    }
    let imported = it.known.has(Known::IMPORTED);
    // What ran at a remote executor is known from its execution, with more.
    let elsewhere = !it.strategy.is_empty() && !it.strategy.contains("remote");
    if !imported && !elsewhere {
        return None;
    }
    let (run, shard) = (it.slot.run.to_string(), it.slot.shard.to_string());
    let test = &it.test;
    let parts = [&test.instance, &test.label, &test.configuration, &it.invocation, &run, &shard];
    let argv = parts.map(String::clone);
    Some(Identity::of(&Run {
        argv: &argv,
        environment: &[],
        working_directory: "",
        input_root: "not known",
        platform: &[],
    }))
}

fn execution(it: &Attempt, identity: Identity) -> u64 {
    if it.execution != 0 {
        return it.execution;
    }
    let mut hash = blake3::Hasher::new_derive_key("kiln 2026 number of an attempt that was told");
    hash.update(&identity.bytes());
    hash.update(&it.slot.attempt.to_le_bytes());
    let mut short = [0; 8];
    hash.finalize_xof().fill(&mut short);
    u64::from_le_bytes(short).max(1)
}

/// Cases that failed, and those that passed in the end.
fn cases(it: &Attempt) -> (Vec<(CaseName, Option<Signature>)>, String) {
    if it.cases.len() > MAX_CASES {
        return Default::default();
    }
    // Of most reports no case failed and none was repeated: whatever passed there did so in the end.
    let is_plain = it.cases.iter().all(|it| number(it) == 1 && !has_failed(it));
    let ends = if is_plain { HashMap::new() } else { ends(&it.cases) };
    let ended_so =
        |case: &CaseRun| is_plain || ends.get(&case.case) == Some(&(number(case), false));
    let mut failed: Vec<(CaseName, Option<Signature>)> = Vec::new();
    let mut passed = String::with_capacity(it.cases.len() * DIGITS);
    let mut text = Vec::new();
    for case in &it.cases {
        if has_failed(case) && !failed.iter().any(|it| it.0 == case.case) {
            let signature = case.failure.as_ref().and_then(|it| it.signature);
            failed.push((case.case.clone(), signature));
        } else if case.outcome == Outcome::Passed && ended_so(case) {
            passed.push_str(&hash(&case.case, &mut text).to_hex()[..DIGITS]);
        }
        if failed.len() > MAX_FAILED {
            return Default::default();
        }
    }
    (failed, passed)
}

/// The number of the last attempt at each case, and whether one of this number failed: where another suite has a case of
/// this name that failed, that one was not repeated by a pass here.
fn ends(all: &[CaseRun]) -> HashMap<&CaseName, (u32, bool)> {
    let mut ends: HashMap<&CaseName, (u32, bool)> = HashMap::with_capacity(all.len());
    for case in all {
        let own = (number(case), has_failed(case));
        // A failure comes behind a pass of the same number.
        ends.entry(&case.case).and_modify(|it| *it = own.max(*it)).or_insert(own);
    }
    ends
}

fn number(case: &CaseRun) -> u32 {
    case.attempt.max(1)
}

fn has_failed(case: &CaseRun) -> bool {
    matches!(case.outcome, Outcome::Failed | Outcome::TimedOut)
}

/// The hash of a case's name, of which [`DIGITS`] are kept. `text` is room for what is hashed, whatever is in it.
fn hash(case: &CaseName, text: &mut Vec<u8>) -> blake3::Hash {
    text.clear();
    text.extend((case.class.len() as u64).to_le_bytes());
    text.extend(case.class.as_bytes());
    text.extend(case.name.as_bytes());
    blake3::hash(text)
}

#[cfg(test)]
mod tests {
    use super::super::samples::{attempt, case};
    use super::*;
    use crate::model::Outcome::{Failed, Passed};

    #[test]
    fn a_case_has_passed_that_passed_in_the_last_of_its_attempts() {
        let run = |(name, attempt, outcome): (&str, u32, Outcome)| CaseRun {
            case: case(name),
            attempt,
            outcome,
            duration: None,
            failure: None,
        };
        let cases = [
            ("repeated", 1, Failed),
            ("repeated", 2, Passed),
            ("broken later", 1, Passed),
            ("broken later", 2, Failed),
            ("also elsewhere", 1, Passed),
            ("also elsewhere", 1, Failed),
            ("once", 0, Passed),
        ];
        let cases = cases.map(run).to_vec();
        let heard = Heard::of(&Attempt { cases, ..attempt("//a:t", 1, Failed) }).unwrap();
        let names = ["repeated", "broken later", "also elsewhere", "once"];
        let passed: Vec<_> =
            names.into_iter().filter(|name| heard.has_passed(&case(name))).collect();
        assert_eq!(passed, ["repeated", "once"]);
    }

    #[test]
    fn a_report_without_failures_names_what_passed_by_hashes_that_do_not_change() {
        let run = |(name, outcome): (&str, Outcome)| CaseRun {
            case: case(name),
            attempt: 1,
            outcome,
            duration: None,
            failure: None,
        };
        let cases = [("a", Passed), ("left out", Outcome::Skipped), ("b", Passed)];
        let cases = cases.map(run).to_vec();
        let heard = Heard::of(&Attempt { cases, ..attempt("//a:t", 1, Passed) }).unwrap();
        let digits = |name: &str| {
            let CaseName { class, name } = case(name);
            let mut hash = blake3::Hasher::new();
            hash.update(&(class.len() as u64).to_le_bytes());
            hash.update(class.as_bytes()).update(name.as_bytes());
            hash.finalize().to_hex()[..16].to_owned()
        };
        assert_eq!(heard.passed, digits("a") + &digits("b"));
        assert!(heard.has_passed(&case("b")) && !heard.has_passed(&case("left out")));
    }
}
