//! The merge queue against a world that knows every outcome, with the same workers as an oracle.

#![allow(clippy::expect_used, clippy::panic)]

mod costs;
mod fetching;
mod independent;
mod large;
mod leaving;
mod oracle;
mod real;
mod trouble;
mod world;

use kiln_ci::queue::{End, Mode, Options};

use oracle::quantile;
use world::{MINUTE, Truth, World};

struct Measured {
    runs: f64,
    /// The share of bad ones among those that were counted.
    bad: f64,
    waits: Vec<f64>,
    landed: f64,
}

/// Lets so many changes come, `every` so many milliseconds in the mean; 0: all wait from the start. The first ones,
/// by which rates are learned, do not count.
fn drive(truth: Truth, options: Options, every: f64, changes: usize) -> (Measured, Vec<u64>) {
    let learning = changes / 5;
    let mut world = World::new(truth, options);
    let (mut at, mut arrivals) = (0.0, Vec::new());
    let mut before = (0, 0);
    let (mut first, mut last) = (None, 0);
    while world.ended.len() < changes {
        if every == 0.0 {
            while world.lane.changes.len() < 400 {
                world.arrive();
            }
            assert!(world.step(u64::MAX), "nothing runs");
        } else {
            at -= every * (1.0 - world.rng.f64()).ln();
            while world.step(at as u64) {}
            arrivals.push(world.now);
            world.arrive();
        }
        if world.ended.len() >= learning && first.is_none() {
            before = (world.runs, world.ended.len());
            first = Some(world.now);
        }
        last = world.now;
    }
    let ended = (world.ended.len() - before.1) as f64;
    let landed = world.ended.iter().skip(before.1).filter(|it| matches!(it.end, End::Landed(_)));
    let bad = world.ended.iter().skip(before.1).filter(|it| matches!(it.end, End::Failed { .. }));
    let minutes = (last - first.unwrap_or(0)) as f64 / MINUTE as f64;
    let measured = Measured {
        runs: (world.runs - before.0) as f64 / ended,
        bad: bad.count() as f64 / ended,
        waits: world.waits(before.1),
        landed: landed.count() as f64 / minutes,
    };
    (measured, arrivals)
}

fn throughput(workers: usize, exact: bool) -> Options {
    Options { workers, exact, ..Options::default() }
}

fn entropy(bad: f64) -> f64 {
    -(bad * bad.log2() + (1.0 - bad) * (1.0 - bad).log2())
}

/// What is aimed at: so many runs for a change where so many are bad. Chance makes some samples worse than others: each is held
/// against what is possible with its own share of bad ones, by the factor that the goal leaves.
#[test]
fn runs_per_change_come_near_the_entropy_bound() {
    for (bad, changes, goal) in [(0.01, 6_000, 0.085), (0.05, 4_000, 0.30), (0.10, 3_000, 0.49)] {
        let most = goal / entropy(bad);
        let measured = |workers, flaky: f64, seed| {
            let options = throughput(workers, flaky == 0.0);
            let it = drive(Truth::new(bad, flaky, seed), options, 0.0, changes).0;
            println!(
                "{:>3.0} % bad, {:.0} % flakes, {workers} workers: {:.4} runs a change, {:.2} % were bad: {:.3} of the bound",
                bad * 100.0,
                flaky * 100.0,
                it.runs,
                it.bad * 100.0,
                it.runs / entropy(it.bad)
            );
            it.runs / entropy(it.bad)
        };
        assert!(measured(1, 0.0, 1) <= most, "{bad}");
        assert!(measured(4, 0.0, 2) <= most, "{bad}");
        assert!(measured(1, 0.01, 3) <= 1.6, "{bad}");
    }
}

#[test]
fn twenty_changes_a_minute_land() {
    for (bad, flaky, workers) in [(0.01, 0.0, 32), (0.01, 0.01, 32), (0.05, 0.0, 96)] {
        let truth = Truth::new(bad, flaky, 7);
        let options = Options { patience_ms: 3 * MINUTE, ..throughput(workers, flaky == 0.0) };
        let (it, arrivals) = drive(truth.clone(), options, 3_000.0, 3_000);
        let oracle = oracle::waits(&truth, workers, &arrivals);
        println!(
            "{:>3.0} % bad, {:.0} % flakes, {workers} workers: {:.1} landed a minute, {:.3} runs a change, waits p50 {:.0} \
                 p95 {:.0} minutes; oracle {:.0} and {:.0}",
            bad * 100.0,
            flaky * 100.0,
            it.landed,
            it.runs,
            quantile(&it.waits, 0.5),
            quantile(&it.waits, 0.95),
            quantile(&oracle, 0.5),
            quantile(&oracle, 0.95)
        );
        assert!(it.landed > 20.0 * (1.0 - bad) * 0.8, "{bad}: {}", it.landed);
    }
}

/// The goal is 1.2 times the oracle's wait.
#[test]
fn in_latency_mode_changes_hardly_wait_longer_than_with_an_oracle() {
    for (bad, in_flight, workers, most) in
        [(0.01, 2.0, 16, 1.1), (0.01, 4.0, 32, 1.1), (0.05, 2.0, 16, 1.1), (0.05, 4.0, 32, 1.2)]
    {
        let options = Options { mode: Mode::Latency, workers, exact: true, ..Options::default() };
        let ratio = waited(Truth::new(bad, 0.0, 11), options, in_flight);
        assert!(ratio <= most, "{bad}, {in_flight}, {workers}: {ratio}");
    }
}

/// Few runs are paid for with waiting: the same changes with more and more patience, and in the mode that has none.
#[test]
#[ignore = "prints the frontier between runs and waiting"]
fn the_frontier_between_runs_and_waiting() {
    for bad in [0.01, 0.05] {
        let workers = 16;
        let latency = Options { mode: Mode::Latency, workers, exact: true, ..Options::default() };
        let patient =
            |minutes| Options { patience_ms: minutes * MINUTE, ..throughput(workers, true) };
        for options in [latency, patient(0), patient(5), patient(20), patient(60)] {
            println!("{:?}, patience {} minutes:", options.mode, options.patience_ms / MINUTE);
            waited(Truth::new(bad, 0.0, 11), options, 2.0);
        }
    }
}

/// Samples that are looked at together: one alone is chance.
const SAMPLES: u64 = 5;

/// Lets 400 changes come in each of five samples, so many in the time of a check, and prints what became of them. Returns how many
/// times as long as with the oracle 95 of 100 waited at most, over all samples.
fn waited(truth: Truth, options: Options, in_flight: f64) -> f64 {
    let (bad, workers) = (truth.bad, options.workers);
    let every = truth.takes as f64 / in_flight;
    let (mut waits, mut oracle, mut runs) = (Vec::new(), Vec::new(), 0.0);
    for sample in 0..SAMPLES {
        let truth = Truth { seed: truth.seed + sample, ..truth.clone() };
        let (it, arrivals) = drive(truth.clone(), options.clone(), every, 400);
        oracle.extend(oracle::waits(&truth, workers, &arrivals));
        waits.extend(it.waits);
        runs += it.runs / SAMPLES as f64;
    }
    waits.sort_by(f64::total_cmp);
    oracle.sort_by(f64::total_cmp);
    let ratio = quantile(&waits, 0.95) / quantile(&oracle, 0.95);
    println!(
        "{:>3.0} % bad, {in_flight} changes a check, {workers} workers: {runs:.2} runs a change, waits p50 {:.1} p95 {:.1}, \
         oracle {:.1} and {:.1}: {ratio:.3}",
        bad * 100.0,
        quantile(&waits, 0.5),
        quantile(&waits, 0.95),
        quantile(&oracle, 0.5),
        quantile(&oracle, 0.95)
    );
    ratio
}
