//! Points that follow one another are alike: so many of them tell less than as many independent
//! ones. What they are worth is estimated from the correlation of neighbours, and the variance of
//! every comparison grows by as much.

use super::ranks::ranks;

/// The strongest correlation that is believed: beyond it, hardly any point would count.
const MOST: f64 = 0.99;

/// In standard errors: a correlation below it is taken for none (a test at the level of 5 %), as
/// otherwise chance alone would cost the power to see a bad canary.
const SIGNIFICANT: f64 = 1.645;

/// How much points depend on those before them.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Dependence {
    /// The correlation of neighbours, 0 where there is none or they alternate.
    pub correlation: f64,
    /// The factor by which the variance of a mean (or of ranks) is greater than of independent points.
    pub inflation: f64,
}

impl Dependence {
    /// How many independent points `points` are worth.
    pub fn effective(&self, points: usize) -> f64 {
        points as f64 / self.inflation
    }
}

/// Estimated from both cohorts, each by its own ranks: neither outliers nor a difference between the
/// cohorts count. Both are in the order of time.
pub fn dependence(x: &[f64], y: &[f64]) -> Dependence {
    let (of_x, of_y) = (products(x), products(y));
    let (neighbours, squares) = (of_x.0 + of_y.0, of_x.1 + of_y.1);
    if squares == 0.0 {
        return Dependence { correlation: 0.0, inflation: 1.0 };
    }
    let raw = neighbours / squares;
    // The estimate is too small by about (1 + 3 r) / n (Kendall 1954), n being the length of a series.
    let (all, length) = ((x.len() + y.len()) as f64, x.len().midpoint(y.len()) as f64);
    let found = raw + (1.0 + 3.0 * raw) / length;
    // Where there is one, it is taken for a standard error stronger than it looks: too little of a
    // correction reverts good canaries, too much of it costs some more points.
    let error = ((1.0 - found * found).max(0.0) / all).sqrt();
    let correlation =
        if found * all.sqrt() < SIGNIFICANT { 0.0 } else { (found + error).clamp(0.0, MOST) };
    Dependence { correlation, inflation: (1.0 + correlation) / (1.0 - correlation) }
}

/// The sum of products of neighbours, and of squares, around the mean rank.
fn products(values: &[f64]) -> (f64, f64) {
    let ranks = ranks(values);
    let middle = (values.len() as f64 + 1.0) / 2.0;
    let neighbours = ranks.windows(2).map(|pair| (pair[0] - middle) * (pair[1] - middle)).sum();
    (neighbours, ranks.iter().map(|rank| (rank - middle) * (rank - middle)).sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A series in which each value has `share` of the one before it.
    fn series(random: &mut fastrand::Rng, share: f64, length: usize) -> Vec<f64> {
        let mut last = 0.0;
        let mut next = || {
            last = share * last + random.f64() + random.f64() + random.f64() - 1.5;
            last
        };
        for _ in 0..50 {
            next();
        }
        (0..length).map(|_| next()).collect()
    }

    #[test]
    fn the_correlation_of_neighbours_is_found() {
        let mut random = fastrand::Rng::with_seed(3);
        for share in [0.0, 0.5, 0.8] {
            let mut of = || {
                dependence(&series(&mut random, share, 2_000), &series(&mut random, share, 2_000))
            };
            let found = of();
            assert!((found.correlation - share).abs() < 0.08, "{share}: {found:?}");
        }
    }

    #[test]
    fn constants_and_alternating_values_count_in_full() {
        assert_eq!(dependence(&[1.0; 50], &[2.0; 50]).effective(50), 50.0);
        let alternating: Vec<f64> = (0..50).map(|i| f64::from(i % 2)).collect();
        assert_eq!(dependence(&alternating, &alternating).inflation, 1.0);
        assert_eq!(dependence(&[], &[]).effective(0), 0.0);
    }

    #[test]
    fn a_step_between_the_cohorts_is_no_dependence() {
        let mut random = fastrand::Rng::with_seed(4);
        let (x, y) = (series(&mut random, 0.0, 500), series(&mut random, 0.0, 500));
        let shifted: Vec<f64> = x.iter().map(|x| x + 100.0).collect();
        assert_eq!(dependence(&x, &y), dependence(&shifted, &y));
    }
}
