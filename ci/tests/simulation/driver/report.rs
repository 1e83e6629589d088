//! What is counted of a month.

use std::collections::BTreeMap;

#[derive(Clone, Debug, Default)]
pub struct Report {
    pub runs: u64,
    pub gates: u64,
    /// Gates of changes that break nothing.
    pub good: u64,
    pub false_red: u64,
    /// Red by policy alone: the change edits a flaky test.
    pub red_by_edit: u64,
    pub undecided: u64,
    pub undecided_why: BTreeMap<String, u64>,
    pub raw_false_red: u64,
    pub breakages: u64,
    pub masked_breakages: u64,
    pub missed: u64,
    pub fresh: u64,
    pub reruns: u64,
    pub fresh_flaky: u64,
    pub reruns_flaky: u64,
    pub fresh_broken: u64,
    pub reruns_broken: u64,
    pub controls: u64,
    pub most_quarantined: usize,
    pub entered: u64,
    pub entered_wrongly: u64,
    pub found: u64,
    pub wrong: u64,
    pub to_find: u64,
    pub not_found: u64,
    /// Days until what is to be found was, summed.
    pub days_to_find: u64,
}

impl Report {
    pub fn add(&mut self, other: &Self) {
        self.runs += other.runs;
        self.gates += other.gates;
        self.good += other.good;
        self.false_red += other.false_red;
        self.red_by_edit += other.red_by_edit;
        self.undecided += other.undecided;
        self.raw_false_red += other.raw_false_red;
        self.breakages += other.breakages;
        self.masked_breakages += other.masked_breakages;
        self.missed += other.missed;
        self.fresh += other.fresh;
        self.reruns += other.reruns;
        self.fresh_flaky += other.fresh_flaky;
        self.reruns_flaky += other.reruns_flaky;
        self.fresh_broken += other.fresh_broken;
        self.reruns_broken += other.reruns_broken;
        self.controls += other.controls;
        self.entered += other.entered;
        self.entered_wrongly += other.entered_wrongly;
        self.found += other.found;
        self.wrong += other.wrong;
        self.to_find += other.to_find;
        self.not_found += other.not_found;
        self.days_to_find += other.days_to_find;
        self.most_quarantined = self.most_quarantined.max(other.most_quarantined);
        for (why, count) in &other.undecided_why {
            *self.undecided_why.entry(why.clone()).or_default() += count;
        }
    }
}
