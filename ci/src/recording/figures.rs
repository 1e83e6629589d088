//! What became of what happened, in numbers.

use std::sync::atomic::{AtomicU64, Ordering};

/// What can become of an execution or a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recorded {
    /// An attempt is in the history.
    Attempt,
    /// Executions that came faster than they could be taken in.
    ExecutionLost,
    /// Reports that came faster than they could be read.
    ReportLost,
    /// A report, or what an execution was asked to run, is not in the store, or too large.
    Unreadable,
    /// A report is no report.
    Refused,
    /// Attempts given up at the end, since they could not be written.
    Dropped,
    /// A batch could not be written, and is tried again.
    FailedWrite,
}

const KINDS: usize = 7;

/// Counters of one moment, since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recordings {
    pub attempts: u64,
    pub lost_executions: u64,
    pub lost_reports: u64,
    pub unreadable: u64,
    pub refused_reports: u64,
    pub dropped: u64,
    pub failed_writes: u64,
}

#[derive(Default)]
pub struct Counters([AtomicU64; KINDS]);

impl Counters {
    pub fn count(&self, kind: Recorded, by: u64) {
        self.of(kind).fetch_add(by, Ordering::Relaxed);
    }

    fn of(&self, kind: Recorded) -> &AtomicU64 {
        let [attempts, executions, reports, unreadable, refused, dropped, failed] = &self.0;
        match kind {
            Recorded::Attempt => attempts,
            Recorded::ExecutionLost => executions,
            Recorded::ReportLost => reports,
            Recorded::Unreadable => unreadable,
            Recorded::Refused => refused,
            Recorded::Dropped => dropped,
            Recorded::FailedWrite => failed,
        }
    }

    pub fn now(&self) -> Recordings {
        let of = |kind| self.of(kind).load(Ordering::Relaxed);
        Recordings {
            attempts: of(Recorded::Attempt),
            lost_executions: of(Recorded::ExecutionLost),
            lost_reports: of(Recorded::ReportLost),
            unreadable: of(Recorded::Unreadable),
            refused_reports: of(Recorded::Refused),
            dropped: of(Recorded::Dropped),
            failed_writes: of(Recorded::FailedWrite),
        }
    }
}
