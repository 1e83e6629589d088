//! Kayenta's interval for the shift between two samples: what R's `wilcox.test` computes from the
//! normal approximation.

use super::root::root;
use crate::judge::judgement::Interval;
use crate::judge::normal;
use crate::judge::ranks::{rank_sum, variance};

/// Whether a shift by `mu` would still leave a difference, in standard deviations, beyond
/// `quantile`. Samples are sorted. `None` where all values are equal.
fn difference(x: &[f64], y: &[f64], mu: f64, quantile: f64) -> Option<f64> {
    let (m, n) = (x.len() as f64, y.len() as f64);
    let sum = rank_sum(x, y, mu);
    let beyond = sum.u - m * n / 2.0;
    let correction = if beyond == 0.0 { 0.0 } else { beyond.signum() / 2.0 };
    let spread = variance(m, n, sum.ties).sqrt();
    (spread > 0.0).then(|| (beyond - correction) / spread - quantile)
}

/// The confidence interval of the shift between two sorted samples that are not empty. `None` where it cannot be
/// computed.
pub fn interval(x: &[f64], y: &[f64], confidence: f64) -> Option<Interval> {
    let low = x.first()? - y.last()?;
    let high = x.last()? - y.first()?;
    let z = normal::exceeded_by((1.0 - confidence) / 2.0);
    let function =
        |quantile: f64| move |mu: f64| difference(x, y, mu, quantile).unwrap_or(f64::NAN);
    let limit = |quantile: f64| {
        let at_low = difference(x, y, low, quantile)?;
        let at_high = difference(x, y, high, quantile)?;
        Some(match () {
            () if at_low <= 0.0 => low,
            () if at_high >= 0.0 => high,
            () => root(low, high, function(quantile)),
        })
    };
    let (lower, upper) = (limit(z)?, limit(-z)?);
    Some(Interval { lower, upper, estimate: root(low, high, function(0.0)), confidence })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_interval() {
        let found = interval(&[10.0, 20.0, 30.0, 40.0], &[1.0, 2.0, 3.0, 4.0], 0.95).unwrap();
        let close = |a: f64, b: f64| (a - b).abs() < 1e-6;
        assert!(close(found.lower, 6.0) && close(found.upper, 39.0), "{found:?}");
        assert!(close(found.estimate, 22.5), "{found:?}");
        assert_eq!(interval(&[1.0; 3], &[1.0; 4], 0.95), None);
    }

    #[test]
    fn it_is_as_coarse_as_its_root_finder() {
        let of = |scale: f64| {
            let mut x: Vec<f64> = (0..30).map(|i| (10.0 + f64::from(i % 10)) * scale).collect();
            x.sort_by(f64::total_cmp);
            let y: Vec<f64> = x.iter().map(|x| x * 0.6).collect();
            let found = interval(&x, &y, 0.98).unwrap();
            (found.lower / scale, found.upper / scale)
        };
        let close = |(a, b): (f64, f64), c: f64, d: f64| (a - c).abs() < 0.1 && (b - d).abs() < 0.1;
        assert!(close(of(1.0), 4.0, 7.6), "{:?}", of(1.0));
        assert!(close(of(1e-5), 3.6, 8.0), "{:?}", of(1e-5));
        assert!(close(of(1e-6), -1.4, 13.0), "{:?}", of(1e-6));
    }
}
