//! Events out of a total, as errors out of requests: compared exactly, however few there are.

use statrs::function::beta::checked_beta_reg;

/// `bad` of `total` events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counts {
    pub bad: u64,
    pub total: u64,
}

impl Counts {
    /// The share of bad events; NaN where there are no events.
    pub fn rate(&self) -> f64 {
        self.bad as f64 / self.total as f64
    }
}

/// How the rates of two cohorts compare.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Comparison {
    /// The first rate, divided by the second: infinite where only the second is 0.
    pub ratio: f64,
    /// An interval for the ratio.
    pub lower: f64,
    pub upper: f64,
    /// How likely as many or more bad events of the first would be if the rates were equal.
    pub high: f64,
    /// How likely as many or fewer bad events of the first would be if the rates were equal.
    pub low: f64,
}

/// Compares the rates of two cohorts: of all bad events, the first cohort's share is binomial if the rates are equal
/// (the conditional test of two Poisson rates). `None` where a cohort had no events at all.
pub fn compare(x: Counts, y: Counts, confidence: f64) -> Option<Comparison> {
    if x.total == 0 || y.total == 0 {
        return None;
    }
    let all = x.bad + y.bad;
    let expected = x.total as f64 / (x.total as f64 + y.total as f64);
    let outside = (1.0 - confidence) / 2.0;
    // From the first one's share of bad events to the ratio of the rates.
    let ratio = |share: f64| share / (1.0 - share) * (y.total as f64 / x.total as f64);
    let lower = bisect(|share| at_least(x.bad, all, share) < outside);
    let upper = bisect(|share| at_most(x.bad, all, share) > outside);
    Some(Comparison {
        ratio: x.rate() / y.rate(),
        lower: if x.bad == 0 { 0.0 } else { ratio(lower) },
        upper: if y.bad == 0 { f64::INFINITY } else { ratio(upper) },
        high: at_least(x.bad, all, expected),
        low: at_most(x.bad, all, expected),
    })
}

/// How likely at least `count` of `all` are, each with probability `share`.
fn at_least(count: u64, all: u64, share: f64) -> f64 {
    match count {
        0 => 1.0,
        count => checked_beta_reg(count as f64, (all - count) as f64 + 1.0, share).unwrap_or(1.0),
    }
}

fn at_most(count: u64, all: u64, share: f64) -> f64 {
    if count == all { 1.0 } else { 1.0 - at_least(count + 1, all, share) }
}

/// The share up to which `holds`.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    const STEPS: u32 = 60;
    let (mut low, mut high) = (0.0_f64, 1.0);
    for _ in 0..STEPS {
        let middle = low.midpoint(high);
        if holds(middle) { low = middle } else { high = middle }
    }
    low
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(bad: u64, total: u64) -> Counts {
        Counts { bad, total }
    }

    #[test]
    fn few_errors_among_many_requests_are_noticed() {
        // Nine errors against none, at equal traffic: 1 in 512 by chance.
        let found = compare(of(9, 10_000), of(0, 10_000), 0.95).unwrap();
        assert!((found.high - 1.0 / 512.0).abs() < 1e-12, "{found:?}");
        assert_eq!((found.ratio, found.upper), (f64::INFINITY, f64::INFINITY));
        assert!(found.lower > 1.0, "{found:?}");
    }

    #[test]
    fn traffic_of_different_size_is_taken_into_account() {
        let found = compare(of(10, 1_000), of(1_000, 100_000), 0.95).unwrap();
        assert!((found.ratio - 1.0).abs() < 1e-12 && found.high > 0.4 && found.low > 0.4);
        assert!(found.lower < 1.0 && found.upper > 1.0, "{found:?}");
    }

    #[test]
    fn known_interval() {
        // R: poisson.test(c(11, 6), c(800, 1083)): ratio 2.4818, 0.8359 to 8.2170 (rounded)
        let found = compare(of(11, 800), of(6, 1083), 0.95).unwrap();
        assert!((found.ratio - 2.481_875).abs() < 1e-6, "{found:?}");
        assert!(found.lower > 0.80 && found.lower < 0.87, "{found:?}");
        assert!(found.upper > 7.8 && found.upper < 8.5, "{found:?}");
    }

    #[test]
    fn nothing_is_compared_with_nothing() {
        assert_eq!(compare(of(0, 0), of(1, 10), 0.95), None);
        let none = compare(of(0, 10), of(0, 10), 0.95).unwrap();
        assert!(none.ratio.is_nan() && none.high == 1.0 && none.low == 1.0, "{none:?}");
    }
}
