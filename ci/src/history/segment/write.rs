//! Makes segments of attempts.

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;

use super::columns::Out;
use super::footer::{Block, Footer, RunsBlock, TestsBlock, put_test};
use super::runs::{Invocation, Row, put_cases, put_runs, version_of};
use super::{CASES, DAYS, INVOCATIONS, RUNS, TESTS, VERSION};
use crate::attempts::Attempt;
use crate::history::days::{self, Day};
use crate::model::{TestKey, Time};
use crate::storage::{self, Damage};

/// Attempts of a block, and cases of one with more than one attempt: what is read to see one of them.
const BLOCK_RUNS: usize = 2048;
const BLOCK_CASES: usize = 32_768;
/// Entries of other blocks.
const BLOCK_DAYS: usize = 8192;
const BLOCK_TESTS: usize = 1024;
const BLOCK_INVOCATIONS: usize = 4096;

/// A segment as bytes, and what the catalogue has to know of it.
#[derive(Clone, Debug, Default)]
pub struct Written {
    pub bytes: Bytes,
    pub runs: u64,
    pub cases: u64,
    pub days: u64,
    pub tests: u64,
    /// When the first and the last attempt began.
    pub from: Time,
    pub to: Time,
}

/// What a test has in a segment.
#[derive(Clone, Debug, Default)]
struct TestPart {
    runs: u64,
    days: BTreeMap<u64, Day>,
}

/// Compresses a block, as [`storage::seal`] does.
type Seal = fn([u8; 4], u32, &[u8]) -> Result<Vec<u8>, Damage>;

/// A segment of attempts, which are joined.
pub fn write<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Result<Written, Damage> {
    write_sealed(attempts.into_iter().collect(), storage::seal)
}

/// A segment of attempts that is joined with others soon: larger, and made in a fraction of the time.
pub fn write_fresh<'a>(attempts: impl IntoIterator<Item = &'a Attempt>) -> Result<Written, Damage> {
    write_sealed(attempts.into_iter().collect(), storage::seal_quickly)
}

fn write_sealed(mut attempts: Vec<&Attempt>, seal: Seal) -> Result<Written, Damage> {
    attempts.sort_by(|&a, &b| {
        let key = |it: &Attempt| (it.started, it.execution, it.slot);
        let of = || a.invocation.cmp(&b.invocation);
        a.test.cmp(&b.test).then_with(|| key(a).cmp(&key(b))).then_with(of)
    });
    let mut parts: BTreeMap<TestKey, TestPart> = BTreeMap::new();
    for group in attempts.chunk_by(|a, b| a.test == b.test) {
        let days = days::days(group.iter().copied());
        parts.insert(group[0].test.clone(), TestPart { runs: group.len() as u64, days });
    }
    let mut file = File::new(seal);
    file.attempts(&attempts)?;
    file.tests(&parts)?;
    let started = attempts.iter().map(|it| it.started);
    file.finish(Written {
        runs: attempts.len() as u64,
        cases: attempts.iter().map(|it| it.cases.len() as u64).sum(),
        days: parts.values().map(|it| it.days.len() as u64).sum(),
        tests: parts.len() as u64,
        from: started.clone().min().unwrap_or_default(),
        to: started.max().unwrap_or_default(),
        ..Written::default()
    })
}

/// A segment of days alone, of attempts that are too old to be kept.
pub fn write_days(
    days: BTreeMap<TestKey, BTreeMap<u64, Day>>,
    from: Time,
    to: Time,
) -> Result<Written, Damage> {
    let parts: BTreeMap<_, _> =
        days.into_iter().map(|(test, days)| (test, TestPart { runs: 0, days })).collect();
    let mut file = File::new(storage::seal);
    file.tests(&parts)?;
    let days = parts.values().map(|it| it.days.len() as u64).sum();
    file.finish(Written { days, tests: parts.len() as u64, from, to, ..Written::default() })
}

struct File {
    seal: Seal,
    bytes: Vec<u8>,
    footer: Footer,
}

impl File {
    fn new(seal: Seal) -> Self {
        Self { seal, bytes: Vec::new(), footer: Footer::default() }
    }

    fn block(
        &mut self,
        kind: [u8; 4],
        raw: &[u8],
        first: usize,
        count: usize,
    ) -> Result<Block, Damage> {
        self.block_of((kind, VERSION), raw, first, count)
    }

    fn block_of(
        &mut self,
        (kind, version): ([u8; 4], u32),
        raw: &[u8],
        first: usize,
        count: usize,
    ) -> Result<Block, Damage> {
        let sealed = (self.seal)(kind, version, raw)?;
        let (at, bytes) = (self.bytes.len() as u64, sealed.len() as u64);
        self.bytes.extend(sealed);
        Ok(Block { at, bytes, first: first as u64, count: count as u64 })
    }

    fn attempts(&mut self, attempts: &[&Attempt]) -> Result<(), Damage> {
        let mut invocations: Vec<Invocation> = Vec::new();
        let mut known: HashMap<_, usize> = HashMap::new();
        let mut rows = Vec::with_capacity(attempts.len());
        for &attempt in attempts {
            let of = (
                attempt.test.instance.as_str(),
                attempt.invocation.as_str(),
                attempt.commit.as_deref(),
                attempt.branch.as_deref(),
            );
            let invocation = *known.entry(of).or_insert_with(|| {
                invocations.push(Invocation::of(attempt));
                invocations.len() - 1
            });
            let from = &mut invocations[invocation].from;
            // 0 says that nobody knows.
            if *from == Time(0) || Time(0) < attempt.started && attempt.started < *from {
                *from = attempt.started;
            }
            rows.push(Row { attempt, invocation: invocation as u64 });
        }
        let mut first = 0;
        while first < rows.len() {
            let count = block_length(&rows[first..]);
            let block = &rows[first..first + count];
            let kind = (RUNS, version_of(block));
            let runs = self.block_of(kind, &put_runs(block), first, count)?;
            let cases: usize = block.iter().map(|it| it.attempt.cases.len()).sum();
            let cases = match cases {
                0 => Block::default(),
                cases => self.block(CASES, &put_cases(block), first, cases)?,
            };
            self.footer.runs.push(RunsBlock { runs, cases });
            first += count;
        }
        for (number, chunk) in invocations.chunks(BLOCK_INVOCATIONS).enumerate() {
            let mut out = Out::default();
            chunk.iter().for_each(|it| it.put(&mut out));
            let first = number * BLOCK_INVOCATIONS;
            let block = self.block(INVOCATIONS, &out.0, first, chunk.len())?;
            self.footer.invocations.push(block);
        }
        Ok(())
    }

    fn tests(&mut self, parts: &BTreeMap<TestKey, TestPart>) -> Result<(), Damage> {
        let days: Vec<_> = parts.values().flat_map(|it| &it.days).collect();
        for (number, chunk) in days.chunks(BLOCK_DAYS).enumerate() {
            let block = self.block(DAYS, &put_days(chunk), number * BLOCK_DAYS, chunk.len())?;
            self.footer.days.push(block);
        }
        let (mut runs, mut days) = (0, 0);
        let all: Vec<_> = parts.iter().collect();
        for (number, chunk) in all.chunks(BLOCK_TESTS).enumerate() {
            let mut out = Out::default();
            out.number(runs);
            out.number(days);
            for (test, part) in chunk {
                put_test(&mut out, test);
                out.number(part.runs);
                out.number(part.days.len() as u64);
                runs += part.runs;
                days += part.days.len() as u64;
            }
            let first = chunk[0].0.clone();
            let block = self.block(TESTS, &out.0, number * BLOCK_TESTS, chunk.len())?;
            self.footer.tests.push(TestsBlock { block, first });
        }
        Ok(())
    }

    fn finish(mut self, written: Written) -> Result<Written, Damage> {
        self.bytes.extend(self.footer.seal()?);
        Ok(Written { bytes: self.bytes.into(), ..written })
    }
}

fn block_length(rows: &[Row<'_>]) -> usize {
    let mut cases = 0;
    let fits = |row: &&Row<'_>| {
        cases += row.attempt.cases.len();
        cases <= BLOCK_CASES
    };
    rows.iter().take(BLOCK_RUNS).take_while(fits).count().max(1)
}

fn put_days(days: &[(&u64, &Day)]) -> Vec<u8> {
    let mut out = Out::default();
    out.deltas(days.iter().map(|(number, _)| **number));
    let columns: [fn(&Day) -> u64; 9] = [
        |it| it.passed,
        |it| it.failed,
        |it| it.timed_out,
        |it| it.skipped,
        |it| it.infrastructure,
        |it| it.first,
        |it| it.flaky,
        |it| it.took,
        |it| it.longest,
    ];
    for column in columns {
        out.column(days.iter().map(|(_, day)| column(day)));
    }
    out.0
}
