//! By how much one sample is higher than another: Hodges and Lehmann's estimate, the median of all
//! differences between a value of one and a value of the other, and an interval for it. Both are
//! exact: the difference of a given rank is found without listing the differences, in at most 64
//! passes over the samples.

use super::mann_whitney::{Distribution, is_exact};
use super::normal;
use super::ranks::variance;

/// An interval for the shift. Where there are too few values for its confidence, it has no limits
/// (minus and plus infinity).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shift {
    pub estimate: f64,
    pub lower: f64,
    pub upper: f64,
}

/// The shift between two sorted samples. `ties`: of both together; `inflation`: by how much the variance of U is
/// greater than that of independent values. `None` where a sample is empty.
pub fn shift(x: &[f64], y: &[f64], confidence: f64, ties: f64, inflation: f64) -> Option<Shift> {
    let pairs = x.len() as u64 * y.len() as u64;
    let estimate = match pairs {
        0 => return None,
        odd if odd % 2 == 1 => ranked(x, y, odd.div_ceil(2)),
        even => ranked(x, y, even / 2).midpoint(ranked(x, y, even / 2 + 1)),
    };
    let outside = (1.0 - confidence) / 2.0;
    let (lower, upper) = match place(x.len(), y.len(), outside, ties, inflation) {
        0 => (f64::NEG_INFINITY, f64::INFINITY),
        place => (ranked(x, y, place), ranked(x, y, pairs + 1 - place)),
    };
    Some(Shift { estimate, lower, upper })
}

/// The rank of the difference that is the lower limit; 0 where there is none.
fn place(m: usize, n: usize, outside: f64, ties: f64, inflation: f64) -> u64 {
    if is_exact(m, n, ties, inflation) {
        return Distribution::new(m, n).quantile(outside) as u64;
    }
    let (m, n) = (m as f64, n as f64);
    // Without the correction for ties, which holds for no shift alone: the interval is the wider one.
    let spread = (variance(m, n, 0.0) * inflation).sqrt();
    (m * n / 2.0 - normal::exceeded_by(outside) * spread).max(0.0) as u64
}

/// The difference x - y of that rank, 1 for the least.
fn ranked(x: &[f64], y: &[f64], rank: u64) -> f64 {
    let ends = |x: Option<&f64>, y: Option<&f64>| match (x, y) {
        (Some(x), Some(y)) => ordered(x - y),
        _ => 0,
    };
    let (mut low, mut high) = (ends(x.first(), y.last()), ends(x.last(), y.first()));
    while low < high {
        let middle = low.midpoint(high);
        // Of two neighbours the midpoint may be either, by its sign.
        let middle = middle.clamp(low, high - 1);
        match at_most(x, y, value(middle)) >= rank {
            true => high = middle,
            false => low = middle + 1,
        }
    }
    value(low)
}

/// Pairs whose difference is at most `limit`.
fn at_most(x: &[f64], y: &[f64], limit: f64) -> u64 {
    let (mut count, mut first) = (0, 0);
    for x in x {
        let rest = y.get(first..).unwrap_or_default();
        first += rest.iter().take_while(|y| x - **y > limit).count();
        count += (y.len() - first) as u64;
    }
    count
}

/// Numbers as integers in the same order.
fn ordered(value: f64) -> i64 {
    // There is one zero.
    let bits = (value + 0.0).to_bits() as i64;
    if bits < 0 { bits ^ i64::MAX } else { bits }
}

fn value(ordered: i64) -> f64 {
    let bits = if ordered < 0 { ordered ^ i64::MAX } else { ordered };
    f64::from_bits(bits as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::judge::series::sorted;

    #[test]
    fn the_ranked_difference_is_the_one_of_the_list() {
        let mut random = fastrand::Rng::with_seed(2);
        for round in 0..100 {
            let mut draw = |n: usize| {
                let one = |_| match round % 3 {
                    0 => random.f64() * 2.0 - 1.0,
                    1 => f64::from(random.u8(0..5)) - 2.0,
                    _ => (random.f64() - 0.5) * 10_f64.powi(random.i32(-9..9)),
                };
                sorted(&(0..n).map(one).collect::<Vec<_>>())
            };
            let (x, y) = (draw(7), draw(11));
            let all: Vec<f64> = x.iter().flat_map(|x| y.iter().map(move |y| x - y)).collect();
            for (at, difference) in sorted(&all).iter().enumerate() {
                assert_eq!(ranked(&x, &y, at as u64 + 1), *difference, "{x:?} {y:?}");
            }
        }
    }

    #[test]
    fn known_intervals() {
        // R: wilcox.test(c(10,20,30,40), c(1,2,3,4), conf.int = TRUE): 6 to 39, 22.5
        let of = |confidence| {
            shift(&[10.0, 20.0, 30.0, 40.0], &[1.0, 2.0, 3.0, 4.0], confidence, 0.0, 1.0).unwrap()
        };
        assert_eq!(of(0.95), Shift { estimate: 22.5, lower: 6.0, upper: 39.0 });
        // Four values a side can never be that sure.
        assert_eq!(of(0.995).lower, f64::NEG_INFINITY);
        assert_eq!(shift(&[], &[1.0], 0.95, 0.0, 1.0), None);
    }

    #[test]
    fn values_of_any_size_keep_their_interval() {
        let of = |scale: f64| {
            let x: Vec<f64> = (0..30).map(|i| (10.0 + f64::from(i % 10)) * scale).collect();
            let y: Vec<f64> = x.iter().map(|x| x * 0.6).collect();
            let shift = shift(&sorted(&x), &sorted(&y), 0.98, 1.0, 1.0).unwrap();
            (shift.lower / scale, shift.upper / scale)
        };
        let (lower, upper) = of(1.0);
        for scale in [1e-6, 1e-5, 1e9] {
            let scaled = of(scale);
            assert!((scaled.0 - lower).abs() < 1e-9 && (scaled.1 - upper).abs() < 1e-9);
        }
    }

    #[test]
    fn a_hundred_thousand_values_take_no_list_of_pairs() {
        let x: Vec<f64> = (0..100_000).map(f64::from).collect();
        let y: Vec<f64> = x.iter().map(|x| x - 5.0).collect();
        let shift = shift(&x, &y, 0.995, 0.0, 1.0).unwrap();
        assert_eq!(shift.estimate, 5.0);
        assert!(shift.lower < 5.0 && shift.upper > 5.0);
    }
}
