//! Reads blocks of segments, and whole segments. Nothing here does I/O: who calls fetches the blocks that the
//! footer names.

use std::collections::BTreeMap;
use std::ops::Range;

use super::columns::In;
use super::footer::{Block, Footer, TAIL, footer_range, get_test};
use super::outlines::{Outline, count_cases, get_outlines};
use super::runs::{Glance, Invocation, get_cases, get_glances, get_runs};
use super::{CASES, DAYS, INVOCATIONS, MAX_BLOCK, RUNS, TESTS, VERSION, WIDE};
use crate::attempts::Attempt;
use crate::history::days::Day;
use crate::model::TestKey;
use crate::storage::{self, Damage};

/// A test in a segment, and which runs and days are its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestEntry {
    pub test: TestKey,
    pub runs: Range<u64>,
    pub days: Range<u64>,
}

/// All attempts of a segment in outline.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outlines {
    /// Tests in order; their runs are indexes of `attempts`.
    pub tests: Vec<TestEntry>,
    pub invocations: Vec<Invocation>,
    pub attempts: Vec<Outline>,
}

/// The tests of a block.
pub fn tests_of(sealed: &[u8], block: &Block) -> Result<Vec<TestEntry>, Damage> {
    let raw = storage::open(TESTS, VERSION, sealed, MAX_BLOCK)?;
    let mut read = In(&raw);
    let (mut runs, mut days) = (read.number()?, read.number()?);
    let mut entries = Vec::new();
    for _ in 0..bounded(block.count, &read)? {
        let test = get_test(&mut read)?;
        let next = (add(runs, read.number()?)?, add(days, read.number()?)?);
        entries.push(TestEntry { test, runs: runs..next.0, days: days..next.1 });
        (runs, days) = next;
    }
    read.end()?;
    Ok(entries)
}

/// The invocations of a block.
pub fn invocations_of(sealed: &[u8], block: &Block) -> Result<Vec<Invocation>, Damage> {
    let raw = storage::open(INVOCATIONS, VERSION, sealed, MAX_BLOCK)?;
    let mut read = In(&raw);
    let count = bounded(block.count, &read)?;
    let all = (0..count).map(|_| Invocation::get(&mut read)).collect::<Result<_, _>>()?;
    read.end()?;
    Ok(all)
}

/// The days of a block, with their numbers.
pub fn days_of(sealed: &[u8], block: &Block) -> Result<Vec<(u64, Day)>, Damage> {
    let raw = storage::open(DAYS, VERSION, sealed, MAX_BLOCK)?;
    let mut read = In(&raw);
    let count = bounded(block.count, &read)?;
    let numbers = read.deltas(count)?;
    let mut columns = Vec::new();
    for _ in 0..9 {
        columns.push(read.column(count)?);
    }
    read.end()?;
    let day = |at: usize| Day {
        passed: columns[0][at],
        failed: columns[1][at],
        timed_out: columns[2][at],
        skipped: columns[3][at],
        infrastructure: columns[4][at],
        first: columns[5][at],
        flaky: columns[6][at],
        took: columns[7][at],
        longest: columns[8][at],
    };
    Ok(numbers.into_iter().enumerate().map(|(at, number)| (number, day(at))).collect())
}

/// The attempts of a block, with their cases where these are given. `tests` are those that have runs in it.
pub fn runs_of(
    sealed: &[u8],
    cases: Option<&[u8]>,
    block: &Block,
    tests: &[TestEntry],
    invocation: impl Fn(u64) -> Option<Invocation>,
) -> Result<Vec<Attempt>, Damage> {
    let test = |number: u64| {
        let at = tests.partition_point(|it| it.runs.end <= number);
        tests.get(at).filter(|it| it.runs.contains(&number)).map(|it| &it.test)
    };
    attempts_of(sealed, cases, block, test, invocation)
}

/// The attempts of a block that are of one test.
pub fn runs_of_one(
    sealed: &[u8],
    cases: Option<&[u8]>,
    block: &Block,
    test: &TestEntry,
    invocation: impl Fn(u64) -> Option<Invocation>,
) -> Result<Vec<Attempt>, Damage> {
    let all = attempts_of(sealed, cases, block, |_| Some(&test.test), invocation)?;
    let own = (block.first..).zip(all).filter(|(number, _)| test.runs.contains(number));
    Ok(own.map(|(_, attempt)| attempt).collect())
}

/// The attempts of a block, seen from afar.
pub fn glances_of(sealed: &[u8], block: &Block) -> Result<Vec<Glance>, Damage> {
    let (version, raw) = open_runs(sealed)?;
    get_glances((version, &raw[..]), bounded(block.count, &In(&raw))?)
}

/// A block of attempts with its version.
fn open_runs(sealed: &[u8]) -> Result<(u32, Vec<u8>), Damage> {
    storage::open_one_of(RUNS, &[VERSION, WIDE], sealed, MAX_BLOCK)
}

fn attempts_of<'a>(
    sealed: &[u8],
    cases: Option<&[u8]>,
    block: &Block,
    test: impl Fn(u64) -> Option<&'a TestKey>,
    invocation: impl Fn(u64) -> Option<Invocation>,
) -> Result<Vec<Attempt>, Damage> {
    let (version, raw) = open_runs(sealed)?;
    bounded(block.count, &In(&raw))?;
    let numbers = block.first..add(block.first, block.count)?;
    let of: Option<Vec<_>> = numbers.map(test).collect();
    let of = of.ok_or(Damage::Form("test"))?;
    let mut attempts = get_runs((version, &raw[..]), &of, invocation)?;
    if let Some(cases) = cases {
        get_cases(&storage::open(CASES, VERSION, cases, MAX_BLOCK)?, &mut attempts)?;
    }
    Ok(attempts)
}

/// All attempts of a whole segment.
pub fn read_all(bytes: &[u8]) -> Result<Vec<Attempt>, Damage> {
    let footer = footer(bytes)?;
    let mut entries = Vec::new();
    for block in &footer.tests {
        entries.extend(tests_of(slice(bytes, &block.block)?, &block.block)?);
    }
    let mut invocations = Vec::new();
    for block in &footer.invocations {
        invocations.extend(invocations_of(slice(bytes, block)?, block)?);
    }
    let invocation = |it: u64| invocations.get(usize::try_from(it).ok()?).cloned();
    let mut attempts = Vec::new();
    for block in &footer.runs {
        let cases = match block.cases.count {
            0 => None,
            _ => Some(slice(bytes, &block.cases)?),
        };
        let runs = slice(bytes, &block.runs)?;
        attempts.extend(runs_of(runs, cases, &block.runs, &entries, invocation)?);
    }
    Ok(attempts)
}

/// All attempts of a whole segment in outline. What tests and attempts say of their places is checked.
pub fn read_outlines(bytes: &[u8]) -> Result<Outlines, Damage> {
    let footer = footer(bytes)?;
    let mut all = Outlines::default();
    for block in &footer.tests {
        all.tests.extend(tests_of(slice(bytes, &block.block)?, &block.block)?);
    }
    for block in &footer.invocations {
        all.invocations.extend(invocations_of(slice(bytes, block)?, block)?);
    }
    for block in &footer.runs {
        let (version, raw) = open_runs(slice(bytes, &block.runs)?)?;
        let count = bounded(block.runs.count, &In(&raw))?;
        let mut attempts = get_outlines((version, &raw[..]), count)?;
        if block.cases.count > 0 {
            let cases = storage::open(CASES, VERSION, slice(bytes, &block.cases)?, MAX_BLOCK)?;
            count_cases(&cases, &mut attempts)?;
        }
        all.attempts.extend(attempts);
    }
    let mut next = 0;
    for it in &all.tests {
        if it.runs.start != next {
            return Err(Damage::Form("test"));
        }
        next = it.runs.end;
    }
    let is_known = |it: &Outline| (it.invocation as usize) < all.invocations.len();
    match next == all.attempts.len() as u64 && all.attempts.iter().all(is_known) {
        true => Ok(all),
        false => Err(Damage::Form("place")),
    }
}

/// All days of a whole segment.
pub fn read_days(bytes: &[u8]) -> Result<BTreeMap<TestKey, BTreeMap<u64, Day>>, Damage> {
    let footer = footer(bytes)?;
    let mut days = Vec::new();
    for block in &footer.days {
        days.extend(days_of(slice(bytes, block)?, block)?);
    }
    let mut all = BTreeMap::new();
    for block in &footer.tests {
        for entry in tests_of(slice(bytes, &block.block)?, &block.block)? {
            let at = |it: u64| usize::try_from(it).map_err(|_| Damage::Form("day"));
            let own = days.get(at(entry.days.start)?..at(entry.days.end)?);
            let own = own.ok_or(Damage::Form("day"))?.iter().copied().collect();
            all.insert(entry.test, own);
        }
    }
    Ok(all)
}

fn footer(bytes: &[u8]) -> Result<Footer, Damage> {
    let length = bytes.len() as u64;
    let tail = length.checked_sub(TAIL).ok_or(Damage::Short)?;
    let range = footer_range(part(bytes, tail..length)?, length)?;
    Footer::open(part(bytes, range)?)
}

fn slice<'a>(bytes: &'a [u8], block: &Block) -> Result<&'a [u8], Damage> {
    part(bytes, block.range())
}

fn part(bytes: &[u8], range: Range<u64>) -> Result<&[u8], Damage> {
    let at = |it: u64| usize::try_from(it).map_err(|_| Damage::Short);
    bytes.get(at(range.start)?..at(range.end)?).ok_or(Damage::Short)
}

/// The number of entries. Errors: so many cannot be there, since each has at least a byte.
fn bounded(count: u64, read: &In<'_>) -> Result<usize, Damage> {
    match usize::try_from(count) {
        Ok(bounded) if bounded <= read.0.len() => Ok(bounded),
        _ => Err(Damage::Length(count)),
    }
}

fn add(one: u64, other: u64) -> Result<u64, Damage> {
    one.checked_add(other).ok_or(Damage::Form("number"))
}
