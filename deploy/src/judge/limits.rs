//! What no canary may do, whatever its baseline does: absolute limits, error budgets that burn too
//! fast, crash loops. A breach needs no statistics and waits for none.

use kiln_net::counts::times;

use super::counts::Counts;
use super::judgement::Class;
use super::series::{mean, quantile, sorted};

/// What of a canary's points a limit is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Statistic {
    #[default]
    Mean,
    Median,
    P95,
    P99,
    Max,
    /// The last point that has a value.
    Last,
}

impl Statistic {
    pub const NAMES: [(&'static str, Self); 6] = [
        ("mean", Self::Mean),
        ("median", Self::Median),
        ("p95", Self::P95),
        ("p99", Self::P99),
        ("max", Self::Max),
        ("last", Self::Last),
    ];

    fn of(self, values: &[f64]) -> Option<f64> {
        let at = |share| quantile(&sorted(values), share);
        match self {
            Self::Mean => Some(mean(values)).filter(|mean| !mean.is_nan()),
            Self::Median => at(0.5),
            Self::P95 => at(0.95),
            Self::P99 => at(0.99),
            Self::Max => at(1.0),
            Self::Last => values.last().copied(),
        }
    }

    fn name(self) -> &'static str {
        Self::NAMES.iter().find(|(_, one)| *one == self).map_or("", |(name, _)| name)
    }
}

/// The values between which a metric of the canary must be.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Limits {
    pub max: Option<f64>,
    pub min: Option<f64>,
    pub statistic: Statistic,
}

/// The class of the limit that is broken, and how, in words.
pub type Breach = (Class, String);

impl Limits {
    /// Says how points of the canary break the limits; `None`: they do not.
    pub fn breach(&self, values: &[f64]) -> Option<Breach> {
        let found = self.statistic.of(values)?;
        self.broken(found, self.statistic.name())
    }

    /// Says how the rate of the canary's events breaks the limits; `None`: it does not.
    pub fn breach_of_rate(&self, counts: Counts) -> Option<Breach> {
        self.broken(counts.rate(), "rate")
    }

    fn broken(&self, found: f64, what: &str) -> Option<Breach> {
        match (self.max, self.min) {
            (Some(max), _) if found > max => {
                Some((Class::High, format!("its {what} of {found} is above the limit of {max}")))
            }
            (_, Some(min)) if found < min => {
                Some((Class::Low, format!("its {what} of {found} is below the limit of {min}")))
            }
            _ => None,
        }
    }
}

/// A canary that errs this many times as often as its baseline is reverted at once ...
pub const HARD_RATIO: f64 = 5.0;
/// ... if it had at least so many errors.
pub const HARD_ERRORS: u64 = 30;

/// Says in words how a canary errs so much more than its baseline that nothing has to be waited for; `None`: it does
/// not.
pub fn hard_breach(experiment: Counts, control: Counts) -> Option<Breach> {
    let (own, other) = (experiment.rate(), control.rate());
    let is_hard = experiment.bad >= HARD_ERRORS && control.total > 0 && own >= HARD_RATIO * other;
    is_hard.then(|| {
        let text = format!(
            "{} of {} failed, against {} of {} in the baseline: at least {HARD_RATIO} times as often",
            experiment.bad, experiment.total, control.bad, control.total
        );
        (Class::High, text)
    })
}

/// An error budget over a long window and a short one, which says that it still burns.
#[derive(Debug, Clone, PartialEq)]
pub struct Burn {
    pub name: String,
    /// The share of events that must be good, such as 0.999.
    pub objective: f64,
    /// How many times as fast as the objective allows the budget may burn: 14.4 for an hour and five
    /// minutes, 6 for six hours and half an hour.
    pub factor: f64,
    pub long: Counts,
    pub short: Counts,
}

impl Burn {
    /// How many times as fast as the objective allows. NaN where nothing happened.
    pub fn rate(&self, window: Counts) -> f64 {
        window.rate() / (1.0 - self.objective)
    }

    /// Says in words that both windows burn too fast; `None`: they do not.
    pub fn breach(&self) -> Option<String> {
        let (long, short) = (self.rate(self.long), self.rate(self.short));
        (long >= self.factor && short >= self.factor).then(|| {
            format!(
                "{}: the error budget burns {long:.1} times too fast in the long window and {short:.1} times \
                 in the short one, where {} is the limit",
                self.name, self.factor
            )
        })
    }

    pub fn is_silent(&self) -> bool {
        self.long.total == 0 || self.short.total == 0
    }
}

/// How often instances of the canary crashed, and how often is a crash loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Crashes {
    pub count: u64,
    pub limit: u64,
}

/// Crashes from which on the canary is in a crash loop, where no limit is given.
pub const CRASH_LIMIT: u64 = 3;

impl Crashes {
    pub fn breach(&self) -> Option<String> {
        (self.count >= self.limit).then(|| {
            let (count, limit) = (times(self.count), times(self.limit));
            format!("the canary crashed {count}; {limit} is a crash loop")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(bad: u64, total: u64) -> Counts {
        Counts { bad, total }
    }

    #[test]
    fn limits_are_about_a_statistic_of_the_canary() {
        let limits = Limits { max: Some(250.0), min: None, statistic: Statistic::P99 };
        let mut values = vec![100.0; 200];
        values[0] = 1e6;
        assert_eq!(limits.breach(&values), None, "one of two hundred");
        values[1..4].fill(300.0);
        let (class, text) = limits.breach(&values).unwrap();
        assert!(class == Class::High && text.contains("above the limit of 250"), "{text}");
        assert_eq!(limits.breach(&[]), None);
        let floor = Limits { max: None, min: Some(0.5), statistic: Statistic::Last };
        assert!(floor.breach(&[1.0, 0.1]).is_some());
        assert!(floor.breach(&[0.1, 1.0]).is_none());
    }

    #[test]
    fn both_windows_have_to_burn() {
        let burn = |long, short| Burn {
            name: "availability".to_owned(),
            objective: 0.999,
            factor: 14.4,
            long,
            short,
        };
        let text = burn(counts(150, 10_000), counts(20, 1_000)).breach().unwrap();
        assert!(text.contains("burns 15.0 times"), "{text}");
        assert_eq!(burn(counts(150, 10_000), counts(1, 1_000)).breach(), None, "it is over");
        assert_eq!(burn(counts(10, 10_000), counts(20, 1_000)).breach(), None, "a blip");
        assert_eq!(burn(counts(0, 0), counts(0, 0)).breach(), None);
        assert!(burn(counts(0, 0), counts(0, 1)).is_silent());
    }

    #[test]
    fn hard_breaches_need_many_errors_and_a_baseline() {
        assert!(hard_breach(counts(30, 100), counts(6, 100)).is_some());
        assert!(hard_breach(counts(29, 100), counts(0, 100)).is_none());
        assert!(hard_breach(counts(30, 100), counts(7, 100)).is_none());
        assert!(hard_breach(counts(30, 100), counts(0, 0)).is_none());
        assert!(Crashes { count: 3, limit: 3 }.breach().is_some());
        assert!(Crashes { count: 2, limit: 3 }.breach().is_none());
    }
}
