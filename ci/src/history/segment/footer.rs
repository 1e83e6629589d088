//! The footer of a segment, which says where everything in it is.

use std::ops::Range;

use super::columns::{In, Out};
use super::{FOOTER, VERSION};
use crate::model::TestKey;
use crate::storage::{self, Damage};

const MARK: [u8; 8] = *b"KILNTEST";

/// Bytes at the end of a segment: the length of the footer and the mark.
pub const TAIL: u64 = 12;

/// Most bytes of a footer, when it is decompressed.
pub const MAX_FOOTER: usize = 32 << 20;

/// A block of a segment, and the entries that are in it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Block {
    pub at: u64,
    pub bytes: u64,
    /// The number of the first entry, and how many there are.
    pub first: u64,
    pub count: u64,
}

/// Attempts, and where their cases are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RunsBlock {
    pub runs: Block,
    pub cases: Block,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestsBlock {
    pub block: Block,
    pub first: TestKey,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Footer {
    pub runs: Vec<RunsBlock>,
    pub days: Vec<Block>,
    pub tests: Vec<TestsBlock>,
    pub invocations: Vec<Block>,
}

impl Block {
    pub fn range(&self) -> Range<u64> {
        self.at..self.at.saturating_add(self.bytes)
    }

    fn put(&self, out: &mut Out) {
        [self.at, self.bytes, self.first, self.count].into_iter().for_each(|it| out.number(it));
    }

    fn get(read: &mut In<'_>) -> Result<Self, Damage> {
        Ok(Self {
            at: read.number()?,
            bytes: read.number()?,
            first: read.number()?,
            count: read.number()?,
        })
    }

    /// Whether any of these entries are in it.
    pub fn has(&self, entries: &Range<u64>) -> bool {
        self.first < entries.end && entries.start < self.first.saturating_add(self.count)
    }
}

pub fn put_test(out: &mut Out, test: &TestKey) {
    [&test.instance, &test.label, &test.configuration].into_iter().for_each(|it| out.text(it));
}

pub fn get_test(read: &mut In<'_>) -> Result<TestKey, Damage> {
    Ok(TestKey { instance: read.text()?, label: read.text()?, configuration: read.text()? })
}

impl Footer {
    /// The footer and the tail behind it.
    pub fn seal(&self) -> Result<Vec<u8>, Damage> {
        let mut out = Out::default();
        out.number(self.runs.len() as u64);
        for block in &self.runs {
            block.runs.put(&mut out);
            block.cases.put(&mut out);
        }
        for blocks in [&self.days, &self.invocations] {
            out.number(blocks.len() as u64);
            blocks.iter().for_each(|it| it.put(&mut out));
        }
        out.number(self.tests.len() as u64);
        for block in &self.tests {
            block.block.put(&mut out);
            put_test(&mut out, &block.first);
        }
        let mut sealed = storage::seal(FOOTER, VERSION, &out.0)?;
        let length = u32::try_from(sealed.len()).map_err(|_| Damage::Short)?;
        sealed.extend(length.to_le_bytes());
        sealed.extend(MARK);
        Ok(sealed)
    }

    /// Reads a footer from the bytes that [`footer_range`] names, without the tail.
    pub fn open(sealed: &[u8]) -> Result<Self, Damage> {
        let raw = storage::open(FOOTER, VERSION, sealed, MAX_FOOTER)?;
        let mut read = In(&raw);
        let mut footer = Self::default();
        for _ in 0..read.count()? {
            let (runs, cases) = (Block::get(&mut read)?, Block::get(&mut read)?);
            footer.runs.push(RunsBlock { runs, cases });
        }
        for _ in 0..read.count()? {
            footer.days.push(Block::get(&mut read)?);
        }
        for _ in 0..read.count()? {
            footer.invocations.push(Block::get(&mut read)?);
        }
        for _ in 0..read.count()? {
            let block = Block::get(&mut read)?;
            footer.tests.push(TestsBlock { block, first: get_test(&mut read)? });
        }
        read.end()?;
        Ok(footer)
    }

    /// Blocks in which this test would be, if it is there at all.
    pub fn tests_blocks(&self, test: &TestKey) -> &[TestsBlock] {
        let behind = self.tests.partition_point(|it| it.first <= *test);
        &self.tests[behind.saturating_sub(1)..behind]
    }
}

/// Finds the footer of a segment of so many bytes, by its last bytes.
pub fn footer_range(tail: &[u8], bytes: u64) -> Result<Range<u64>, Damage> {
    let (length, mark) = tail.split_first_chunk::<4>().ok_or(Damage::Short)?;
    if *mark != MARK {
        return Err(Damage::Kind);
    }
    let end = bytes.checked_sub(TAIL).ok_or(Damage::Short)?;
    let start = end.checked_sub(u32::from_le_bytes(*length).into()).ok_or(Damage::Short)?;
    Ok(start..end)
}
