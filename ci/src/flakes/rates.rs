//! How often tests fail: mixtures of Beta distributions over the failure rate of a test.

use serde::{Deserialize, Serialize};
use statrs::function::beta::{checked_beta_reg, ln_beta};

/// More runs than these are scaled down to as many. Runs of one test are not so independent, nor its rate so
/// steady, that more of them would say more; and the incomplete Beta function stays exact.
const MAX_RUNS: f64 = 2_000.0;

/// The share of tests that are flaky: of 22,245 that ran 10,000 times and more each, 811 failed now and then.
const FLAKY_SHARE: f64 = 811.0 / 22_245.0;

/// One Beta distribution of a mixture; `failures` and `passes` are its two parameters, also called alpha and
/// beta.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Part {
    pub weight: f64,
    pub failures: f64,
    pub passes: f64,
}

/// What is believed about a failure rate. Weights sum to 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Mixture(Vec<Part>);

impl Mixture {
    /// Nothing when there is no part, or one with a number that is not positive and finite.
    pub fn new(parts: impl IntoIterator<Item = Part>) -> Option<Self> {
        let parts: Vec<_> = parts.into_iter().collect();
        let fine = |it: f64| it.is_finite() && it > 0.0;
        let valid = parts.iter().all(|it| fine(it.weight) && fine(it.failures) && fine(it.passes));
        (valid && !parts.is_empty()).then(|| Self(parts).normalised())
    }

    /// Rates of tests known to be flaky, fitted (least squares) to what is published of these 811: quantiles
    /// .5, .75 and .9 at 0.7 %, 16 % and 55 %; of those that have just failed, .54, .75, .86, .92 and .97 show
    /// a pass within 1, 2, 3, 4 and 6 further runs. The worst error of the fit is .006.
    pub fn published() -> Self {
        Self(vec![
            Part { weight: 0.724, failures: 0.847, passes: 139.65 },
            Part { weight: 0.151, failures: 7.431, passes: 25.09 },
            Part { weight: 0.125, failures: 59.97, passes: 42.87 },
        ])
    }

    /// Rates of tests of which nothing is known: most never fail by chance, some are flaky as published, and
    /// a few may be anything.
    pub fn of_tests() -> Self {
        const ANYTHING: f64 = 0.004;
        let mut parts = vec![Part { weight: 1.0 - FLAKY_SHARE, failures: 0.05, passes: 2_000.0 }];
        parts.extend(
            Self::published()
                .0
                .into_iter()
                .map(|part| Part { weight: part.weight * FLAKY_SHARE * (1.0 - ANYTHING), ..part }),
        );
        let weight = FLAKY_SHARE * ANYTHING;
        parts.push(Part { weight, failures: 1.0, passes: 1.0 });
        Self(parts).normalised()
    }

    /// Every rate is as likely as any other. About 300 clean runs then make a rate below 1 % 95 % sure.
    pub fn uniform() -> Self {
        Self(vec![Part { weight: 1.0, failures: 1.0, passes: 1.0 }])
    }

    pub fn parts(&self) -> &[Part] {
        &self.0
    }

    /// What is believed after so many failures and passes more. Negative and infinite counts are taken for
    /// none.
    pub fn after(&self, failures: f64, passes: f64) -> Self {
        let count = |it: f64| if it.is_finite() { it.max(0.0) } else { 0.0 };
        let (failures, passes) = (count(failures), count(passes));
        let scale = (MAX_RUNS / (failures + passes).max(1.0)).min(1.0);
        let (failures, passes) = (failures * scale, passes * scale);
        let logs: Vec<_> =
            self.0.iter().map(|it| it.weight.ln() + it.evidence(failures, passes)).collect();
        let most = logs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let parts = self.0.iter().zip(logs).map(|(part, log)| Part {
            // A weight of zero could never grow again.
            weight: (log - most).exp().max(f64::MIN_POSITIVE),
            failures: part.failures + failures,
            passes: part.passes + passes,
        });
        Self(parts.collect()).normalised()
    }

    /// The expected failure rate.
    pub fn mean(&self) -> f64 {
        self.straight(1)
    }

    /// The probability that the next `n` runs all fail.
    pub fn straight(&self, n: u32) -> f64 {
        let all: f64 =
            self.0.iter().map(|it| it.weight * it.evidence(f64::from(n), 0.0).exp()).sum();
        all.clamp(0.0, 1.0)
    }

    /// The probability that the rate is above `rate`.
    pub fn above(&self, rate: f64) -> f64 {
        1.0 - self.below(rate)
    }

    /// The probability that the rate is at most `rate`.
    pub fn below(&self, rate: f64) -> f64 {
        if rate >= 1.0 {
            return 1.0;
        }
        let rate = rate.max(0.0);
        let part = |it: &Part| {
            // It refuses what cannot be here: parameters are positive, the rate is between 0 and 1.
            checked_beta_reg(it.failures, it.passes, rate).unwrap_or(0.0)
        };
        self.0.iter().map(|it| it.weight * part(it)).sum::<f64>().clamp(0.0, 1.0)
    }

    fn normalised(mut self) -> Self {
        let sum: f64 = self.0.iter().map(|it| it.weight).sum();
        for part in &mut self.0 {
            part.weight = (part.weight / sum).max(f64::MIN_POSITIVE);
        }
        self
    }
}

impl Part {
    /// The logarithm of the probability of these outcomes, in one given order.
    fn evidence(&self, failures: f64, passes: f64) -> f64 {
        ln_beta(self.failures + failures, self.passes + passes)
            - ln_beta(self.failures, self.passes)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn near(value: f64, expected: f64, error: f64) {
        assert!((value - expected).abs() <= error, "{value} is not {expected}");
    }

    #[test]
    fn the_published_distribution_comes_out() {
        let flakes = Mixture::published();
        for (rate, quantile) in [(0.007, 0.5), (0.16, 0.75), (0.55, 0.9)] {
            near(flakes.below(rate), quantile, 0.01);
        }
        for (reruns, passes) in [(1, 0.54), (2, 0.75), (3, 0.86), (4, 0.92), (6, 0.97)] {
            near(1.0 - flakes.straight(reruns + 1) / flakes.mean(), passes, 0.005);
        }
    }

    #[test]
    fn about_three_hundred_clean_runs_make_a_low_rate_sure() {
        assert!(Mixture::uniform().after(0.0, 297.0).below(0.01) < 0.95);
        assert!(Mixture::uniform().after(0.0, 298.0).below(0.01) >= 0.95);
    }

    #[test]
    fn a_single_beta_is_the_textbook_one() {
        let it = Mixture::new([Part { weight: 3.0, failures: 2.0, passes: 3.0 }]).unwrap();
        near(it.mean(), 0.4, 1e-12);
        near(it.straight(2), 2.0 * 3.0 / (5.0 * 6.0), 1e-12);
        // I_x(2, 3) = 1 - (1-x)^4 - 4x(1-x)^3
        near(it.below(0.3), 1.0 - 0.7_f64.powi(4) - 4.0 * 0.3 * 0.7_f64.powi(3), 1e-12);
        assert_eq!(Mixture::new([]), None);
        assert_eq!(Mixture::new([Part { weight: 1.0, failures: 0.0, passes: 1.0 }]), None);
    }

    proptest! {
        #[test]
        fn posteriors_are_probabilities_and_grow_with_failures(
            failures in 0_u32..5_000, passes in 0_u32..200_000, rate in 0.0_f64..1.0
        ) {
            let (failures, passes) = (f64::from(failures), f64::from(passes));
            let before = Mixture::of_tests().after(failures, passes);
            let after = Mixture::of_tests().after(failures + 1.0, passes);
            for it in [&before, &after] {
                prop_assert!((0.0..=1.0).contains(&it.above(rate)));
                prop_assert!((it.above(rate) + it.below(rate) - 1.0).abs() < 1e-9);
                prop_assert!((0.0..=1.0).contains(&it.mean()));
                prop_assert!(it.straight(3) <= it.straight(2) + 1e-15);
            }
            prop_assert!(after.above(rate) >= before.above(rate) - 1e-9);
            prop_assert!(after.mean() >= before.mean() - 1e-9);
            let clean = Mixture::of_tests().after(failures, passes + 1.0);
            prop_assert!(clean.above(rate) <= before.above(rate) + 1e-9);
        }

        #[test]
        fn odd_counts_do_no_harm(failures in proptest::num::f64::ANY, passes in proptest::num::f64::ANY) {
            let it = Mixture::of_tests().after(failures, passes);
            prop_assert!((0.0..=1.0).contains(&it.above(0.02)));
            prop_assert!(it.mean().is_finite());
        }
    }
}
