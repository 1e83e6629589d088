//! Attempts as an immutable file, in which those of one test are found without reading the others.
//!
//! | part | what is in it |
//! | --- | --- |
//! | runs | blocks of attempts, sorted by test and then by start |
//! | cases | for each of these blocks the cases of its attempts |
//! | days | blocks of what each test comes to by day |
//! | tests | blocks of tests, in order, each with its places in runs and days |
//! | invocations | blocks of invocations, with commit and branch |
//! | footer | where all blocks are, and the first test of each block of tests |
//! | tail | length of the footer, and a mark |
//!
//! Each block and the footer are compressed by themselves, with a kind, a version and a checksum. A segment
//! that is old has no runs, cases and invocations any more. Blocks of runs among which are parts of tests that the
//! server ran over several workers have a version of their own.

mod columns;
mod footer;
mod names;
mod outlines;
mod read;
mod runs;
mod write;

pub use footer::{Block, Footer, MAX_FOOTER, RunsBlock, TAIL, TestsBlock, footer_range};
pub use outlines::Outline;
pub use read::{
    Outlines, TestEntry, days_of, glances_of, invocations_of, read_all, read_days, read_outlines,
    runs_of, runs_of_one, tests_of,
};
pub use runs::{Glance, Invocation};
pub use write::{Written, write, write_days, write_fresh};

/// Most bytes of a block, when it is decompressed.
pub const MAX_BLOCK: usize = 64 << 20;

const VERSION: u32 = 1;
/// The version of a block of runs that has room for more sources than five.
const WIDE: u32 = 2;
const RUNS: [u8; 4] = *b"KRUN";
const CASES: [u8; 4] = *b"KCAS";
const DAYS: [u8; 4] = *b"KDAY";
const TESTS: [u8; 4] = *b"KTST";
const INVOCATIONS: [u8; 4] = *b"KINV";
const FOOTER: [u8; 4] = *b"KFTR";

#[cfg(test)]
mod tests;
