//! How good plans of shards are: each is made from one revision of a suite and scored on the next, by what
//! its longest shard takes over the lower bound. Prints medians.
//!
//!     cargo run --release -p kiln-ci --example shards                    # made-up suites, noise as below
//!     cargo run --release -p kiln-ci --example shards -- LAST.json       # noise upon a recorded suite
//!     cargo run --release -p kiln-ci --example shards -- 1.json 2.json … # recorded revisions, oldest first

use std::collections::HashMap;
use std::fs::File;
use std::time::Instant;

use fastrand::Rng;
use kiln_ci::durations::{self, Durations, Estimates, median, names};
use kiln_ci::shards::{Item, plan};

const SHARDS: [usize; 3] = [8, 16, 32];

/// Next revisions that each plan is scored on.
const REVISIONS: u64 = 41;

/// Machines that record a revision, each a run of neighbours.
const MACHINES: usize = 10;

type Planner = fn(&Durations, usize) -> HashMap<String, usize>;

const PLANNERS: [(&str, Planner); 3] =
    [("round robin", round_robin), ("longest first", longest_first), ("kiln", kiln)];

fn main() {
    let files: Vec<_> = std::env::args().skip(1).collect();
    let read = |path: &String| {
        let file = File::open(path).expect("a file of durations can be opened");
        durations::read(file).expect("a file of durations")
    };
    let revisions: Vec<_> = files.iter().map(read).collect();
    match &revisions[..] {
        [] => {
            for (name, suite) in suites() {
                on_noise(name, &suite);
            }
            estimators();
            speed();
        }
        [suite] => on_noise(&files[0], suite),
        _ => {
            let pairs: Vec<_> = revisions.windows(2).map(|two| (&two[0], two[1].clone())).collect();
            score("recorded", &pairs);
        }
    }
}

fn normal(rng: &mut Rng) -> f64 {
    let (u, v) = (1.0 - rng.f64(), rng.f64());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn factor(rng: &mut Rng, sigma: f64) -> f64 {
    (normal(rng) * sigma).exp()
}

/// Suites with names as pytest's: number of tests, of files and of directories, and how unequal tests are.
fn suites() -> Vec<(&'static str, Durations)> {
    let made = [
        ("3,000 tests", 3000, 200, 12, 1.0),
        ("800 tests", 800, 60, 6, 0.8),
        ("6,000 unequal tests", 6000, 300, 20, 1.2),
    ];
    made.into_iter()
        .map(|(name, tests, files, directories, sigma)| {
            (name, suite(tests, files, directories, sigma))
        })
        .collect()
}

fn suite(tests: usize, files: usize, directories: usize, sigma: f64) -> Durations {
    let mut rng = Rng::with_seed(tests as u64);
    let file = |rng: &mut Rng, file: usize| {
        (format!("tests/d{:02}/test_{file:03}.py", rng.usize(..directories)), factor(rng, 1.0))
    };
    let files: Vec<_> = (0..files).map(|place| file(&mut rng, place)).collect();
    let mut suite: Durations = (0..tests)
        .map(|test| {
            // Some files have many more tests than others.
            let (name, usual) = &files[(rng.f64().powi(2) * files.len() as f64) as usize];
            (format!("{name}::test_{test:04}"), usual * factor(&mut rng, sigma))
        })
        .collect();
    suite.sort_by(|one, other| one.0.cmp(&other.0));
    suite
}

/// How much durations change from one revision to the next: sigmas of factors.
#[derive(Clone, Copy)]
struct Noise {
    test: f64,
    file: f64,
    directory: f64,
    machine: f64,
    revision: f64,
    /// The share of files whose durations were not recorded again.
    stale: f64,
}

const QUIET: Noise =
    Noise { test: 0.05, file: 0.05, directory: 0.0, machine: 0.0, revision: 0.0, stale: 0.0 };

/// A set-up on the first test of each machine, as a part of the whole suite.
const SET_UP: f64 = 0.006;

#[derive(Clone, Copy)]
enum SetUp {
    None,
    /// The set-up is on a test within 8 places of the last one.
    Near,
    Anywhere,
}

fn models() -> [(&'static str, Noise, SetUp); 5] {
    let none = Noise { test: 0.0, file: 0.0, ..QUIET };
    [
        ("each test by itself", Noise { test: 0.3, ..none }, SetUp::None),
        ("files", Noise { test: 0.1, file: 0.3, ..none }, SetUp::None),
        (
            "all causes",
            Noise {
                test: 0.15,
                file: 0.15,
                directory: 0.1,
                machine: 0.1,
                revision: 0.2,
                stale: 0.2,
            },
            SetUp::None,
        ),
        ("set-up, nearby", QUIET, SetUp::Near),
        ("set-up, anywhere", QUIET, SetUp::Anywhere),
    ]
}

fn next(suite: &Durations, noise: Noise, rng: &mut Rng) -> Durations {
    let mut factors: HashMap<String, (f64, bool)> = HashMap::new();
    let machines: Vec<_> = (0..MACHINES).map(|_| factor(rng, noise.machine)).collect();
    let revision = factor(rng, noise.revision);
    let change = |(place, (name, seconds)): (usize, &(String, f64))| {
        let file = names::module(name);
        let directory = names::module(file.strip_suffix(".py").unwrap_or(file));
        let sigmas = [(directory, noise.directory), (file, noise.file)];
        let mut all = revision * machines[place * MACHINES / suite.len()] * factor(rng, noise.test);
        let mut is_stale = false;
        for (part, sigma) in sigmas {
            let (factor, stale) = *factors
                .entry(part.to_owned())
                .or_insert_with(|| (factor(rng, sigma), rng.f64() < noise.stale));
            (all, is_stale) = (all * factor, stale);
        }
        (name.clone(), if is_stale { *seconds } else { seconds * all })
    };
    suite.iter().enumerate().map(change).collect()
}

fn on_noise(name: &str, suite: &Durations) {
    for (model, noise, set_up) in models() {
        let mut rng = Rng::with_seed(1);
        let cost = SET_UP * suite.iter().map(|(_, seconds)| seconds).sum::<f64>();
        let first = |machine: usize| machine * (suite.len() - 1) / MACHINES;
        let mut last = suite.clone();
        if !matches!(set_up, SetUp::None) {
            (0..MACHINES).for_each(|machine| last[first(machine)].1 += cost);
        }
        let pairs = (0..REVISIONS).map(|_| {
            let mut next = next(suite, noise, &mut rng);
            for machine in 0..MACHINES {
                let place = match set_up {
                    SetUp::None => continue,
                    SetUp::Near => (first(machine) + rng.usize(..17)).saturating_sub(8),
                    SetUp::Anywhere => rng.usize(..suite.len()),
                };
                let end = next.len() - 1;
                next[place.min(end)].1 += cost * (0.92 + 0.16 * rng.f64());
            }
            (&last, next)
        });
        score(&format!("{name}, {model}"), &pairs.collect::<Vec<_>>());
    }
}

fn score(name: &str, pairs: &[(&Durations, Durations)]) {
    println!("{name}");
    for (planner, make) in PLANNERS {
        let figures = SHARDS.map(|shards| {
            let mut made: HashMap<*const Durations, _> = HashMap::new();
            let ratio = |(last, next): &(&Durations, Durations)| {
                let key: *const Durations = *last;
                ratio(made.entry(key).or_insert_with(|| make(last, shards)), next, shards)
            };
            let mut ratios: Vec<_> = pairs.iter().map(ratio).collect();
            format!("{:6.3}", median(&mut ratios).unwrap_or_default())
        });
        println!("  {planner:14} {}", figures.join(" "));
    }
}

/// New tests go where there is least.
fn ratio(shard_of: &HashMap<String, usize>, next: &Durations, shards: usize) -> f64 {
    let mut loads: Vec<f64> = vec![0.0; shards];
    let (mut total, mut longest): (f64, f64) = (0.0, 0.0);
    for (name, seconds) in next {
        (total, longest) = (total + seconds, longest.max(*seconds));
        let least = || (0..shards).min_by(|&a, &b| loads[a].total_cmp(&loads[b])).unwrap_or(0);
        let shard = shard_of.get(name).copied().unwrap_or_else(least);
        loads[shard] += seconds;
    }
    loads.into_iter().fold(0.0, f64::max) / longest.max(total / shards as f64)
}

fn round_robin(last: &Durations, shards: usize) -> HashMap<String, usize> {
    last.iter().enumerate().map(|(place, (name, _))| (name.clone(), place % shards)).collect()
}

fn longest_first(last: &Durations, shards: usize) -> HashMap<String, usize> {
    let mut order: Vec<_> = last.iter().collect();
    order.sort_by(|one, other| other.1.total_cmp(&one.1).then(one.0.cmp(&other.0)));
    let mut loads: Vec<f64> = vec![0.0; shards];
    let mut placed = HashMap::new();
    for (name, seconds) in order {
        let shard = (0..shards).min_by(|&a, &b| loads[a].total_cmp(&loads[b])).unwrap_or(0);
        loads[shard] += seconds;
        placed.insert(name.clone(), shard);
    }
    placed
}

fn items(suite: &Durations) -> Vec<Item> {
    suite.iter().map(|(name, seconds)| Item { name: name.clone(), seconds: *seconds }).collect()
}

fn kiln(last: &Durations, shards: usize) -> HashMap<String, usize> {
    let shards = plan(items(last), shards).shards.into_iter().enumerate();
    shards
        .flat_map(|(place, shard)| shard.tests.into_iter().map(move |test| (test, place)))
        .collect()
}

/// Compares memories of durations by how well they predict: seven revisions of drifting durations with spikes, and the
/// eighth to score.
fn estimators() {
    println!("estimators, by Kiln's planner");
    let mut table: HashMap<&str, Vec<Vec<f64>>> = HashMap::new();
    for seed in 0..21 {
        let mut rng = Rng::with_seed(seed);
        let mut truth = suite(1500, 100, 8, 1.0);
        let mut revisions = Vec::new();
        for _ in 0..8 {
            truth.iter_mut().for_each(|(_, seconds)| *seconds *= factor(&mut rng, 0.08));
            let spike = |rng: &mut Rng| if rng.f64() < 0.01 { 5.0 } else { 1.0 };
            let measured = truth.iter().map(|(name, seconds)| {
                (name.clone(), seconds * factor(&mut rng, 0.15) * spike(&mut rng))
            });
            revisions.push(measured.collect::<Durations>());
        }
        let next = revisions.pop().expect("eight revisions");
        let last = revisions.last().expect("seven revisions").clone();
        let estimates = Estimates::new(revisions.clone());
        let middle = last.iter().map(|(name, _)| (name.clone(), estimates.seconds(name))).collect();
        let smooth = revisions.into_iter().reduce(|old, new| {
            old.into_iter().zip(new).map(|((name, a), (_, b))| (name, 0.7 * a + 0.3 * b)).collect()
        });
        let smooth = smooth.expect("seven revisions");
        for (name, estimate) in
            [("last value", last), ("median of 3", middle), ("EWMA 0.3", smooth)]
        {
            let figures = table.entry(name).or_insert_with(|| vec![Vec::new(); SHARDS.len()]);
            for (figure, shards) in figures.iter_mut().zip(SHARDS) {
                figure.push(ratio(&kiln(&estimate, shards), &next, shards));
            }
        }
    }
    for name in ["last value", "median of 3", "EWMA 0.3"] {
        let figures = table.remove(name).unwrap_or_default().into_iter();
        let figures: Vec<_> = figures
            .map(|mut all| format!("{:6.3}", median(&mut all).unwrap_or_default()))
            .collect();
        println!("  {name:14} {}", figures.join(" "));
    }
}

/// Measures the time from a file of 100,000 tests to a plan, over what sorting them takes.
fn speed() {
    let suite = items(&suite(100_000, 3000, 50, 1.2));
    let start = Instant::now();
    let mut sorted = suite.clone();
    sorted.sort_by(|one, other| {
        other.seconds.total_cmp(&one.seconds).then(one.name.cmp(&other.name))
    });
    let floor = start.elapsed();
    let object: HashMap<_, _> = suite.iter().map(|item| (&item.name, item.seconds)).collect();
    let json = serde_json::to_vec(&object).expect("names and numbers are JSON");
    for shards in [8, 32, 256, 2000] {
        let start = Instant::now();
        let estimates = Estimates::new(vec![durations::read(&json[..]).expect("durations")]);
        let item = |name: &str| Item { name: name.to_owned(), seconds: estimates.seconds(name) };
        let made = plan(estimates.known().map(item).collect(), shards);
        let took = start.elapsed();
        println!(
            "100,000 tests from a file into {shards}: {took:.1?}, {:.1} times sorting ({floor:.1?}); {:.4} of the bound",
            took.as_secs_f64() / floor.as_secs_f64(),
            made.makespan_s / made.lower_bound_s
        );
    }
}
