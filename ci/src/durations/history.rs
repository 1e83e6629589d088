//! Durations of cases from the runs of their tests, with the cost of setting up kept apart.

use std::collections::{HashMap, VecDeque};

use super::median;
use crate::model::{CaseName, CaseResult, Outcome, TestKey};

/// Good values that are kept of a case: the median of three outvotes one spike, and longer memories
/// follow a test that changes too slowly.
const VALUES: usize = 3;

/// Set-ups that are kept of a test: they drift, and one in two may be off.
const SET_UPS: usize = 5;

/// One run of a test, or of one shard of it: what one process did.
#[derive(Clone, Copy, Debug)]
pub struct ShardRun<'a> {
    pub test: &'a TestKey,
    /// What the command was, as a hash of it.
    pub command: &'a str,
    pub platform: &'a str,
    /// Whether the result was found in a cache: the durations are those of an earlier run.
    pub is_cached: bool,
    /// The cases in the order in which they ran.
    pub cases: &'a [CaseResult],
}

/// The last values of one case.
#[derive(Clone, Debug, Default)]
struct Values {
    /// Seconds that the case took where another case had run before it.
    later: VecDeque<f64>,
    /// Seconds that the case took where it was the first one, with whatever is set up on demand.
    first: VecDeque<f64>,
}

/// What is known of durations. Bounded by the cases that there are, not by their runs.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// Durations by test, case, command and platform.
    exact: HashMap<(TestKey, CaseName, String, String), Values>,
    cases: HashMap<(TestKey, CaseName), Values>,
    set_ups: HashMap<TestKey, VecDeque<f64>>,
}

impl History {
    /// Takes what passed: a failure ends early or late, a cached result ran at another time.
    pub fn add(&mut self, run: ShardRun) {
        if run.is_cached {
            return;
        }
        for (place, result) in run.cases.iter().enumerate() {
            let (Outcome::Passed, Some(duration)) = (result.outcome, result.duration) else {
                continue;
            };
            self.add_case(run, &result.case, duration.as_secs_f64(), place == 0);
        }
    }

    fn add_case(&mut self, run: ShardRun, case: &CaseName, seconds: f64, is_first: bool) {
        let (test, command, platform) =
            (run.test.clone(), run.command.to_owned(), run.platform.to_owned());
        let known = self.cases.entry((test.clone(), case.clone())).or_default();
        if let (true, Some(own)) = (is_first, middle(&known.later)) {
            push(self.set_ups.entry(test.clone()).or_default(), (seconds - own).max(0.0), SET_UPS);
        }
        known.add(seconds, is_first);
        let exact = self.exact.entry((test, case.clone(), command, platform)).or_default();
        exact.add(seconds, is_first);
    }

    /// What a shard of this test spends before its cases, in seconds: the median of what first cases took
    /// longer than they do elsewhere. 0 while no case was seen in both places.
    pub fn set_up(&self, test: &TestKey) -> f64 {
        self.set_ups.get(test).and_then(middle).unwrap_or(0.0)
    }

    /// What a case takes by itself, in seconds: by what it took with this command on this platform, else by
    /// what it took at all, else by the cases of its test. None where no case of the test is known.
    pub fn case(
        &self,
        test: &TestKey,
        case: &CaseName,
        command: &str,
        platform: &str,
    ) -> Option<f64> {
        let exact = (test.clone(), case.clone(), command.to_owned(), platform.to_owned());
        let set_up = self.set_up(test);
        let exact = self.exact.get(&exact).and_then(|values| values.own(set_up));
        let any = || self.cases.get(&(test.clone(), case.clone()))?.own(set_up);
        exact.or_else(any).or_else(|| self.usual_case(test))
    }

    /// The middle one of the cases of a test.
    fn usual_case(&self, test: &TestKey) -> Option<f64> {
        let set_up = self.set_up(test);
        let of_test = self.cases.iter().filter(|((of, _), _)| of == test);
        let mut all: Vec<_> = of_test.filter_map(|(_, values)| values.own(set_up)).collect();
        median(&mut all)
    }
}

impl Values {
    fn add(&mut self, seconds: f64, is_first: bool) {
        push(if is_first { &mut self.first } else { &mut self.later }, seconds, VALUES);
    }

    /// Seconds that the case takes without the set-up. Only a case that never ran behind another is judged by its first
    /// places.
    fn own(&self, set_up: f64) -> Option<f64> {
        let first = || Some((middle(&self.first)? - set_up).max(0.0));
        middle(&self.later).or_else(first)
    }
}

fn push(values: &mut VecDeque<f64>, value: f64, most: usize) {
    values.truncate(most - 1);
    values.push_front(value);
}

fn middle(values: &VecDeque<f64>) -> Option<f64> {
    median(&mut values.iter().copied().collect::<Vec<_>>())
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn test() -> TestKey {
        TestKey { instance: String::new(), label: "//a:t".into(), configuration: String::new() }
    }

    fn case(name: &str) -> CaseName {
        CaseName { class: "C".into(), name: name.into() }
    }

    fn result(name: &str, outcome: Outcome, seconds: f64) -> CaseResult {
        let duration = Some(Duration::from_secs_f64(seconds));
        CaseResult { case: case(name), outcome, duration, message: None }
    }

    fn passed(cases: &[(&str, f64)]) -> Vec<CaseResult> {
        cases.iter().map(|&(name, seconds)| result(name, Outcome::Passed, seconds)).collect()
    }

    fn add(history: &mut History, command: &str, is_cached: bool, cases: &[CaseResult]) {
        let test = test();
        history.add(ShardRun { test: &test, command, platform: "linux", is_cached, cases });
    }

    fn seconds(history: &History, name: &str, command: &str) -> Option<f64> {
        let seconds = history.case(&test(), &case(name), command, "linux");
        seconds.map(|seconds| (seconds * 1000.0).round() / 1000.0)
    }

    #[test]
    fn a_set_up_that_lands_on_whichever_case_comes_first_is_kept_apart() {
        let mut history = History::default();
        add(&mut history, "c", false, &passed(&[("a", 38.0), ("b", 2.0), ("c", 3.0)]));
        // Nothing shows yet that the set-up took the time, and not the first case itself.
        assert_eq!(seconds(&history, "a", "c"), Some(38.0));
        add(&mut history, "c", false, &passed(&[("b", 37.0), ("a", 1.0), ("c", 3.0)]));
        add(&mut history, "c", false, &passed(&[("c", 44.0), ("b", 2.0), ("a", 1.0)]));
        add(&mut history, "c", false, &passed(&[("d", 40.0), ("b", 2.0)]));
        assert!((history.set_up(&test()) - 38.0).abs() < 1e-9, "{}", history.set_up(&test()));
        for (name, own) in [("a", 1.0), ("b", 2.0), ("c", 3.0), ("d", 2.0)] {
            assert_eq!(seconds(&history, name, "c"), Some(own), "{name}");
        }
    }

    #[test]
    fn failed_and_cached_runs_are_left_out() {
        let mut history = History::default();
        let first = result("x", Outcome::Passed, 1.0);
        for outcome in
            [Outcome::Failed, Outcome::TimedOut, Outcome::Skipped, Outcome::Infrastructure]
        {
            add(&mut history, "c", false, &[first.clone(), result("a", outcome, 60.0)]);
        }
        add(&mut history, "c", true, &passed(&[("x", 1.0), ("a", 50.0)]));
        // The cases of the test stand in for one of which nothing is known.
        assert_eq!(seconds(&history, "a", "c"), Some(1.0));
        add(&mut history, "c", false, &passed(&[("x", 1.0), ("a", 5.0)]));
        assert_eq!(seconds(&history, "a", "c"), Some(5.0));
    }

    #[test]
    fn the_nearest_key_that_is_known_counts() {
        let mut history = History::default();
        assert_eq!(seconds(&history, "a", "c"), None);
        add(&mut history, "debug", false, &passed(&[("x", 1.0), ("a", 8.0), ("b", 1.0)]));
        add(&mut history, "release", false, &passed(&[("x", 1.0), ("a", 2.0)]));
        assert_eq!(seconds(&history, "a", "debug"), Some(8.0));
        assert_eq!(seconds(&history, "a", "release"), Some(2.0));
        assert_eq!(seconds(&history, "a", "other"), Some(5.0));
        assert_eq!(seconds(&history, "new", "release"), Some(1.0));
    }

    #[test]
    fn one_spike_is_outvoted_and_a_change_is_followed() {
        let mut history = History::default();
        for (value, expected) in
            [(1.0, 1.0), (1.0, 1.0), (90.0, 1.0), (1.0, 1.0), (6.0, 6.0), (6.0, 6.0)]
        {
            add(&mut history, "c", false, &passed(&[("x", 1.0), ("a", value)]));
            assert_eq!(seconds(&history, "a", "c"), Some(expected), "after {value}");
        }
    }
}
