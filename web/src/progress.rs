//! How far a build is. A server is never told that a build ends: what is known is what waits and
//! runs, and how the last of it ended.

use kiln_scheduler::Snapshot;
use kiln_scheduler::journal::{BuildSummary, Journal};
use kiln_scheduler::snapshot::OperationView;

/// What the queue does not know and nothing was heard of for so long has no end: in a fleet a
/// frontend may have been lost with it. In nanoseconds.
const LOST_AFTER: i64 = 3_600_000_000_000;
/// A build that was active so shortly before may go on any moment; in nanoseconds.
const LIVELY: i64 = 30_000_000_000;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuildPhase {
    /// Something runs or waits.
    Running,
    /// All that has begun has ended.
    Idle,
    /// All that has begun has ended, and the last of it was cancelled.
    Cancelled,
    /// Something will never end.
    Lost,
}

impl BuildPhase {
    pub fn name(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Idle => "idle",
            Self::Cancelled => "cancelled",
            Self::Lost => "lost",
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    pub state: BuildPhase,
    /// Requests that wait or run.
    pub open: u64,
    /// Requests that will never end.
    pub lost: u64,
    /// Nanoseconds that those which wait or run have waited and run so far, as far as the queue lists them.
    pub queue_ns: u64,
    pub run_ns: u64,
    /// Whether the build may look otherwise in a moment, so that its page is loaded again.
    pub is_lively: bool,
}

impl Progress {
    /// The progress of a build as the journal knows it. `now`: nanoseconds since the Unix epoch.
    pub fn of(journal: &Journal, build: &BuildSummary, queue: &Snapshot, now: i64) -> Self {
        let (lost, open) = journal.lost_and_open(build);
        let operations = || operations_of(queue, &build.invocation_id);
        let judged = Self::judge(build, (lost, open), operations().count(), now);
        operations().fold(judged, Self::with)
    }

    /// Adds what an operation has waited and run.
    fn with(self, (operation, is_running): (&OperationView, bool)) -> Self {
        let (waited, ran) = match is_running {
            true => (operation.waited_ms, operation.for_ms),
            false => (operation.for_ms, 0),
        };
        let nanos = |ms: u64| ms.saturating_mul(1_000_000);
        Self {
            queue_ns: self.queue_ns.saturating_add(nanos(waited)),
            run_ns: self.run_ns.saturating_add(nanos(ran)),
            ..self
        }
    }

    fn judge(build: &BuildSummary, (lost, open): (u64, u64), listed: usize, now: i64) -> Self {
        let silent = now.saturating_sub(build.active_at);
        let gone = open > 0 && listed == 0 && silent > LOST_AFTER;
        let (lost, open) = if gone { (lost + open, 0) } else { (lost, open) };
        let state = match () {
            () if open > 0 || listed > 0 => BuildPhase::Running,
            () if lost > 0 => BuildPhase::Lost,
            () if build.is_cancelled => BuildPhase::Cancelled,
            () => BuildPhase::Idle,
        };
        let is_lively =
            state == BuildPhase::Running || (silent < LIVELY && state == BuildPhase::Idle);
        let (queue_ns, run_ns) = (0, 0);
        Self { state, open: open.max(listed as u64), lost, queue_ns, run_ns, is_lively }
    }
}

/// What of a build the queue lists, running ones first; `true`: it runs.
pub fn operations_of<'a>(
    queue: &'a Snapshot,
    invocation: &'a str,
) -> impl Iterator<Item = (&'a OperationView, bool)> {
    let running = queue.running.iter().map(|operation| (operation, true));
    let queued = queue.queued.iter().map(|operation| (operation, false));
    running.chain(queued).filter(move |(operation, _)| operation.invocation == invocation)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_waits_and_runs_counts_in_the_sums() {
        let operation =
            |for_ms, waited_ms| OperationView { for_ms, waited_ms, ..Default::default() };
        let build = BuildSummary::default();
        let progress = Progress::judge(&build, (0, 2), 2, 0);
        let progress = progress.with((&operation(500, 0), false)).with((&operation(30, 200), true));
        assert_eq!((progress.queue_ns, progress.run_ns), (700_000_000, 30_000_000));
    }

    #[test]
    fn a_build_runs_idles_was_cancelled_or_is_lost() {
        let now = 10 * LOST_AFTER;
        let state = |is_cancelled, counts, listed, active_at| {
            let build = BuildSummary { is_cancelled, active_at, ..BuildSummary::default() };
            Progress::judge(&build, counts, listed, now).state
        };
        assert_eq!(state(false, (0, 2), 2, now), BuildPhase::Running);
        assert_eq!(state(true, (0, 1), 0, now - LIVELY), BuildPhase::Running);
        assert_eq!(state(true, (0, 0), 0, now), BuildPhase::Cancelled);
        assert_eq!(state(true, (3, 0), 0, now), BuildPhase::Lost);
        assert_eq!(state(false, (0, 3), 0, now - LOST_AFTER - 1), BuildPhase::Lost);
        assert_eq!(state(false, (0, 3), 1, now - LOST_AFTER - 1), BuildPhase::Running);
        assert_eq!(state(false, (0, 0), 0, now - LIVELY), BuildPhase::Idle);
        // Begun in this moment, and not heard of in the journal yet.
        assert_eq!(state(false, (0, 0), 1, now), BuildPhase::Running);
    }
}
