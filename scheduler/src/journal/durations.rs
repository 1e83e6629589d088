//! Expected run times, learned from runs that a worker finished successfully.

use std::collections::{BTreeMap, HashMap};

use kiln_protos::events::Execution;
use kiln_protos::events::execution::Origin;

use super::summary::{has_failed, is_part, run_ns};

/// Weight of the newest run in the mean, between 0 and 1.
const ALPHA: f64 = 0.3;
/// Mnemonics of which an average over all targets is kept.
const MAX_MNEMONICS: usize = 1000;
const NANOS_PER_MS: f64 = 1e6;

/// The run time that was learned for one target and mnemonic; also the message that its record
/// holds.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Learned {
    #[prost(string, tag = "1")]
    pub target: String,
    #[prost(string, tag = "2")]
    pub mnemonic: String,
    /// Exponentially weighted mean of the run time in milliseconds.
    #[prost(double, tag = "3")]
    pub mean_ms: f64,
    #[prost(uint64, tag = "4")]
    pub runs: u64,
    /// Place of the last run in the journal.
    #[prost(uint64, tag = "5")]
    pub last_seq: u64,
}

pub(super) type Key = (String, String);

/// The learned durations, at most `capacity`; those not run for longest are forgotten first.
#[derive(Debug)]
pub(super) struct Durations {
    capacity: usize,
    learned: HashMap<Key, Learned>,
    by_age: BTreeMap<u64, Key>,
    by_mnemonic: HashMap<String, f64>,
    /// Changes that are not in the records yet; `None`: the record is to be deleted.
    changed: BTreeMap<Key, Option<Learned>>,
}

impl Durations {
    pub fn new(capacity: usize) -> Self {
        Self {
            capacity: capacity.max(1),
            learned: HashMap::new(),
            by_age: BTreeMap::new(),
            by_mnemonic: HashMap::new(),
            changed: BTreeMap::new(),
        }
    }

    /// Puts back what was written by [`Self::take_changed`] in an earlier run.
    pub fn restore(&mut self, learned: Learned) {
        self.learn_mnemonic(&learned.mnemonic, learned.mean_ms);
        self.insert(learned);
    }

    /// Learns from a run. Failed and cached ones say nothing about the next.
    pub fn observe(&mut self, execution: &Execution, seq: u64) {
        let together = execution.shard.as_ref().map(|shard| shard.run_ns);
        // What ran in parts takes all of their time when it runs whole.
        let nanos = together.unwrap_or_else(|| run_ns(&execution.timeline.unwrap_or_default()));
        let is_run = execution.origin() == Origin::Executed && !is_part(execution);
        if !is_run || has_failed(execution) || nanos == 0 {
            return;
        }
        let key = (execution.target_id.clone(), execution.mnemonic.clone());
        let before = self.learned.get(&key).map(|learned| (learned.mean_ms, learned.runs));
        if self.learned.get(&key).is_some_and(|learned| learned.last_seq >= seq) {
            // Read again: what was restored knows this run.
            return;
        }
        let ms = nanos as f64 / NANOS_PER_MS;
        self.learn_mnemonic(&execution.mnemonic, ms);
        if execution.target_id.is_empty() {
            return;
        }
        let learned = Learned {
            target: key.0.clone(),
            mnemonic: key.1.clone(),
            mean_ms: before.map_or(ms, |(mean, _)| smooth(mean, ms)),
            runs: before.map_or(1, |(_, runs)| runs.saturating_add(1)),
            last_seq: seq,
        };
        self.changed.insert(key, Some(learned.clone()));
        self.insert(learned);
    }

    /// Milliseconds; `None` when neither the pair nor the mnemonic has run.
    pub fn expected_ms(&self, target: &str, mnemonic: &str) -> Option<u64> {
        let key = (target.to_owned(), mnemonic.to_owned());
        let exact = self.learned.get(&key).map(|learned| learned.mean_ms);
        let mean = exact.or_else(|| self.by_mnemonic.get(mnemonic).copied())?;
        Some(mean.round().max(1.0) as u64)
    }

    /// Whether an estimate for this target and mnemonic was learned from runs of its own.
    pub fn has_run(&self, target: &str, mnemonic: &str) -> bool {
        self.learned.contains_key(&(target.to_owned(), mnemonic.to_owned()))
    }

    pub fn len(&self) -> usize {
        self.learned.len()
    }

    pub fn has_changes(&self) -> bool {
        !self.changed.is_empty()
    }

    /// At most `limit` changes, for the records.
    pub fn take_changed(&mut self, limit: usize) -> Vec<(Key, Option<Learned>)> {
        let keys: Vec<_> = self.changed.keys().take(limit).cloned().collect();
        keys.into_iter().filter_map(|key| self.changed.remove_entry(&key)).collect()
    }

    /// Gives back changes that could not be written; newer ones win.
    pub fn put_back(&mut self, changes: Vec<(Key, Option<Learned>)>) {
        for (key, change) in changes {
            self.changed.entry(key).or_insert(change);
        }
        // Records that cannot be written for long must not fill the memory with deletions.
        if self.changed.len() > 2 * self.capacity {
            self.changed.retain(|_, change| change.is_some());
        }
    }

    /// Forgets changes that somebody else wrote: what came from runs up to `seq`.
    pub fn written_elsewhere(&mut self, seq: u64) {
        let is_newer = |learned: &Learned| learned.last_seq > seq;
        self.changed.retain(|_, change| change.as_ref().is_some_and(is_newer));
    }

    fn insert(&mut self, learned: Learned) {
        let key = (learned.target.clone(), learned.mnemonic.clone());
        // Places in the journal are unique, except in damaged records.
        if let Some(other) = self.by_age.insert(learned.last_seq, key.clone())
            && other != key
        {
            self.learned.remove(&other);
        }
        let age = learned.last_seq;
        if let Some(before) = self.learned.insert(key, learned)
            && before.last_seq != age
        {
            self.by_age.remove(&before.last_seq);
        }
        while self.learned.len() > self.capacity
            && let Some((_, oldest)) = self.by_age.pop_first()
        {
            self.learned.remove(&oldest);
            self.changed.insert(oldest, None);
        }
    }

    fn learn_mnemonic(&mut self, mnemonic: &str, ms: f64) {
        if let Some(mean) = self.by_mnemonic.get_mut(mnemonic) {
            *mean = smooth(*mean, ms);
        } else if self.by_mnemonic.len() < MAX_MNEMONICS && !mnemonic.is_empty() {
            self.by_mnemonic.insert(mnemonic.to_owned(), ms);
        }
    }
}

fn smooth(mean: f64, newest: f64) -> f64 {
    mean + ALPHA * (newest - mean)
}

#[cfg(test)]
mod tests {
    use kiln_protos::events::{Shard, Timeline};
    use proptest::prelude::*;

    use super::*;

    fn run(target: &str, mnemonic: &str, ms: i64) -> Execution {
        Execution {
            origin: Origin::Executed.into(),
            target_id: target.into(),
            mnemonic: mnemonic.into(),
            timeline: Some(Timeline {
                run_start: 1_000_000,
                run_end: 1_000_000 + ms * 1_000_000,
                ..Default::default()
            }),
            ..Default::default()
        }
    }

    #[test]
    fn the_newest_run_weighs_three_tenths_and_mnemonics_stand_in_for_unknown_targets() {
        let mut durations = Durations::new(10);
        durations.observe(&run("//a", "CppCompile", 1000), 1);
        durations.observe(&run("//a", "CppCompile", 2000), 2);
        assert_eq!(durations.expected_ms("//a", "CppCompile"), Some(1300));
        assert_eq!(durations.expected_ms("//new", "CppCompile"), Some(1300));
        assert_eq!(durations.expected_ms("//a", "CppLink"), None);
    }

    #[test]
    fn failed_cached_and_timed_out_runs_teach_nothing() {
        let mut durations = Durations::new(10);
        let failed = Execution { exit_code: 1, ..run("//a", "M", 5) };
        let hit = Execution { origin: Origin::CacheHit.into(), ..run("//a", "M", 5) };
        let timed_out = Execution { status_code: 4, ..run("//a", "M", 5) };
        for (seq, execution) in [failed, hit, timed_out].iter().enumerate() {
            durations.observe(execution, seq as u64);
        }
        assert_eq!(durations.expected_ms("//a", "M"), None);
        assert!(!durations.has_changes());
    }

    #[test]
    fn what_ran_in_parts_takes_all_of_their_time_and_each_part_teaches_nothing() {
        let shard = |number, run_ns| Some(Shard { number, count: 2, whole: None, run_ns });
        let mut durations = Durations::new(10);
        durations.observe(&Execution { shard: shard(1, 0), ..run("//a", "M", 700) }, 1);
        assert_eq!(durations.expected_ms("//a", "M"), None);
        durations.observe(&Execution { shard: shard(0, 1_300_000_000), ..run("//a", "M", 700) }, 2);
        assert_eq!(durations.expected_ms("//a", "M"), Some(1300));
    }

    #[test]
    fn a_run_that_is_read_again_teaches_nothing_and_what_others_wrote_is_no_change() {
        let mut durations = Durations::new(10);
        durations.observe(&run("//a", "M", 1000), 5);
        durations.observe(&run("//a", "M", 2000), 5);
        durations.observe(&run("//b", "M", 2000), 6);
        assert_eq!(durations.expected_ms("//a", "M"), Some(1000));
        durations.written_elsewhere(5);
        let left = durations.take_changed(10);
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].0.0, "//b");
    }

    proptest! {
        #[test]
        fn never_more_than_the_capacity_and_the_newest_stay(
            targets in prop::collection::vec(0..40_u8, 1..200),
        ) {
            let mut durations = Durations::new(8);
            for (seq, target) in targets.iter().enumerate() {
                durations.observe(&run(&target.to_string(), "M", 7), seq as u64);
                prop_assert!(durations.len() <= 8);
                prop_assert_eq!(durations.len(), durations.by_age.len());
                prop_assert!(
                    durations.learned.contains_key(&(target.to_string(), "M".to_owned()))
                );
            }
            // What the changes say, applied in order, is what is in memory.
            let kept = durations
                .take_changed(usize::MAX)
                .into_iter()
                .filter(|(_, change)| change.is_some())
                .count();
            prop_assert_eq!(kept, durations.len());
        }
    }
}
