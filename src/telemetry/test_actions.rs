//! What cache and queue do for tests: counters over the requests for actions that run one.

use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cas::bazel;
use kiln_protos::events::{Execution, execution::Origin};
use kiln_scheduler::journal::{Stage, between};

const NANOS: f64 = 1e9;

/// Counters over requests for actions that run tests. One that ran in parts counts once.
#[derive(Debug, Default)]
pub struct TestActions {
    executed: AtomicU64,
    hits: AtomicU64,
    merged: AtomicU64,
    queue_ns: AtomicU64,
}

impl TestActions {
    /// Counts a request that ended, where it was for a test.
    pub fn note(&self, execution: &Execution) {
        let is_part = execution.shard.as_ref().is_some_and(|shard| shard.number > 0);
        if is_part || !bazel::is_test(&execution.mnemonic) {
            return;
        }
        let counter = match execution.origin() {
            Origin::Executed => &self.executed,
            Origin::CacheHit => &self.hits,
            Origin::Merged => &self.merged,
            Origin::Unspecified => return,
        };
        let timeline = execution.timeline.unwrap_or_default();
        if execution.origin() == Origin::Executed {
            // Without a worker nothing ran.
            if timeline.leased == 0 {
                return;
            }
            let waited = Stage::Queue.span_of_finished(&timeline);
            let waited = waited.map_or(0, |(start, end)| between(start, end));
            self.queue_ns.fetch_add(waited, Ordering::Relaxed);
        }
        counter.fetch_add(1, Ordering::Relaxed);
    }

    /// Requests by where the result came from.
    pub fn by_origin(&self) -> [(&'static str, u64); 3] {
        [("executed", &self.executed), ("cache_hit", &self.hits), ("merged", &self.merged)]
            .map(|(origin, count)| (origin, count.load(Ordering::Relaxed)))
    }

    /// Seconds that those which ran waited for a worker, in sum.
    pub fn queue_seconds(&self) -> f64 {
        self.queue_ns.load(Ordering::Relaxed) as f64 / NANOS
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::{Shard, Timeline};

    use super::*;

    #[test]
    fn requests_for_tests_count_once_and_only_what_ran_has_waited() {
        let timeline =
            Timeline { queued: 1, leased: 1_500_000_001, finished: 9, ..Timeline::default() };
        let of = |origin: Origin| Execution {
            mnemonic: "TestRunner".to_owned(),
            origin: origin.into(),
            timeline: Some(timeline),
            ..Execution::default()
        };
        let shard = |number| Some(Shard { number, count: 2, ..Shard::default() });
        let executed = || of(Origin::Executed);
        let tests = TestActions::default();
        for it in [
            executed(),
            Execution { shard: shard(0), ..executed() },
            Execution { shard: shard(1), ..executed() },
            Execution { mnemonic: "CppCompile".to_owned(), ..executed() },
            Execution { timeline: None, ..executed() },
            of(Origin::CacheHit),
            of(Origin::Merged),
        ] {
            tests.note(&it);
        }
        assert_eq!(tests.by_origin(), [("executed", 2), ("cache_hit", 1), ("merged", 1)]);
        assert!((tests.queue_seconds() - 3.0).abs() < 1e-9, "{}", tests.queue_seconds());
    }
}
