//! What gates answer, and what is counted of it.

use std::collections::BTreeMap;

use kiln_ci::flakes::{Signature, Verdict};
use kiln_ci::gate::{Failure, Finding, GateAnswer, Item, Outcome, Run, gate};
use kiln_ci::model::Time;

use super::{Driver, TICK};
use crate::world::HOUR;

/// A gate answers at the latest after this time.
pub const PATIENCE: u64 = 2 * HOUR;

/// The gate of a change that has not answered yet.
pub struct Pending {
    pub change: usize,
    /// The time at which all of the change's tests have run.
    pub until: u64,
    /// Tests that failed, their signature, whether that was known, and when.
    pub failures: BTreeMap<usize, (Option<Signature>, bool, u64)>,
}

impl Driver {
    /// Lets gates answer that have nothing left to wait for.
    pub fn answer(&mut self, now: u64) {
        let gates = std::mem::take(&mut self.gates);
        for pending in gates {
            let change = pending.change;
            let settled = |test: &usize| {
                let identity = self.world.identity(*test, change);
                self.shadows.settled(&self.world.tests[*test].subject, identity)
            };
            let ready = pending.until + TICK <= now && pending.failures.keys().all(settled);
            if ready || pending.until + PATIENCE <= now {
                self.close(&pending, now);
            } else {
                self.gates.push(pending);
            }
        }
    }

    fn close(&mut self, pending: &Pending, now: u64) {
        let outcome = gate(&self.run(pending), &self.quarantine, Time(now));
        self.report.gates += 1;
        let mut bombed = false;
        for ((test, (.., at)), item) in pending.failures.iter().zip(&outcome.items) {
            let change = &self.world.changes[pending.change];
            bombed |= self.world.tests[*test]
                .bomb
                .is_some_and(|(from, until)| from < now && until + PATIENCE > change.at);
            // The test was broken for all the time from its failure until the gate answers.
            let broken = [*at, now].iter().all(|at| self.world.is_broken(*test, Some(change), *at));
            self.count_failure(pending.change, *test, item, broken);
        }
        let breaks = !self.world.changes[pending.change].broken.is_empty();
        if breaks {
            self.report.missed += u64::from(outcome.answer == GateAnswer::Green);
        } else if !bombed {
            self.count_good(pending, &outcome);
        }
    }

    /// What the gate of a change is asked.
    fn run(&self, pending: &Pending) -> Run<'_> {
        let change = &self.world.changes[pending.change];
        let failures = pending.failures.iter().map(|(test, (signature, known, at))| {
            let subject = self.world.tests[*test].subject.clone();
            let identity = self.world.identity(*test, pending.change);
            Failure {
                at: Time(*at),
                signature: *signature,
                known: *known,
                edited: change.edited.binary_search(test).is_ok(),
                judgement: self.shadows.judgement(&subject, identity),
                tries: self.shadows.tries(&subject, identity).unwrap_or_default(),
                settled: self.shadows.settled(&subject, identity),
                subject,
            }
        });
        Run {
            instance: "",
            incomplete: None,
            failures: failures.collect(),
            tests: self.world.tests.len(),
        }
    }

    fn count_failure(&mut self, change: usize, test: usize, item: &Item, broken: bool) {
        let identity = self.world.identity(test, change);
        let runs = u64::from(self.shadows.runs(&item.subject, identity));
        let judgement = self.shadows.judgement(&item.subject, identity);
        let report = &mut self.report;
        report.fresh += 1;
        report.reruns += runs;
        match judgement.map(|it| it.verdict) {
            Some(Verdict::Flaky) => {
                report.fresh_flaky += 1;
                report.reruns_flaky += runs;
            }
            Some(Verdict::Broken) => {
                report.fresh_broken += 1;
                report.reruns_broken += runs;
            }
            _ => {}
        }
        if broken {
            report.breakages += 1;
            report.masked_breakages += u64::from(item.masked());
        }
    }

    /// Counts what was answered to a change that breaks nothing.
    fn count_good(&mut self, pending: &Pending, outcome: &Outcome) {
        self.report.good += 1;
        self.report.raw_false_red += u64::from(!pending.failures.is_empty());
        let answered = |answer| move |it: &&Item| it.finding.answer() == answer;
        let mut red = outcome.items.iter().filter(answered(GateAnswer::Red));
        match outcome.answer {
            GateAnswer::Green => {}
            GateAnswer::Red if red.all(|it| it.finding == Finding::Edited) => {
                self.report.red_by_edit += 1;
            }
            GateAnswer::Red => {
                self.report.false_red += 1;
                self.print_false_red(pending, outcome);
            }
            GateAnswer::Undecided => {
                self.report.undecided += 1;
                for it in outcome.items.iter().filter(answered(GateAnswer::Undecided)) {
                    let why = format!("{:?}", it.finding);
                    *self.report.undecided_why.entry(why).or_default() += 1;
                }
            }
        }
    }

    fn print_false_red(&self, pending: &Pending, outcome: &Outcome) {
        let change = &self.world.changes[pending.change].label;
        for (item, test) in outcome.items.iter().zip(pending.failures.keys()) {
            if item.finding.answer() == GateAnswer::Red {
                let rate = self.world.tests[*test].rate;
                println!("{change} is falsely red: {item} (true rate {rate:.3})");
            }
        }
    }
}
