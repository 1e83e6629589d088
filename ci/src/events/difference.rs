//! How two builds differ in what they told: whose they were, how they were called, and what became of their targets and
//! tests.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::facts::{Facts, Target, TargetOutcome};

/// Options, and targets with another outcome, that are listed.
const MAX_LISTED: usize = 500;
/// Tests that are listed with their times.
const MAX_DURATIONS: usize = 50;
/// A test that took so much more or less took as long.
const NOTHING: Duration = Duration::from_millis(100);

/// Differ in each two builds, or say nothing that a reader would look for.
const IGNORED: [&str; 13] = [
    "--build_metadata",
    "--invocation_id",
    "--build_request_id",
    "--build_event_binary_file",
    "--build_event_json_file",
    "--build_event_text_file",
    "--profile",
    "--client_env",
    "--rc_source",
    "--default_override",
    "--startup_time",
    "--command_wait_time",
    "--extract_data_time",
];

/// Something that is not as it was. `None`: it is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed<T> {
    pub name: String,
    pub before: Option<T>,
    pub after: Option<T>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BuildDifference {
    /// Command, commit, tool and the like.
    pub facts: Vec<Changed<String>>,
    /// Options with all values that were given; one without a value has an empty one.
    pub options: Vec<Changed<Vec<String>>>,
    /// Labels of targets and tests with another outcome, in words of the protocol; those that got worse first.
    pub outcomes: Vec<Changed<String>>,
    /// Labels of tests that ran in both, those that changed most first.
    pub durations: Vec<Changed<Duration>>,
    /// Options and outcomes that are not listed.
    pub left_out: u64,
}

impl BuildDifference {
    pub fn of(before: &Facts, after: &Facts) -> Self {
        let mut it = Self {
            facts: facts(before, after),
            options: options(before, after),
            outcomes: outcomes(before, after),
            durations: durations(before, after),
            left_out: 0,
        };
        it.left_out = cut(&mut it.options) + cut(&mut it.outcomes);
        it
    }
}

fn cut<T>(list: &mut Vec<T>) -> u64 {
    let beyond = list.len().saturating_sub(MAX_LISTED);
    list.truncate(MAX_LISTED);
    beyond as u64
}

/// What of two maps is not the same.
fn changed<T: PartialEq + Clone>(
    before: &BTreeMap<String, T>,
    after: &BTreeMap<String, T>,
) -> Vec<Changed<T>> {
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let one = |name: &String| Changed {
        name: name.clone(),
        before: before.get(name).cloned(),
        after: after.get(name).cloned(),
    };
    names.into_iter().map(one).filter(|it| it.before != it.after).collect()
}

/// What differs between the two builds themselves, in this order.
fn facts(before: &Facts, after: &Facts) -> Vec<Changed<String>> {
    let some = |text: &str| Some(text.to_owned()).filter(|it| !it.is_empty());
    let of = |it: &Facts| {
        [
            ("command", some(&it.command)),
            ("patterns", some(&it.patterns.join(" "))),
            ("commit", it.origin.commit.clone()),
            ("branch", it.origin.branch.clone()),
            ("repository", it.origin.repository.clone()),
            ("tool", some(&it.tool_version)),
            ("user", it.origin.user.clone()),
            ("machine", it.origin.host.clone()),
            ("directory", some(&it.directory)),
        ]
    };
    let pairs = of(before).into_iter().zip(of(after));
    let one = |((name, before), (_, after))| Changed { name: String::from(name), before, after };
    pairs.map(one).filter(|it| it.before != it.after).collect()
}

fn options(before: &Facts, after: &Facts) -> Vec<Changed<Vec<String>>> {
    let all = !before.options.effective.is_empty() && !after.options.effective.is_empty();
    let of = |facts: &Facts| {
        let options = &facts.options;
        let own = if all { &options.effective } else { &options.explicit };
        values(options.startup.iter().chain(own))
    };
    changed(&of(before), &of(after))
}

/// Values by the name of the option, in their order.
fn values<'a>(arguments: impl Iterator<Item = &'a String>) -> BTreeMap<String, Vec<String>> {
    let mut values: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for argument in arguments {
        let (name, value) = argument.split_once('=').unwrap_or((argument, ""));
        if !IGNORED.contains(&name) {
            values.entry(name.to_owned()).or_default().push(value.to_owned());
        }
    }
    values
}

fn outcomes(before: &Facts, after: &Facts) -> Vec<Changed<String>> {
    let of = |facts: &Facts| {
        let mut words: BTreeMap<String, String> = BTreeMap::new();
        for (key, target) in facts.targets.iter().filter(|(key, _)| key.aspect.is_empty()) {
            let word = word(target);
            // Of several configurations the worst counts.
            if words.get(&key.label).is_none_or(|known| badness(known) < badness(word)) {
                words.insert(key.label.clone(), word.to_owned());
            }
        }
        words
    };
    let mut all = changed(&of(before), &of(after));
    let bad = |it: &Option<String>| it.as_deref().map_or(0, badness);
    all.sort_by_key(|it| std::cmp::Reverse((bad(&it.after), bad(&it.before))));
    all
}

fn word(target: &Target) -> &str {
    match (&target.test, target.outcome) {
        // A test that was not built has no status of its own.
        (Some(test), TargetOutcome::Built) => &test.status,
        (_, TargetOutcome::Pending) => "pending",
        (_, TargetOutcome::Built) => "built",
        (_, TargetOutcome::Failed) => "failed to build",
        (_, TargetOutcome::Skipped) => "skipped",
        (_, TargetOutcome::Aborted) => "aborted",
    }
}

fn badness(word: &str) -> u8 {
    match word {
        "passed" | "built" => 0,
        "skipped" => 1,
        "pending" | "no_status" => 2,
        "flaky" => 3,
        "aborted" => 4,
        _ => 5,
    }
}

/// Results that were not run repeat what another run took.
fn durations(before: &Facts, after: &Facts) -> Vec<Changed<Duration>> {
    let of = |facts: &Facts| {
        let mut sums: BTreeMap<String, Duration> = BTreeMap::new();
        for (key, target) in &facts.targets {
            let ran = target.test.as_ref().filter(|it| it.cached == 0);
            if let Some(took) = ran.and_then(|it| it.duration) {
                let sum: &mut Duration = sums.entry(key.label.clone()).or_default();
                // Clients say any time.
                *sum = sum.saturating_add(took);
            }
        }
        sums
    };
    let (before, after) = (of(before), of(after));
    let mut both: Vec<Changed<Duration>> = changed(&before, &after)
        .into_iter()
        .filter(|it| it.before.is_some() && it.after.is_some() && by(it) >= NOTHING)
        .collect();
    both.sort_by_key(|it| std::cmp::Reverse(by(it)));
    both.truncate(MAX_DURATIONS);
    both
}

/// The time by which two durations differ.
fn by(it: &Changed<Duration>) -> Duration {
    it.before.unwrap_or_default().abs_diff(it.after.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::{TargetKey, TestTotals};

    fn target(label: &str, configuration: &str, outcome: TargetOutcome) -> (TargetKey, Target) {
        let key = TargetKey {
            label: label.to_owned(),
            configuration: configuration.to_owned(),
            aspect: String::new(),
        };
        (key, Target { outcome, ..Target::default() })
    }

    fn test(label: &str, status: &str, cached: u32, millis: u64) -> (TargetKey, Target) {
        let (key, target) = target(label, "", TargetOutcome::Built);
        let duration = Some(Duration::from_millis(millis));
        let totals =
            TestTotals { status: status.to_owned(), cached, duration, ..TestTotals::default() };
        (key, Target { test: Some(totals), ..target })
    }

    fn build(options: &[&str], targets: Vec<(TargetKey, Target)>) -> Facts {
        let mut facts = Facts { command: "test".to_owned(), targets, ..Facts::default() };
        facts.options.effective = options.iter().map(|it| (*it).to_owned()).collect();
        facts
    }

    #[test]
    fn options_are_compared_by_name_and_order_of_their_values() {
        let before = build(
            &["--copt=-O1", "--copt=-g", "--keep_going", "--jobs=4", "--invocation_id=a"],
            Vec::new(),
        );
        let after = build(
            &["--jobs=4", "--copt=-g", "--copt=-O1", "--config=ci", "--invocation_id=b"],
            Vec::new(),
        );
        let told: Vec<_> = BuildDifference::of(&before, &after)
            .options
            .into_iter()
            .map(|it| (it.name, it.before.unwrap_or_default(), it.after.unwrap_or_default()))
            .collect();
        let texts = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            told,
            [
                ("--config".to_owned(), texts(&[]), texts(&["ci"])),
                ("--copt".to_owned(), texts(&["-O1", "-g"]), texts(&["-g", "-O1"])),
                ("--keep_going".to_owned(), texts(&[""]), texts(&[])),
            ]
        );
        assert_eq!(BuildDifference::of(&before, &before), BuildDifference::default());
    }

    #[test]
    fn times_beyond_all_measure_are_compared_as_well() {
        let of = |took: Duration| {
            let one = |configuration: &str| {
                let (mut key, mut target) = test("//t", "passed", 0, 0);
                key.configuration = configuration.to_owned();
                target.test.as_mut().unwrap().duration = Some(took);
                (key, target)
            };
            build(&[], vec![one("x"), one("y")])
        };
        let it = BuildDifference::of(&of(Duration::MAX), &of(Duration::from_secs(1)));
        let [one] = &it.durations[..] else { panic!("{:?}", it.durations) };
        assert_eq!((one.before, one.after), (Some(Duration::MAX), Some(Duration::from_secs(2))));
    }

    #[test]
    fn outcomes_that_got_worse_come_first_and_the_worst_configuration_counts() {
        let built = TargetOutcome::Built;
        let before = build(
            &[],
            vec![
                target("//a", "x", built),
                target("//b", "x", built),
                target("//gone", "x", built),
                test("//t", "failed", 0, 900),
                test("//u", "passed", 0, 1_000),
                test("//slow", "passed", 0, 1_000),
                test("//cached", "passed", 1, 5_000),
            ],
        );
        let after = build(
            &[],
            vec![
                target("//a", "x", TargetOutcome::Failed),
                target("//a", "y", built),
                target("//b", "x", built),
                test("//t", "passed", 0, 950),
                test("//u", "timeout", 0, 1_020),
                test("//slow", "passed", 0, 9_000),
                test("//cached", "passed", 0, 1_000),
            ],
        );
        let it = BuildDifference::of(&before, &after);
        let words = |it: &Changed<String>| {
            let word = |it: &Option<String>| it.clone().unwrap_or_else(|| "-".to_owned());
            format!("{} {} -> {}", it.name, word(&it.before), word(&it.after))
        };
        assert_eq!(
            it.outcomes.iter().map(words).collect::<Vec<_>>(),
            [
                "//a built -> failed to build",
                "//u passed -> timeout",
                "//t failed -> passed",
                "//gone built -> -"
            ]
        );
        let slower: Vec<_> = it.durations.iter().map(|it| it.name.as_str()).collect();
        assert_eq!(slower, ["//slow"]);
        assert_eq!(it.facts, []);
    }
}
