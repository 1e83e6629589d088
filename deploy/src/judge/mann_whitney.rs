//! The Mann-Whitney U test: exact for small samples without ties, else by the normal approximation
//! with a correction for ties and for continuity (as R's `wilcox.test` has it).

use super::normal;
use super::ranks::{rank_sum, variance};

/// Samples of fewer values are tested exactly.
pub const EXACT_BELOW: usize = 50;

/// How likely a difference like the one that is seen would be if there were none.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Test {
    /// Pairs in which the first sample's value is the greater one; of equal ones, half.
    pub u: f64,
    /// That of a first sample that is as high as this one, or higher.
    pub high: f64,
    /// That of a first sample that is as low as this one, or lower.
    pub low: f64,
    pub exact: bool,
}

/// Whether the exact distribution is used: it knows no ties and takes values for independent.
/// `inflation`: see [`Dependence`](super::autocorrelation::Dependence).
pub fn is_exact(m: usize, n: usize, ties: f64, inflation: f64) -> bool {
    m < EXACT_BELOW && n < EXACT_BELOW && ties == 0.0 && inflation <= 1.0
}

/// Compares sorted samples. `inflation`: by how much the variance is greater than that of
/// independent values. `None` where one is empty or all values are equal.
pub fn test(x: &[f64], y: &[f64], inflation: f64) -> Option<Test> {
    let (m, n) = (x.len() as f64, y.len() as f64);
    let sum = rank_sum(x, y, 0.0);
    let spread = (variance(m, n, sum.ties) * inflation).sqrt();
    if x.is_empty() || y.is_empty() || spread.is_nan() || spread <= 0.0 {
        return None;
    }
    if is_exact(x.len(), y.len(), sum.ties, inflation) {
        let distribution = Distribution::new(x.len(), y.len());
        let (high, low) = (distribution.at_most(m * n - sum.u), distribution.at_most(sum.u));
        return Some(Test { u: sum.u, high, low, exact: true });
    }
    let beyond = sum.u - m * n / 2.0;
    let high = normal::above((beyond - 0.5) / spread);
    let low = normal::above((-beyond - 0.5) / spread);
    Some(Test { u: sum.u, high, low, exact: false })
}

/// The exact distribution of U for samples without ties: by its symmetry, the lower half.
pub struct Distribution {
    /// How likely each value is, from 0 to half of the greatest one.
    shares: Vec<f64>,
    greatest: usize,
}

impl Distribution {
    /// The distribution for samples of `m` and `n` values. Takes m² n steps.
    pub fn new(m: usize, n: usize) -> Self {
        let greatest = m * n;
        // Of the Gaussian binomial coefficient, the product of (1 - q^(n+i)) / (1 - q^i), each
        // coefficient divided by the sum of all, so that none grows too large.
        let mut shares = vec![0.0; greatest / 2 + 1];
        shares[0] = 1.0;
        for i in 1..=m {
            for place in (n + i..shares.len()).rev() {
                shares[place] -= shares[place - n - i];
            }
            for place in i..shares.len() {
                shares[place] += shares[place - i];
            }
            let fewer = i as f64 / (n + i) as f64;
            shares.iter_mut().for_each(|share| *share *= fewer);
        }
        Self { shares, greatest }
    }

    /// How likely a value of at most `u` is.
    pub fn at_most(&self, u: f64) -> f64 {
        let u = u.max(-1.0).floor();
        if 2.0 * u < self.greatest as f64 {
            return self.shares.iter().take((u + 1.0) as usize).sum::<f64>().clamp(0.0, 1.0);
        }
        1.0 - self.at_most(self.greatest as f64 - u - 1.0)
    }

    /// The least value that at most `share` of all are below, with it: R's `qwilcox`.
    pub fn quantile(&self, share: f64) -> usize {
        let mut sum = 0.0;
        let least = self.shares.iter().position(|of| {
            sum += of;
            // What rounding takes from a share that is met exactly.
            sum >= share * (1.0 - 64.0 * f64::EPSILON)
        });
        least.unwrap_or(self.greatest / 2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sums of every choice of `m` ranks out of `m + n`.
    fn counted(m: usize, n: usize) -> Vec<f64> {
        let mut counts = vec![0.0; m * n + 1];
        for choice in (0_u32..1 << (m + n)).filter(|choice| choice.count_ones() as usize == m) {
            let ranks: usize = (0..m + n).filter(|rank| choice & (1 << rank) != 0).sum();
            counts[ranks - m * (m - 1) / 2] += 1.0;
        }
        let all: f64 = counts.iter().sum();
        counts.iter().map(|count| count / all).collect()
    }

    #[test]
    fn the_exact_distribution_is_that_of_all_choices() {
        for (m, n) in [(1, 1), (3, 2), (2, 7), (5, 5), (6, 8)] {
            let (distribution, counted) = (Distribution::new(m, n), counted(m, n));
            let mut sum = 0.0;
            for (u, share) in counted.iter().enumerate() {
                sum += share;
                let got = distribution.at_most(u as f64);
                assert!((got - sum).abs() < 1e-12, "{m} {n} {u}: {got} {sum}");
            }
        }
    }

    #[test]
    fn the_largest_exact_distribution_meets_the_approximation() {
        let distribution = Distribution::new(49, 49);
        let spread = variance(49.0, 49.0, 0.0).sqrt();
        for z in [0.5, 1.0, 2.0, 2.5] {
            let u = (1200.5 - z * spread).floor();
            let approximate = normal::above((1200.5 - u - 0.5) / spread);
            let exact = distribution.at_most(u);
            assert!((exact / approximate - 1.0).abs() < 0.1, "{exact} {approximate}");
        }
    }

    fn either(test: &Test) -> f64 {
        (2.0 * test.high.min(test.low)).min(1.0)
    }

    #[test]
    fn known_p_values() {
        // R: wilcox.test(c(10,20,30,40), c(1,2,3,4))$p.value
        let test4 = test(&[10.0, 20.0, 30.0, 40.0], &[1.0, 2.0, 3.0, 4.0], 1.0).unwrap();
        assert!(test4.exact && (either(&test4) - 2.0 / 70.0).abs() < 1e-12, "{test4:?}");
        // By hand: U = 2.5, the variance 16/12 (9 - 36/56), so z = 5 / 3.338.
        let ties = test(&[1.0, 2.0, 2.0, 3.0], &[2.0, 3.0, 4.0, 4.0], 1.0).unwrap();
        assert!(!ties.exact && (either(&ties) - 0.134_2).abs() < 5e-4, "{ties:?}");
        assert_eq!(test(&[1.0], &[1.0], 1.0), None);
        assert_eq!(test(&[], &[1.0], 1.0), None);
    }

    #[test]
    fn quantiles_are_those_of_r() {
        // R: qwilcox(0.025, 4, 4), qwilcox(0.025, 10, 10), qwilcox(0.01, 6, 8)
        assert_eq!(Distribution::new(4, 4).quantile(0.025), 1);
        assert_eq!(Distribution::new(10, 10).quantile(0.025), 24);
        assert_eq!(Distribution::new(6, 8).quantile(0.01), 7);
    }
}
