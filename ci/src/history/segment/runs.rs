//! A block of attempts, without what the index says of them: their tests.

use std::time::Duration;

use super::columns::{In, Out, Words, word};
use super::{VERSION, WIDE, names};
use crate::attempts::{Attempt, BlobName, CaseRun, Failure, Known, Slot};
use crate::flakes::{Identity, Signature};
use crate::model::{CaseName, Outcome, TestKey, Time};
use crate::storage::Damage;

/// An invocation, as a segment knows it once for all its attempts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Invocation {
    pub instance: String,
    pub id: String,
    pub commit: Option<String>,
    pub branch: Option<String>,
    /// When the first of its attempts in this segment began.
    pub from: Time,
}

impl Invocation {
    pub fn of(it: &Attempt) -> Self {
        Self {
            instance: it.test.instance.clone(),
            id: it.invocation.clone(),
            commit: it.commit.clone(),
            branch: it.branch.clone(),
            from: it.started,
        }
    }

    pub fn put(&self, out: &mut Out) {
        names::put(out, Some(&self.id));
        names::put(out, self.commit.as_deref());
        names::put(out, self.branch.as_deref());
        out.text(&self.instance);
        out.number(self.from.0);
    }

    pub fn get(read: &mut In<'_>) -> Result<Self, Damage> {
        let id = names::get(read)?.ok_or(Damage::Form("invocation"))?;
        let (commit, branch) = (names::get(read)?, names::get(read)?);
        Ok(Self { instance: read.text()?, id, commit, branch, from: Time(read.number()?) })
    }
}

/// An attempt with the number of its invocation; the block has the rest.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    pub attempt: &'a Attempt,
    pub invocation: u64,
}

/// The version in which these are written: without parts the one that older servers read as well.
pub fn version_of(rows: &[Row<'_>]) -> u32 {
    if rows.iter().any(|it| it.attempt.is_part()) { WIDE } else { VERSION }
}

pub fn put_runs(rows: &[Row<'_>]) -> Vec<u8> {
    let mut out = Out::default();
    let all = || rows.iter().map(|it| it.attempt);
    let mut texts = Words::default();
    let mut blobs: Words<BlobName> = Words::default();
    let mut identities: Words<Identity> = Words::default();
    let mut failures: Words<Failure> = Words::default();
    let mut text = |it: &str| texts.number(Some(&it.to_owned()).filter(|it| !it.is_empty()));
    let workers: Vec<_> = all().map(|it| text(&it.worker)).collect();
    let strategies: Vec<_> = all().map(|it| text(&it.strategy)).collect();
    let seeds: Vec<_> = all().map(|it| text(it.seed.as_deref().unwrap_or_default())).collect();
    let actions: Vec<_> = all().map(|it| blobs.number(it.action.as_ref())).collect();
    let logs: Vec<_> = all().map(|it| blobs.number(it.log.as_ref())).collect();
    let runs_of: Vec<_> = all().map(|it| identities.number(it.identity.as_ref())).collect();
    let failed: Vec<_> = all().map(|it| failures.number(it.failure.as_ref())).collect();

    put_texts(&mut out, &texts.list);
    out.number(blobs.list.len() as u64);
    blobs.list.iter().for_each(|it| names::put_blob(&mut out, it));
    out.number(identities.list.len() as u64);
    identities.list.iter().for_each(|it| out.0.extend(it.bytes()));
    put_failures(&mut out, &failures.list);

    out.column(rows.iter().map(|it| it.invocation));
    out.deltas(all().map(|it| it.started.0));
    if version_of(rows) == VERSION {
        out.0.extend(all().map(|it| outcome_bits(it.outcome) | it.known.bits() << 3));
    } else {
        out.0.extend(all().map(|it| outcome_bits(it.outcome)));
        out.0.extend(all().map(|it| it.known.bits()));
    }
    out.column(all().map(|it| u64::from(it.slot.run)));
    out.column(all().map(|it| u64::from(it.slot.shard)));
    out.column(all().map(|it| u64::from(it.slot.attempt)));
    out.column(all().map(|it| u64::from(it.shards)));
    out.column(all().map(|it| millis(it.duration)));
    out.column(all().map(|it| millis(it.set_up)));
    for column in [workers, strategies, seeds, actions, logs, runs_of, failed] {
        out.column(column);
    }
    for it in all() {
        out.0.push(u8::from(it.execution > 0));
        if it.execution > 0 {
            out.0.extend(it.execution.to_le_bytes());
        }
    }
    out.0
}

/// How each attempt of a block ended, and who knows of it.
pub fn get_marks(
    read: &mut In<'_>,
    version: u32,
    count: usize,
) -> Result<Vec<(Outcome, Known)>, Damage> {
    let outcomes = read.bytes(count)?;
    let known: Vec<u8> = match version {
        VERSION => outcomes.iter().map(|it| it >> 3).collect(),
        _ => read.bytes(count)?.to_vec(),
    };
    let mark = |(outcome, known): (&u8, u8)| {
        let known = Known::from_bits(known).ok_or(Damage::Form("source"))?;
        Ok((outcome_of(outcome & 7)?, known))
    };
    outcomes.iter().zip(known).map(mark).collect()
}

/// The attempts of a block. `tests` and `invocations` say what they are of; cases are not among them.
pub fn get_runs(
    (version, bytes): (u32, &[u8]),
    tests: &[&TestKey],
    invocation: impl Fn(u64) -> Option<Invocation>,
) -> Result<Vec<Attempt>, Damage> {
    let count = tests.len();
    let mut read = In(bytes);
    let texts = get_texts(&mut read)?;
    let blobs = read.count()?;
    let blobs = (0..blobs).map(|_| names::get_blob(&mut read)).collect::<Result<Vec<_>, _>>()?;
    let identities = read.count()?;
    let identity = |_| read.array().map(Identity::from_bytes);
    let identities = (0..identities).map(identity).collect::<Result<Vec<_>, _>>()?;
    let failures = get_failures(&mut read)?;

    let invocations = read.column(count)?;
    let started = read.deltas(count)?;
    let marks = get_marks(&mut read, version, count)?;
    let mut columns = Vec::new();
    for _ in 0..13 {
        columns.push(read.column(count)?);
    }
    let mut attempts = Vec::with_capacity(count);
    for at in 0..count {
        let cell = |column: usize| columns[column][at];
        let small = |column: usize| u32::try_from(cell(column)).map_err(|_| Damage::Form("slot"));
        let text = |column| word(&texts, cell(column));
        let of = invocation(invocations[at]).ok_or(Damage::Form("invocation"))?;
        let (outcome, known) = marks[at];
        let slot = Slot { run: small(0)?, shard: small(1)?, attempt: small(2)? };
        attempts.push(Attempt {
            test: tests[at].clone(),
            invocation: of.id,
            slot,
            shards: small(3)?,
            known,
            execution: 0,
            outcome,
            started: Time(started[at]),
            duration: duration(cell(4)),
            set_up: duration(cell(5)),
            worker: text(6)?.unwrap_or_default(),
            strategy: text(7)?.unwrap_or_default(),
            action: word(&blobs, cell(9))?,
            identity: word(&identities, cell(11))?,
            seed: text(8)?,
            log: word(&blobs, cell(10))?,
            failure: word(&failures, cell(12))?,
            commit: of.commit,
            branch: of.branch,
            cases: Vec::new(),
        });
    }
    for it in &mut attempts {
        if read.array::<1>()? != [0] {
            it.execution = u64::from_le_bytes(read.array()?);
        }
    }
    read.end()?;
    Ok(attempts)
}

/// What can be seen of an attempt from afar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Glance {
    /// The number of its invocation among those of the segment.
    pub invocation: u64,
    pub outcome: Outcome,
    pub known: Known,
    pub run: u32,
    pub shard: u32,
    pub took: Option<Duration>,
}

/// The attempts of a block, without what takes long to read.
pub fn get_glances((version, bytes): (u32, &[u8]), count: usize) -> Result<Vec<Glance>, Damage> {
    let mut read = In(bytes);
    (0..read.count()?).try_for_each(|_| read.skip_text())?;
    (0..read.count()?).try_for_each(|_| names::skip_blob(&mut read))?;
    let identities = read.count()?;
    read.bytes(identities.saturating_mul(16))?;
    (0..read.count()?).try_for_each(|_| skip_failure(&mut read))?;
    let invocations = read.column(count)?;
    read.skip_column(count)?;
    let marks = get_marks(&mut read, version, count)?;
    let (runs, shards) = (read.column(count)?, read.column(count)?);
    read.skip_column(count)?;
    read.skip_column(count)?;
    let took = read.column(count)?;
    let small = |it: u64| u32::try_from(it).map_err(|_| Damage::Form("slot"));
    let glance = |at: usize| {
        let (outcome, known) = marks[at];
        Ok(Glance {
            invocation: invocations[at],
            outcome,
            known,
            run: small(runs[at])?,
            shard: small(shards[at])?,
            took: duration(took[at]),
        })
    };
    (0..count).map(glance).collect()
}

pub fn skip_failure(read: &mut In<'_>) -> Result<(), Damage> {
    if read.array()? != [0] {
        read.array::<8>()?;
    }
    read.skip_text()
}

/// The cases of the same attempts.
pub fn put_cases(rows: &[Row<'_>]) -> Vec<u8> {
    let mut out = Out::default();
    let all = || rows.iter().flat_map(|it| &it.attempt.cases);
    let mut names: Words<CaseName> = Words::default();
    let mut failures: Words<Failure> = Words::default();
    let named: Vec<_> = all().map(|it| names.number(Some(&it.case))).collect();
    let failed: Vec<_> = all().map(|it| failures.number(it.failure.as_ref())).collect();
    let mut classes = Words::default();
    let of: Vec<_> = names.list.iter().map(|it| classes.number(Some(&it.class))).collect();
    put_texts(&mut out, &classes.list);
    out.number(names.list.len() as u64);
    out.column(of);
    names.list.iter().for_each(|it| out.text(&it.name));
    put_failures(&mut out, &failures.list);
    out.column(rows.iter().map(|it| it.attempt.cases.len() as u64));
    // Cases come in the same order each time, so that one is mostly behind the one before.
    out.deltas(named);
    out.0.extend(all().map(|it| outcome_bits(it.outcome)));
    out.column(all().map(|it| u64::from(it.attempt)));
    out.column(all().map(|it| millis(it.duration)));
    out.column(failed);
    out.0
}

pub fn get_cases(bytes: &[u8], attempts: &mut [Attempt]) -> Result<(), Damage> {
    let mut read = In(bytes);
    let classes = get_texts(&mut read)?;
    let count = read.count()?;
    let of = read.column(count)?;
    let name = |class: u64| -> Result<CaseName, Damage> {
        let class = word(&classes, class)?.ok_or(Damage::Form("class"))?;
        Ok(CaseName { class, name: read.text()? })
    };
    let names = of.into_iter().map(name).collect::<Result<Vec<_>, Damage>>()?;
    let failures = get_failures(&mut read)?;
    let counts = read.column(attempts.len())?;
    let total = counts.iter().fold(0_u64, |sum, it| sum.saturating_add(*it));
    let total = usize::try_from(total).map_err(|_| Damage::Length(total))?;
    let named = read.deltas(total)?;
    let outcomes = read.bytes(total)?.to_vec();
    let mut numbers = Vec::new();
    for _ in 0..3 {
        numbers.push(read.column(total)?);
    }
    read.end()?;
    let mut at = 0;
    for (attempt, count) in attempts.iter_mut().zip(counts) {
        for _ in 0..count {
            attempt.cases.push(CaseRun {
                case: word(&names, named[at])?.ok_or(Damage::Form("case"))?,
                attempt: u32::try_from(numbers[0][at]).map_err(|_| Damage::Form("case"))?,
                outcome: outcome_of(outcomes[at])?,
                duration: duration(numbers[1][at]),
                failure: word(&failures, numbers[2][at])?,
            });
            at += 1;
        }
    }
    Ok(())
}

fn put_texts(out: &mut Out, texts: &[String]) {
    out.number(texts.len() as u64);
    texts.iter().for_each(|it| out.text(it));
}

fn get_texts(read: &mut In<'_>) -> Result<Vec<String>, Damage> {
    let count = read.count()?;
    (0..count).map(|_| read.text()).collect()
}

fn put_failures(out: &mut Out, failures: &[Failure]) {
    out.number(failures.len() as u64);
    for failure in failures {
        out.0.push(u8::from(failure.signature.is_some()));
        if let Some(signature) = failure.signature {
            out.0.extend(signature.bits().to_le_bytes());
        }
        out.text(&failure.excerpt);
    }
}

fn get_failures(read: &mut In<'_>) -> Result<Vec<Failure>, Damage> {
    let count = read.count()?;
    let failure = |_| -> Result<Failure, Damage> {
        let signature = match read.array()? {
            [0] => None,
            [_] => Some(Signature::from_bits(u64::from_le_bytes(read.array()?))),
        };
        Ok(Failure { signature, excerpt: read.text()? })
    };
    (0..count).map(failure).collect()
}

/// 0 where there is none.
fn millis(duration: Option<Duration>) -> u64 {
    duration.map_or(0, |it| u64::try_from(it.as_millis()).unwrap_or(u64::MAX).saturating_add(1))
}

pub fn duration(millis: u64) -> Option<Duration> {
    millis.checked_sub(1).map(Duration::from_millis)
}

fn outcome_bits(outcome: Outcome) -> u8 {
    match outcome {
        Outcome::Passed => 0,
        Outcome::Failed => 1,
        Outcome::TimedOut => 2,
        Outcome::Skipped => 3,
        Outcome::Infrastructure => 4,
    }
}

pub fn outcome_of(bits: u8) -> Result<Outcome, Damage> {
    [Outcome::Passed, Outcome::Failed, Outcome::TimedOut, Outcome::Skipped, Outcome::Infrastructure]
        .get(usize::from(bits))
        .copied()
        .ok_or(Damage::Form("outcome"))
}
