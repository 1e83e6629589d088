//! How long tests and their cases take, as the history of a server says.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use kiln_ci::durations::{Durations, History, ShardRun, median};
use kiln_ci::model::{CaseName, CaseResult, Outcome, TestKey};

use super::show::segment;
use crate::cli::api::{self, Api};
use crate::cli::error::CliError;
use crate::cli::target::Target;
use kiln_web::format::encode;
use kiln_web::json::{TestAttempt, TestCase, TestShown};

/// Attempts of a test that are looked at, the newest ones, and how many at most where its runs have many shards. Each comes
/// with its cases.
const ATTEMPTS: usize = 8;
const MOST: usize = 200;
/// Whole runs whose median counts.
const RUNS: usize = 3;

/// What is to be cut into shards, in order, and the durations of those that are known.
#[derive(Debug, Default)]
pub struct Known {
    pub names: Vec<String>,
    pub durations: Durations,
}

/// Tests as wholes, by label. What a server does not know is a new test.
pub async fn of_tests(target: &Target, labels: &[String]) -> Result<Known, CliError> {
    let api = Api::new(target)?;
    let names: BTreeSet<&String> = labels.iter().collect();
    let mut durations = Durations::new();
    for label in &names {
        let seconds = match ask(&api, target, label).await {
            Ok(shown) => whole(&shown.attempts, &shown.parts),
            Err(error) if error.code == CliError::NOT_FOUND => None,
            Err(error) => return Err(error),
        };
        durations.extend(seconds.map(|seconds| ((*label).clone(), seconds)));
    }
    Ok(Known { names: names.into_iter().cloned().collect(), durations })
}

/// The cases of tests, by what `named` calls them: those of the newest run of each in which all shards passed, else of
/// its newest run. Errors: no case of a test is known.
pub async fn of_cases(
    target: &Target,
    labels: &[String],
    named: impl Fn(&CaseName) -> String,
) -> Result<Known, CliError> {
    let api = Api::new(target)?;
    let mut all = BTreeMap::new();
    for label in labels {
        let shown = ask(&api, target, label).await?;
        let found = cases_of(&shown.attempts, &shown.parts);
        if found.is_empty() {
            let error = CliError::not_found(format!("no case of {label} is known"));
            return Err(error.hint("they are known from the reports (test.xml) of its runs"));
        }
        all.extend(found.into_iter().map(|(case, seconds)| (named(&case), seconds)));
    }
    let names = all.keys().cloned().collect();
    let durations = all.into_iter().filter_map(|(name, seconds)| Some((name, seconds?)));
    Ok(Known { names, durations: durations.collect() })
}

async fn ask(api: &Api, target: &Target, label: &str) -> Result<TestShown, CliError> {
    let shown = newest(api, target, label, ATTEMPTS).await?;
    let shards = shown.attempts.iter().map(|it| it.shards).max().unwrap_or(0) as usize;
    match shards.saturating_mul(RUNS + 1).min(MOST) {
        more if more > ATTEMPTS => newest(api, target, label, more).await,
        _ => Ok(shown),
    }
}

async fn newest(
    api: &Api,
    target: &Target,
    label: &str,
    attempts: usize,
) -> Result<TestShown, CliError> {
    let mut path = format!("/tests/{}?limit={attempts}", segment(label));
    if target.names_instance {
        path.push_str(&format!("&instance={}", encode(&target.instance, false)));
    }
    api::read(api.get(&path).await?)
}

/// The attempts of one invocation.
type Run<'a> = Vec<&'a TestAttempt>;

/// Runs of a test, newest first. Those that the server made by itself are left out.
fn runs(attempts: &[TestAttempt]) -> Vec<Run<'_>> {
    let mut runs: Vec<Run<'_>> = Vec::new();
    for it in attempts.iter().filter(|it| !it.strategy.starts_with("shadow-")) {
        let mut known = runs.iter_mut();
        let own = known.find(|run| run.iter().any(|of| of.invocation_id == it.invocation_id));
        match own {
            Some(run) => run.push(it),
            None => runs.push(vec![it]),
        }
    }
    runs
}

fn passed<'a>(run: &'a [&'a TestAttempt]) -> impl Iterator<Item = &'a TestAttempt> {
    run.iter().copied().filter(|it| it.outcome == "passed")
}

/// Whether each shard of a run has passed.
fn is_whole(run: &[&TestAttempt]) -> bool {
    let shards = run.iter().map(|it| it.shards).max().unwrap_or(0);
    let well: BTreeSet<u32> = passed(run).map(|it| it.shard).collect();
    !well.is_empty() && well.len() >= shards as usize
}

/// The parts in which the server ran the attempts of a run, newest first.
fn parts_of<'a>(
    run: &'a [&'a TestAttempt],
    parts: &'a [TestAttempt],
) -> impl Iterator<Item = &'a TestAttempt> {
    parts.iter().filter(move |it| run.iter().any(|of| of.invocation_id == it.invocation_id))
}

/// How many cases the reports of these name, one that several of them ran as often.
fn case_count<'a>(of: impl Iterator<Item = &'a TestAttempt>) -> usize {
    of.map(|it| it.cases.len()).sum()
}

/// Milliseconds of all parts of a run whose one attempt passed; `None`: it did not run in parts, or not all are known.
fn millis_of_parts(run: &[&TestAttempt], parts: &[TestAttempt]) -> Option<u64> {
    let count = parts_of(run, parts).next()?.shards;
    let mut newest: BTreeMap<u32, &TestAttempt> = BTreeMap::new();
    for it in parts_of(run, parts).filter(|it| it.shards == count && it.outcome == "passed") {
        newest.entry(it.shard).or_insert(it);
    }
    // Where the runner ignores shards, each part ran all cases.
    let is_cut = case_count(newest.values().copied()) <= case_count(run.iter().copied());
    let is_whole = is_cut && passed(run).count() == 1 && newest.len() == count as usize;
    is_whole.then(|| newest.values().map(|it| it.duration_ms).sum::<Option<u64>>())?
}

/// Seconds that a test takes as a whole, all of its shards or parts together: the median of the newest runs that passed.
fn whole(attempts: &[TestAttempt], parts: &[TestAttempt]) -> Option<f64> {
    let runs = runs(attempts);
    let well = runs.iter().filter(|run| is_whole(run));
    let took = well.filter_map(|run| {
        let of_shards = || passed(run).map(|it| it.duration_ms).sum::<Option<u64>>();
        millis_of_parts(run, parts).or_else(of_shards)
    });
    median(&mut took.take(RUNS).map(|millis| millis as f64 / 1e3).collect::<Vec<_>>())
}

/// The cases of each process of a run, the first process first. Of an attempt that ran in parts each of these set up by
/// itself.
fn processes(run: &[&TestAttempt], parts: &[TestAttempt]) -> Vec<Vec<CaseResult>> {
    let own: Vec<&TestAttempt> = parts_of(run, parts).collect();
    // Where a part has no report, what was put together of all has more.
    let is_known = case_count(own.iter().copied()) >= case_count(run.iter().copied());
    let all = if is_known { &own[..] } else { run };
    all.iter().rev().map(|it| it.cases.iter().map(result).collect()).collect()
}

/// The cases of a run with the seconds that each takes, the set-up of its test apart; `None`: that is not known.
fn cases_of(attempts: &[TestAttempt], parts: &[TestAttempt]) -> BTreeMap<CaseName, Option<f64>> {
    let mut runs = runs(attempts);
    runs.retain(|run| run.iter().any(|it| !it.cases.is_empty()));
    let whole = runs.iter().find(|run| is_whole(run));
    let Some(newest) = whole.or(runs.first()) else { return BTreeMap::new() };
    let test =
        TestKey { instance: String::new(), label: String::new(), configuration: String::new() };
    let (mut history, mut timed) = (History::default(), BTreeSet::new());
    // The last values are the newest ones.
    for cases in runs.iter().rev().flat_map(|run| processes(run, parts)) {
        let run =
            ShardRun { test: &test, command: "", platform: "", is_cached: false, cases: &cases };
        history.add(run);
        let well = cases.into_iter().filter(|it| it.outcome == Outcome::Passed);
        timed.extend(well.filter(|it| it.duration.is_some()).map(|it| it.case));
    }
    let seconds = |case: &CaseResult| match case.outcome {
        Outcome::Skipped => Some(0.0),
        _ if timed.contains(&case.case) => history.case(&test, &case.case, "", ""),
        _ => None,
    };
    let cases = newest.iter().flat_map(|it| it.cases.iter().map(result));
    cases.map(|it| (it.case.clone(), seconds(&it))).collect()
}

fn result(case: &TestCase) -> CaseResult {
    let outcome = match &*case.outcome {
        "passed" => Outcome::Passed,
        "skipped" => Outcome::Skipped,
        "timed_out" => Outcome::TimedOut,
        "infrastructure" => Outcome::Infrastructure,
        _ => Outcome::Failed,
    };
    CaseResult {
        case: CaseName { class: case.class.clone(), name: case.name.clone() },
        outcome,
        duration: case.duration_ms.map(Duration::from_millis),
        message: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(name: &str, outcome: &'static str, millis: Option<u64>) -> TestCase {
        TestCase {
            class: "C".to_owned(),
            name: name.to_owned(),
            attempt: 1,
            outcome: outcome.into(),
            duration_ms: millis,
            excerpt: None,
        }
    }

    fn attempt(
        build: &str,
        (shard, shards): (u32, u32),
        (outcome, millis): (&'static str, u64),
        cases: Vec<TestCase>,
    ) -> TestAttempt {
        TestAttempt {
            invocation_id: build.to_owned(),
            commit: None,
            branch: None,
            run: 1,
            shard,
            shards,
            attempt: 1,
            outcome: outcome.into(),
            started_at: 0,
            duration_ms: Some(millis),
            set_up_ms: None,
            worker: String::new(),
            strategy: String::new(),
            source: "executed".to_owned(),
            action: None,
            log: None,
            signature: None,
            excerpt: None,
            cases,
        }
    }

    #[test]
    fn a_test_takes_what_its_last_whole_runs_took() {
        let of = |build, shard, outcome, millis| {
            attempt(build, (shard, 2), (outcome, millis), Vec::new())
        };
        let mut attempts = vec![
            of("5", 1, "passed", 90_000),
            of("5", 2, "failed", 90_000),
            of("4", 1, "passed", 90_000),
            of("3", 2, "passed", 3_000),
            of("3", 1, "passed", 1_000),
        ];
        assert_eq!(whole(&attempts, &[]), Some(4.0));
        attempts.extend([of("2", 1, "passed", 3_000), of("2", 2, "passed", 3_000)]);
        assert_eq!(whole(&attempts, &[]), Some(5.0));
        let shadow =
            TestAttempt { strategy: "shadow-decide".to_owned(), ..of("6", 1, "passed", 1) };
        let own = TestAttempt { shards: 1, ..shadow };
        attempts.insert(0, own);
        assert_eq!(whole(&attempts, &[]), Some(5.0), "what the server made by itself counts");
        assert_eq!(whole(&[], &[]), None);
    }

    #[test]
    fn an_attempt_in_parts_takes_what_these_take_and_each_sets_up() {
        let passed = |name, millis| case(name, "passed", Some(millis));
        let all = vec![passed("a", 31_000), passed("b", 1_000), passed("c", 32_000)];
        let attempts = [
            attempt("2", (1, 1), ("passed", 33_000), all),
            attempt(
                "1",
                (1, 1),
                ("passed", 36_000),
                vec![passed("b", 31_000), passed("c", 2_000), passed("a", 1_000)],
            ),
        ];
        let part = |shard, millis, cases| attempt("2", (shard, 2), ("passed", millis), cases);
        let parts = [
            part(2, 33_000, vec![passed("c", 32_000)]),
            part(1, 32_000, vec![passed("a", 31_000), passed("b", 1_000)]),
        ];
        assert_eq!(whole(&attempts[..1], &parts), Some(65.0));
        assert_eq!(whole(&attempts[..1], &parts[..1]), Some(33.0), "a part is not known");
        let everything = || Vec::from(["a", "b", "c"].map(|name| passed(name, 1_000)));
        let ignoring = [2, 1].map(|shard| part(shard, 33_000, everything()));
        assert_eq!(whole(&attempts[..1], &ignoring), Some(33.0), "each part ran everything");
        let before = [
            part(2, 33_000, Vec::new()),
            part(1, 32_000, Vec::new()),
            attempt("2", (1, 3), ("passed", 50_000), Vec::new()),
        ];
        assert_eq!(whole(&attempts[..1], &before), Some(65.0), "parts of an earlier attempt");
        let seconds = |parts: &[TestAttempt]| -> Vec<Option<f64>> {
            cases_of(&attempts, parts).into_values().collect()
        };
        let expected = [Some(1.0), Some(1.0), Some(2.0)];
        assert_eq!(seconds(&parts[..]), expected, "the second part set up as well");
        assert_ne!(seconds(&parts[..0]), expected);
    }

    #[test]
    fn cases_are_those_of_the_newest_whole_run_without_the_set_up() {
        let passed = |name, millis| case(name, "passed", Some(millis));
        let attempts = [
            attempt("4", (1, 1), ("failed", 9), vec![case("a", "failed", Some(9_000))]),
            attempt(
                "3",
                (1, 1),
                ("passed", 9),
                vec![
                    passed("b", 37_000),
                    passed("a", 1_000),
                    case("new", "passed", None),
                    case("off", "skipped", None),
                ],
            ),
            attempt("2", (1, 1), ("passed", 9), vec![passed("a", 36_000), passed("b", 2_000)]),
            attempt("1", (1, 1), ("passed", 9), vec![passed("gone", 1), passed("b", 2_000)]),
        ];
        let found = cases_of(&attempts, &[]);
        let found: Vec<_> =
            found.iter().map(|(it, seconds)| (it.name.as_str(), *seconds)).collect();
        let expected = [("a", Some(1.0)), ("b", Some(2.0)), ("new", None), ("off", Some(0.0))];
        assert_eq!(found, expected);
        assert_eq!(cases_of(&attempts[..1], &[]).len(), 1, "one run is better than none");
        assert!(cases_of(&[], &[]).is_empty());
    }
}
