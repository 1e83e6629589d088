//! How often the judge is wrong, on drawn canaries. docs/judge.md has the figures of longer runs, which
//! `cargo run --release -p kiln-deploy --example judge_rates` prints.

use crate::judge::testing::{case, metric};
use crate::judge::{Verdict, judge};

/// A value of the standard normal distribution.
fn normal(random: &mut fastrand::Rng) -> f64 {
    let (a, b) = (1.0 - random.f64(), random.f64());
    (-2.0 * a.ln()).sqrt() * (std::f64::consts::TAU * b).cos()
}

/// Points around `mean` with a coefficient of variation of 10 %; each has `share` of the deviation of
/// the one before it.
fn series(random: &mut fastrand::Rng, mean: f64, share: f64, length: usize) -> Vec<f64> {
    let mut last = normal(random);
    let mut next = || {
        last = share * last + (1.0 - share * share).sqrt() * normal(random);
        mean * (1.0 + 0.1 * last)
    };
    (0..length).map(|_| next()).collect()
}

fn reverted(seed: u64, rounds: u32, length: usize, change: f64, share: f64) -> f64 {
    let mut random = fastrand::Rng::with_seed(seed);
    let mut one = || {
        let canary = series(&mut random, 100.0 * change, share, length);
        let baseline = series(&mut random, 100.0, share, length);
        judge(&case(vec![metric("m", &canary, &baseline)])).verdict == Verdict::Rollback
    };
    let reverted = (0..rounds).filter(|_| one()).count();
    let rate = reverted as f64 / f64::from(rounds);
    println!(
        "seed {seed}, {length} points, change {change}, correlation {share}: {rate} of {rounds} reverted"
    );
    rate
}

#[test]
fn one_in_a_hundred_good_canaries_is_reverted_at_most() {
    for (seed, length, share) in [(1, 50, 0.0), (2, 200, 0.0), (3, 60, 0.5), (4, 150, 0.5)] {
        assert!(reverted(seed, 1_000, length, 1.0, share) <= 0.01);
    }
}

#[test]
fn a_canary_that_is_a_tenth_worse_is_noticed() {
    assert!(reverted(5, 1_000, 50, 1.1, 0.0) >= 0.95);
    assert!(reverted(6, 1_000, 50, 0.9, 0.0) >= 0.95);
    assert!(reverted(7, 300, 200, 1.1, 0.5) >= 0.95);
}
