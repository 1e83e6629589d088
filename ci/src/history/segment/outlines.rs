//! Attempts without what is shown of single ones alone: what pages of all tests need of a segment.

use std::time::Duration;

use super::columns::In;
use super::names;
use super::runs::{duration, get_marks, skip_failure};
use crate::attempts::{Known, Slot};
use crate::flakes::Identity;
use crate::model::{Outcome, Time};
use crate::storage::Damage;

/// An attempt without texts, about 100 bytes of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outline {
    /// The number of its invocation among those of the segment.
    pub invocation: u32,
    pub slot: Slot,
    pub known: Known,
    pub execution: u64,
    pub outcome: Outcome,
    pub started: Time,
    pub took: Option<Duration>,
    pub identity: Option<Identity>,
    /// A hash of the log's name, which tells whether two attempts have the same log.
    pub log: Option<[u8; 16]>,
    pub has_failure: bool,
    /// How many cases the attempt has.
    pub cases: u32,
}

/// The attempts of a block, whose cases are in a block of their own.
pub fn get_outlines((version, bytes): (u32, &[u8]), count: usize) -> Result<Vec<Outline>, Damage> {
    let mut read = In(bytes);
    (0..read.count()?).try_for_each(|_| read.skip_text())?;
    let blobs = (0..read.count()?).map(|_| blob(&mut read)).collect::<Result<Vec<_>, _>>()?;
    let identities = read.count()?;
    let identity = |_| read.array().map(Identity::from_bytes);
    let identities = (0..identities).map(identity).collect::<Result<Vec<_>, _>>()?;
    let failures = read.count()?;
    (0..failures).try_for_each(|_| skip_failure(&mut read))?;
    let invocations = read.column(count)?;
    let started = read.deltas(count)?;
    let marks = get_marks(&mut read, version, count)?;
    let [run, shard, attempt] = [read.column(count)?, read.column(count)?, read.column(count)?];
    read.skip_column(count)?;
    let took = read.column(count)?;
    // Set-up, worker, strategy, seed and action.
    (0..5).try_for_each(|_| read.skip_column(count))?;
    let [logs, runs_of, failed] = [read.column(count)?, read.column(count)?, read.column(count)?];
    let small = |it: u64| u32::try_from(it).map_err(|_| Damage::Form("slot"));
    let mut outlines = Vec::with_capacity(count);
    for at in 0..count {
        let (outcome, known) = marks[at];
        outlines.push(Outline {
            invocation: small(invocations[at])?,
            slot: Slot {
                run: small(run[at])?,
                shard: small(shard[at])?,
                attempt: small(attempt[at])?,
            },
            known,
            execution: execution(&mut read)?,
            outcome,
            started: Time(started[at]),
            took: duration(took[at]),
            identity: listed(&identities, runs_of[at])?.copied(),
            log: listed(&blobs, logs[at])?.map(|it| hash(it)),
            has_failure: failed[at] > 0,
            cases: 0,
        });
    }
    read.end()?;
    Ok(outlines)
}

/// Counts the cases of the same attempts, by the block that has them.
pub fn count_cases(bytes: &[u8], outlines: &mut [Outline]) -> Result<(), Damage> {
    let mut read = In(bytes);
    (0..read.count()?).try_for_each(|_| read.skip_text())?;
    let names = read.count()?;
    read.skip_column(names)?;
    (0..names).try_for_each(|_| read.skip_text())?;
    (0..read.count()?).try_for_each(|_| skip_failure(&mut read))?;
    for it in outlines {
        it.cases = read.small()?;
    }
    Ok(())
}

/// The bytes of a blob's name and size.
fn blob<'a>(read: &mut In<'a>) -> Result<&'a [u8], Damage> {
    let before = read.0;
    names::skip_blob(read)?;
    before.get(..before.len().saturating_sub(read.0.len())).ok_or(Damage::Short)
}

fn hash(name: &[u8]) -> [u8; 16] {
    let mut short = [0; 16];
    short.copy_from_slice(&blake3::hash(name).as_bytes()[..16]);
    short
}

fn execution(read: &mut In<'_>) -> Result<u64, Damage> {
    match read.array::<1>()? {
        [0] => Ok(0),
        _ => read.array().map(u64::from_le_bytes),
    }
}

/// What has this number in a list; 0 stands for nothing.
fn listed<T>(list: &[T], number: u64) -> Result<Option<&T>, Damage> {
    let Some(at) = number.checked_sub(1) else { return Ok(None) };
    let at = usize::try_from(at).map_err(|_| Damage::Form("word"))?;
    list.get(at).map(Some).ok_or(Damage::Form("word"))
}
