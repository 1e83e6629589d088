//! Failures of a test, by what they looked like.

use std::collections::BTreeMap;

use kiln_ci::attempts::{Attempt, Failure, Known};

/// Cases of which failures are named.
const MAX_CASES: usize = 8;

/// Failures that look alike.
#[derive(Debug, PartialEq, Eq)]
pub struct Group<'a> {
    /// What the failures of the group share; `None` where there was no text to go by.
    pub signature: Option<String>,
    /// The beginning of the newest one's text.
    pub excerpt: &'a str,
    pub attempts: u64,
    pub cases: Vec<String>,
    /// How many cases there are beyond those that are named.
    pub more_cases: u64,
    pub newest: &'a Attempt,
    pub oldest: &'a Attempt,
}

/// The most frequent first. What a case of an attempt says counts more than what the attempt says itself. Shadow
/// runs repeat a failure of somebody's: they are none of their own.
pub fn groups(newest_first: &[Attempt]) -> Vec<Group<'_>> {
    let mut groups: BTreeMap<Option<u64>, Group<'_>> = BTreeMap::new();
    for attempt in newest_first.iter().filter(|it| !it.known.has(Known::SHADOW)) {
        let mut seen = Vec::new();
        for (case, failure) in failures(attempt) {
            let key = failure.and_then(|it| it.signature).map(|it| it.bits());
            let group = groups.entry(key).or_insert_with(|| Group {
                signature: failure.and_then(|it| it.signature).map(|it| it.to_string()),
                excerpt: failure.map_or("", |it| it.excerpt.as_str()),
                attempts: 0,
                cases: Vec::new(),
                more_cases: 0,
                newest: attempt,
                oldest: attempt,
            });
            if !seen.contains(&key) {
                seen.push(key);
                group.attempts += 1;
                group.oldest = attempt;
            }
            group.add_case(case);
        }
    }
    let mut groups: Vec<_> = groups.into_values().collect();
    groups.sort_by_key(|group| std::cmp::Reverse(group.attempts));
    groups
}

impl Group<'_> {
    fn add_case(&mut self, case: Option<String>) {
        let Some(case) = case.filter(|case| !self.cases.contains(case)) else { return };
        match self.cases.len() {
            0..MAX_CASES => self.cases.push(case),
            _ => self.more_cases += 1,
        }
    }
}

/// Failures of an attempt, with the names of their cases; the attempt's own failure where no case failed, as after a
/// crash.
fn failures(attempt: &Attempt) -> Vec<(Option<String>, Option<&Failure>)> {
    use kiln_ci::model::Outcome::{Failed, TimedOut};
    let is_bad = |outcome| matches!(outcome, Failed | TimedOut);
    let failed = attempt.cases.iter().filter(|case| is_bad(case.outcome));
    let cases: Vec<_> =
        failed.map(|case| (Some(name(&case.case)), case.failure.as_ref())).collect();
    match cases.is_empty() && is_bad(attempt.outcome) {
        true => vec![(None, attempt.failure.as_ref())],
        false => cases,
    }
}

pub fn name(case: &kiln_ci::model::CaseName) -> String {
    match case.class.as_str() {
        "" => case.name.clone(),
        class => format!("{class} {}", case.name),
    }
}

#[cfg(test)]
mod tests {
    use kiln_ci::attempts::{CaseRun, Slot};
    use kiln_ci::model::{CaseName, Outcome, TestKey};

    use super::*;

    fn attempt(outcome: Outcome, cases: &[(&str, &str)]) -> Attempt {
        let test = TestKey {
            instance: String::new(),
            label: "//a:t".into(),
            configuration: String::new(),
        };
        let case = |(name, message): &(&str, &str)| CaseRun {
            case: CaseName { class: String::new(), name: (*name).to_owned() },
            attempt: 1,
            outcome: Outcome::Failed,
            duration: None,
            failure: Failure::of(message),
        };
        let slot = Slot { run: 1, shard: 1, attempt: 1 };
        let base = Attempt::new(test, "i", slot, Known::REPORTED);
        Attempt { outcome, cases: cases.iter().map(case).collect(), ..base }
    }

    #[test]
    fn failures_that_differ_in_numbers_alone_are_one_group() {
        let mut shadow = attempt(Outcome::Failed, &[("a", "lost after 3 ms")]);
        shadow.known |= Known::SHADOW;
        let all = [
            shadow,
            attempt(Outcome::Failed, &[("a", "lost after 17 ms"), ("b", "lost after 9 ms")]),
            attempt(Outcome::Passed, &[]),
            attempt(Outcome::Failed, &[("a", "lost after 400 ms"), ("c", "no such file")]),
            attempt(Outcome::TimedOut, &[]),
        ];
        let groups = groups(&all);
        assert_eq!(groups.len(), 3);
        assert_eq!((groups[0].attempts, groups[0].excerpt), (2, "lost after 17 ms"));
        assert_eq!(groups[0].cases, ["a", "b"]);
        let crash = groups.iter().find(|group| group.signature.is_none()).expect("a crash");
        assert_eq!((crash.attempts, crash.cases.len()), (1, 0));
    }
}
