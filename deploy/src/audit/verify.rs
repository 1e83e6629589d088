//! Verification of an export, line by line. Nothing but its lines and the keys is asked.

use kiln_cas::stores::audit::{AuditBreak, AuditEntry, Chain};

use super::checkpoint::{Checkpoint, CheckpointError};
use super::line::{Line, LineError};
use crate::encoding::hex;
use crate::signing::KeyRing;
use crate::timestamp::Timestamp;

/// The first thing that does not hold.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    #[error(transparent)]
    Line(#[from] LineError),
    #[error(transparent)]
    Chain(#[from] AuditBreak),
    #[error("a checkpoint is not accepted")]
    Checkpoint(#[from] CheckpointError),
    #[error(
        "audit entry {0} is not the one that was signed: it was changed, with all that follows"
    )]
    Rewritten(u64),
    #[error("entries {from} to {to} are missing: a signed checkpoint names entry {to}")]
    Cut { from: u64, to: u64 },
    #[error("a checkpoint for entry {0} does not stand behind it")]
    Elsewhere(u64),
    #[error("a checkpoint is of the log {found:?}, not of {expected:?}")]
    OtherLog { expected: String, found: String },
    #[error("the export holds no entry")]
    Empty,
    #[error("entries {from} to {to} are missing: entry {to} is known to have been there")]
    Short { from: u64, to: u64 },
    #[error("audit entry {0} is not the one that is known")]
    NotAsKnown(u64),
    #[error("nothing signed confirms the log: there is no checkpoint by a trusted key")]
    Unsigned,
}

/// The first line at which an export does not hold, and why.
#[derive(Debug, thiserror::Error)]
#[error("line {line}")]
pub struct Broken {
    pub line: usize,
    #[source]
    pub problem: Problem,
}

/// What of an export was found to hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    pub first: u64,
    pub last: u64,
    /// Hash of the last entry, in hexadecimal digits. Kept elsewhere, it shows later whether the end was cut off.
    pub head: String,
    pub checkpoints: usize,
    /// The number of the entry up to which trusted keys have signed; what follows is only chained.
    pub signed: Option<u64>,
}

/// Verifies an export line by line.
pub struct Verifier<'k> {
    keys: Option<&'k KeyRing>,
    now: Timestamp,
    /// An entry that is known from elsewhere.
    known: Option<(u64, [u8; 32])>,
    lines: usize,
    chain: Option<Chain>,
    first: u64,
    log: Option<String>,
    checkpoints: usize,
    signed: Option<u64>,
}

impl<'k> Verifier<'k> {
    /// Without keys, checkpoints are passed over. `known`: sequence and hash of an entry, which must be there if they can be.
    pub fn new(keys: Option<&'k KeyRing>, known: Option<(u64, [u8; 32])>, now: Timestamp) -> Self {
        let (chain, log, signed) = (None, None, None);
        Self { keys, now, known, lines: 0, chain, first: 0, log, checkpoints: 0, signed }
    }

    /// Checks the next line, without its end.
    pub fn line(&mut self, line: &[u8]) -> Result<(), Broken> {
        self.lines += 1;
        let broken = |problem| Broken { line: self.lines, problem };
        let read = Line::read(line).map_err(|it| broken(it.into()))?;
        let number = self.lines;
        self.follow(read).map_err(|problem| Broken { line: number, problem })
    }

    fn follow(&mut self, line: Line) -> Result<(), Problem> {
        match line {
            Line::Entry(entry) => self.entry(&AuditEntry::try_from(entry)?),
            Line::Checkpoint(envelope) => {
                let Some(keys) = self.keys else { return Ok(()) };
                self.checkpoint(&Checkpoint::verify(&envelope, keys, self.now)?)
            }
        }
    }

    fn entry(&mut self, entry: &AuditEntry) -> Result<(), Problem> {
        if self.chain.is_none() {
            self.first = entry.sequence;
        }
        let start = entry.sequence.saturating_sub(1);
        self.chain.get_or_insert_with(|| Chain::after(start)).follow(entry)?;
        match self.known {
            Some((sequence, hash)) if sequence == entry.sequence && hash != entry.hash => {
                Err(Problem::NotAsKnown(sequence))
            }
            _ => Ok(()),
        }
    }

    fn checkpoint(&mut self, it: &Checkpoint) -> Result<(), Problem> {
        let log = self.log.get_or_insert_with(|| it.log.clone());
        if *log != it.log {
            let (expected, found) = (log.clone(), it.log.clone());
            return Err(Problem::OtherLog { expected, found });
        }
        let last = self.chain.as_ref().and_then(Chain::last);
        match last {
            Some((last, hash)) if last == it.sequence => {
                if it.hash() != Some(hash) {
                    return Err(Problem::Rewritten(last));
                }
            }
            Some((last, _)) if last < it.sequence => {
                return Err(Problem::Cut { from: last + 1, to: it.sequence });
            }
            None => return Err(Problem::Cut { from: 1, to: it.sequence }),
            // Of entries before the export begins.
            Some(_) if it.sequence < self.first => return Ok(()),
            Some(_) => return Err(Problem::Elsewhere(it.sequence)),
        }
        self.checkpoints += 1;
        self.signed = Some(it.sequence);
        Ok(())
    }

    /// Says what held, when all lines were read.
    pub fn finish(self) -> Result<Report, Broken> {
        let broken = |problem| Broken { line: self.lines, problem };
        let last = self.chain.as_ref().and_then(Chain::last);
        let (last, hash) = last.ok_or_else(|| broken(Problem::Empty))?;
        if let Some((to, _)) = self.known.filter(|(sequence, _)| *sequence > last) {
            return Err(broken(Problem::Short { from: last + 1, to }));
        }
        if self.keys.is_some() && self.signed.is_none() {
            return Err(broken(Problem::Unsigned));
        }
        Ok(Report {
            first: self.first,
            last,
            head: hex(&hash),
            checkpoints: self.checkpoints,
            signed: self.signed,
        })
    }
}
