//! What flaky tests cost, counted so that retries hide none of it.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flakes::Mixture;
use crate::model::Time;

/// Whom a figure is about.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Key {
    /// The owner, where there is one.
    pub team: Option<String>,
    pub label: String,
    pub day: u64,
}

/// The first attempt of a test in a build that really ran: retries and cached results are not given.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub key: Key,
    pub failed: bool,
    /// Equal inputs passed, by whichever retry or shadow run.
    pub passed_too: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    pub first_attempts: u64,
    pub flaky: u64,
}

impl Counts {
    /// The share of first attempts that failed though equal inputs pass; nothing when there were none.
    pub fn rate(&self) -> Option<f64> {
        (self.first_attempts > 0).then(|| self.flaky as f64 / self.first_attempts as f64)
    }
}

/// Flake rates, by whichever part of the key is asked for.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct FlakeRate {
    pub all: Counts,
    pub by_team: BTreeMap<String, Counts>,
    pub by_label: BTreeMap<String, Counts>,
    pub by_day: BTreeMap<u64, Counts>,
}

pub fn flake_rate(attempts: impl IntoIterator<Item = Attempt>) -> FlakeRate {
    let mut rate = FlakeRate::default();
    for attempt in attempts {
        let flaky = u64::from(attempt.failed && attempt.passed_too);
        let Key { team, label, day } = attempt.key;
        let FlakeRate { all, by_team, by_label, by_day } = &mut rate;
        let team = team.map(|it| by_team.entry(it).or_default());
        let counts = [all, by_label.entry(label).or_default(), by_day.entry(day).or_default()];
        for counts in counts.into_iter().chain(team) {
            counts.first_attempts += 1;
            counts.flaky += flaky;
        }
    }
    rate
}

/// The probability that a suite whose tests are all well is red: each test fails its first attempt and all
/// its retries. Tests are taken to fail independently; since many fail together, what is observed is less.
pub fn predicted_false_red<'a>(rates: impl IntoIterator<Item = &'a Mixture>, retries: u32) -> f64 {
    let attempts = retries.saturating_add(1);
    let green: f64 = rates.into_iter().map(|it| (-it.straight(attempts)).ln_1p()).sum();
    1.0 - green.exp()
}

/// A build that ran tests.
#[derive(Clone, Copy, Debug)]
pub struct Build {
    pub started: Time,
    pub took: Duration,
    /// Whether some test failed in all its attempts.
    pub red: bool,
    /// Whether every such failure was flaky: equal inputs pass.
    pub flaky_only: bool,
    /// What retries of flaky tests took, in a red build or a green one.
    pub retries: Duration,
    /// Whether somebody waited for the build.
    pub waited_for: bool,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FalseRed {
    pub builds: u64,
    /// Red, although no test is broken.
    pub false_red: u64,
}

impl FalseRed {
    pub fn observed(builds: &[Build]) -> Self {
        // Builds with a broken test are red whether tests are flaky or not.
        let well = builds.iter().filter(|it| !it.red || it.flaky_only);
        well.fold(Self::default(), |sum, it| Self {
            builds: sum.builds + 1,
            false_red: sum.false_red + u64::from(it.red),
        })
    }

    pub fn rate(&self) -> Option<f64> {
        (self.builds > 0).then(|| self.false_red as f64 / self.builds as f64)
    }
}

/// Time that people lost: they waited for retries, and after a false red they had to look, and wait for the
/// whole build again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lost {
    pub retries: Duration,
    pub rebuilds: Duration,
    pub interruptions: Duration,
}

impl Lost {
    /// `interruption` is what one false red costs a person besides the build.
    pub fn over(builds: &[Build], interruption: Duration) -> Self {
        builds.iter().filter(|it| it.waited_for).fold(Self::default(), |mut sum, it| {
            sum.retries = sum.retries.saturating_add(it.retries);
            if it.red && it.flaky_only {
                sum.rebuilds = sum.rebuilds.saturating_add(it.took);
                sum.interruptions = sum.interruptions.saturating_add(interruption);
            }
            sum
        })
    }

    pub fn total(&self) -> Duration {
        self.retries.saturating_add(self.rebuilds).saturating_add(self.interruptions)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::flakes::Part;

    fn attempt(label: &str, team: Option<&str>, failed: bool, passed_too: bool) -> Attempt {
        let key = Key { team: team.map(str::to_owned), label: label.to_owned(), day: 3 };
        Attempt { key, failed, passed_too }
    }

    /// A distribution that is as good as certain of one rate.
    fn rate(rate: f64) -> Mixture {
        let (failures, passes) = (rate * 1e9, (1.0 - rate) * 1e9);
        Mixture::new([Part { weight: 1.0, failures, passes }]).unwrap()
    }

    #[test]
    fn retries_hide_no_flake_and_broken_tests_are_none() {
        let it = flake_rate([
            attempt("a", Some("t"), true, true),
            attempt("a", Some("t"), false, false),
            attempt("b", Some("t"), true, false),
            attempt("c", None, false, false),
        ]);
        assert_eq!(it.all, Counts { first_attempts: 4, flaky: 1 });
        assert_eq!(it.by_label["a"].rate(), Some(0.5));
        assert_eq!(it.by_label["b"].flaky, 0);
        assert_eq!(it.by_team["t"].first_attempts, 3);
        assert_eq!(it.by_day[&3], it.all);
        assert_eq!(Counts::default().rate(), None);
    }

    #[test]
    fn five_percent_of_a_hundred_tests_fail_nearly_every_run() {
        let rates = vec![rate(0.05); 100];
        let near = |retries, expected: f64| {
            let it = predicted_false_red(&rates, retries);
            assert!((it - expected).abs() < 5e-4, "{it}");
        };
        near(0, 0.994);
        near(1, 1.0 - 0.9975_f64.powi(100));
        assert_eq!(predicted_false_red(&[], 0), 0.0);
    }

    #[test]
    fn time_is_lost_where_somebody_waits() {
        let minutes = |it: u64| Duration::from_secs(it * 60);
        let build = Build {
            started: Time(0),
            took: minutes(10),
            red: true,
            flaky_only: true,
            retries: minutes(1),
            waited_for: true,
        };
        let green = Build { red: false, flaky_only: false, ..build };
        let broken = Build { flaky_only: false, ..build };
        let nightly = Build { waited_for: false, ..build };
        let builds = [build, green, broken, nightly];
        let lost = Lost::over(&builds, minutes(15));
        assert_eq!([lost.retries, lost.rebuilds], [minutes(3), minutes(10)]);
        assert_eq!(lost.total(), minutes(28));
        assert_eq!(FalseRed::observed(&builds), FalseRed { builds: 3, false_red: 2 });
        assert_eq!(FalseRed::observed(&[]).rate(), None);
    }

    proptest! {
        #[test]
        fn prediction_is_a_probability_that_retries_lower(rates in proptest::collection::vec(0.001_f64..0.9, 0..50)) {
            let rates: Vec<_> = rates.into_iter().map(rate).collect();
            let (none, one) = (predicted_false_red(&rates, 0), predicted_false_red(&rates, 1));
            prop_assert!((0.0..=1.0).contains(&none) && one <= none + 1e-12);
        }
    }
}
