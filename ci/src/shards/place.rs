//! Puts tests into shards, longest first.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::shard::{Item, Shard};

/// Into how many parts of equal duration the suite is cut, coarse to fine. Names in order are near in the
/// sources, whatever the naming scheme, so parts are runs of neighbours.
const PARTS: [usize; 4] = [4, 16, 64, 256];

/// Steps for the choice of shards by parts; past it the shortest tests go where there is room.
const STEPS: usize = 8_000_000;

/// Tests in the order of their names, and how many shards there are.
pub struct Suite<'a> {
    pub names: Vec<&'a str>,
    pub seconds: Vec<f64>,
    pub shards: usize,
    pub total: f64,
    /// Places of tests, longest first.
    order: Vec<usize>,
}

/// Tests that stay in one shard.
pub type Unit = Vec<usize>;

/// A plan's shards, with what is in each of them.
#[derive(Clone)]
pub struct Placed {
    /// Units by shard, with their seconds.
    pub units: Vec<Vec<(f64, Unit)>>,
    pub loads: Vec<f64>,
}

impl<'a> Suite<'a> {
    pub fn new(tests: &'a [Item], shards: usize) -> Self {
        let seconds: Vec<_> = tests.iter().map(|test| test.seconds).collect();
        let mut order: Vec<_> = (0..tests.len()).collect();
        order.sort_by(|&a, &b| seconds[b].total_cmp(&seconds[a]).then(a.cmp(&b)));
        let names = tests.iter().map(|test| test.name.as_str()).collect();
        Self { names, total: seconds.iter().sum(), seconds, shards, order }
    }

    pub fn mean(&self) -> f64 {
        self.total / self.shards as f64
    }

    pub fn lower_bound(&self) -> f64 {
        self.mean().max(self.order.first().map_or(0.0, |&longest| self.seconds[longest]))
    }

    /// The part of each test for each number of parts.
    fn parts(&self) -> [Vec<usize>; PARTS.len()] {
        PARTS.map(|parts| {
            let mut before = 0.0;
            let part = |&seconds: &f64| {
                let middle = before + seconds / 2.0;
                before += seconds;
                ((middle / self.total * parts as f64) as usize).min(parts - 1)
            };
            self.seconds.iter().map(part).collect()
        })
    }

    fn unit_seconds(&self, unit: &[usize]) -> f64 {
        unit.iter().map(|&test| self.seconds[test]).sum()
    }
}

impl Placed {
    fn new(shards: usize) -> Self {
        Self { units: vec![Vec::new(); shards], loads: vec![0.0; shards] }
    }

    fn put(&mut self, shard: usize, seconds: f64, unit: Unit) {
        self.loads[shard] += seconds;
        self.units[shard].push((seconds, unit));
    }

    pub fn makespan(&self) -> f64 {
        self.loads.iter().copied().fold(0.0, f64::max)
    }

    pub fn shards(self, mut names: Vec<String>) -> Vec<Shard> {
        let shard = |(units, expected_s): (Vec<(f64, Unit)>, f64)| {
            let mut tests: Vec<_> = units.into_iter().flat_map(|(_, unit)| unit).collect();
            tests.sort_unstable();
            let tests = tests.into_iter().map(|test| std::mem::take(&mut names[test])).collect();
            Shard { tests, expected_s }
        };
        self.units.into_iter().zip(self.loads).map(shard).collect()
    }
}

/// Each unit goes where the least is, of all tests and of those in the same parts of the suite.
pub fn spread(suite: &Suite, units: &[Unit]) -> Placed {
    let shards = suite.shards;
    let parts = suite.parts();
    let mut of_parts = PARTS.map(|parts| vec![0.0; parts * shards]);
    let mut placed = Placed::new(shards);
    let mut order: Vec<_> = units.iter().map(|unit| (suite.unit_seconds(unit), unit)).collect();
    order.sort_by(|(a, one), (b, other)| b.total_cmp(a).then(one.cmp(other)));
    let by_parts = order.len().min(STEPS / shards / (PARTS.len() + 1)).max(shards);
    let (long, short) = order.split_at(by_parts.min(order.len()));
    let mut scores = vec![0.0; shards];
    for &(seconds, unit) in long {
        scores.copy_from_slice(&placed.loads);
        // The middle one stands for the unit: its tests are neighbours.
        let middle = unit[unit.len() / 2];
        for (part, loads) in parts.iter().zip(&of_parts) {
            let row = &loads[part[middle] * shards..][..shards];
            scores.iter_mut().zip(row).for_each(|(score, load)| *score += load);
        }
        let shard = least(&scores, &placed);
        for &test in unit {
            for (part, loads) in parts.iter().zip(&mut of_parts) {
                loads[part[test] * shards + shard] += suite.seconds[test];
            }
        }
        placed.put(shard, seconds, unit.clone());
    }
    fill(&mut placed, short.iter().map(|&(seconds, unit)| (seconds, unit.clone())));
    placed
}

/// The shard with the lowest score, of equals the one with fewer tests, then the first one.
fn least(scores: &[f64], placed: &Placed) -> usize {
    let score = |&shard: &usize| (scores[shard], placed.units[shard].len());
    let by = |a: &usize, b: &usize| {
        let ((a, in_a), (b, in_b)) = (score(a), score(b));
        a.total_cmp(&b).then(in_a.cmp(&in_b))
    };
    (0..scores.len()).min_by(by).unwrap_or_default()
}

/// Longest first, each test to the shard with the least so far.
pub fn longest_first(suite: &Suite) -> Placed {
    let mut placed = Placed::new(suite.shards);
    fill(&mut placed, suite.order.iter().map(|&test| (suite.seconds[test], vec![test])));
    placed
}

fn fill(placed: &mut Placed, units: impl Iterator<Item = (f64, Unit)>) {
    let entry = |placed: &Placed, shard: usize| {
        Reverse((Ordered(placed.loads[shard]), placed.units[shard].len(), shard))
    };
    let mut least: BinaryHeap<_> =
        (0..placed.loads.len()).map(|shard| entry(placed, shard)).collect();
    for (seconds, unit) in units {
        let Some(Reverse((_, _, shard))) = least.pop() else { return };
        placed.put(shard, seconds, unit);
        least.push(entry(placed, shard));
    }
}

/// What the longest shard takes when the longest tests come first, by seconds alone: `longest first` of
/// these, each test to the shard with the least so far.
pub fn longest_first_makespan(longest_first: &[f64], shards: usize) -> f64 {
    let mut loads: BinaryHeap<_> = (0..shards).map(|_| Reverse(Ordered(0.0))).collect();
    let mut makespan: f64 = 0.0;
    for &seconds in longest_first {
        let Some(Reverse(Ordered(load))) = loads.pop() else { break };
        makespan = makespan.max(load + seconds);
        loads.push(Reverse(Ordered(load + seconds)));
    }
    makespan
}

/// Seconds as the key of a heap.
#[derive(Clone, Copy, Debug)]
struct Ordered(f64);

impl PartialEq for Ordered {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}
