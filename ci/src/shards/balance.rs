//! Moves and swaps between the longest shard and the others, for as long as that makes it shorter.

use super::place::{Placed, Suite, Unit};

/// Units that are looked at before it is good enough.
const STEPS: usize = 4_000_000;

/// A plan within this of the lower bound is as good as estimates are.
const CLOSE: f64 = 1e-4;

/// A move that leaves no more than this part of the difference between two shards is good.
const NEAR: f64 = 0.05;

pub fn improve(placed: &mut Placed, suite: &Suite) {
    let by_seconds = |(a, one): &(f64, Unit), (b, other): &(f64, Unit)| {
        a.total_cmp(b).then_with(|| one.cmp(other))
    };
    placed.units.iter_mut().for_each(|units| units.sort_by(by_seconds));
    let close = suite.lower_bound() * (1.0 + CLOSE);
    let mut steps = STEPS;
    while let Some(longest) = longest(placed).filter(|&shard| placed.loads[shard] > close) {
        let mut others: Vec<_> = (0..suite.shards).filter(|&shard| shard != longest).collect();
        others.sort_by(|&a, &b| placed.loads[a].total_cmp(&placed.loads[b]).then(a.cmp(&b)));
        let exchange = others.into_iter().find_map(|other| {
            let count = placed.units[longest].len() + placed.units[other].len();
            steps = steps.checked_sub(count)?;
            exchange(placed, longest, other).map(|exchange| (other, exchange))
        });
        match exchange {
            Some((other, exchange)) => apply(placed, longest, other, exchange),
            None => return,
        }
    }
}

fn longest(placed: &Placed) -> Option<usize> {
    let by = |&a: &usize, &b: &usize| placed.loads[a].total_cmp(&placed.loads[b]).then(b.cmp(&a));
    (0..placed.loads.len()).max_by(by)
}

/// The unit of the longer shard, and the one of the shorter that it changes places with.
type Exchange = (usize, Option<usize>);

/// The best exchange so far between two shards.
struct Offers {
    /// What the longer shard takes longer.
    gap: f64,
    /// How far the best exchange is from making both equal.
    off: f64,
    best: Option<Exchange>,
}

impl Offers {
    /// An exchange that makes the longer shard shorter by `change` seconds.
    fn add(&mut self, change: f64, exchange: Exchange) {
        // Less than this part of the gap is not worth it.
        let least = self.gap * 1e-3;
        let off = (self.gap / 2.0 - change).abs();
        if change > least && change < self.gap - least && off < self.off {
            (self.off, self.best) = (off, Some(exchange));
        }
    }
}

/// The exchange after which both are most equal, if any makes the longer one shorter by a sensible part.
/// Both are sorted, so that one pass over them finds it.
fn exchange(placed: &Placed, longer: usize, shorter: usize) -> Option<Exchange> {
    let (long, short) = (&placed.units[longer], &placed.units[shorter]);
    let gap = placed.loads[longer] - placed.loads[shorter];
    let mut offers = Offers { gap, off: f64::INFINITY, best: None };
    if long.len() > 1 {
        let fits = long.partition_point(|(seconds, _)| *seconds <= gap / 2.0);
        for unit in [fits.checked_sub(1), Some(fits)].into_iter().flatten() {
            if let Some((seconds, _)) = long.get(unit) {
                offers.add(*seconds, (unit, None));
            }
        }
    }
    // A move that evens out nearly all of it is not worth bettering by looking at every pair.
    if offers.off <= gap * NEAR {
        return offers.best;
    }
    let mut other = 0;
    for (unit, (seconds, _)) in long.iter().enumerate() {
        // The shortest partner that leaves no more than half of the gap, and the one before it.
        while short.get(other).is_some_and(|(partner, _)| seconds - partner > gap / 2.0) {
            other += 1;
        }
        for partner in [other.checked_sub(1), Some(other)].into_iter().flatten() {
            if let Some((partner_seconds, _)) = short.get(partner) {
                offers.add(seconds - partner_seconds, (unit, Some(partner)));
            }
        }
    }
    offers.best
}

fn apply(placed: &mut Placed, longer: usize, shorter: usize, (unit, partner): Exchange) {
    let back = partner.map(|partner| placed.units[shorter].remove(partner));
    let over = placed.units[longer].remove(unit);
    insert(&mut placed.units[shorter], over);
    if let Some(back) = back {
        insert(&mut placed.units[longer], back);
    }
    for shard in [longer, shorter] {
        placed.loads[shard] = placed.units[shard].iter().map(|(seconds, _)| seconds).sum();
    }
}

fn insert(units: &mut Vec<(f64, Unit)>, unit: (f64, Unit)) {
    let at = units.partition_point(|(seconds, tests)| (*seconds, tests) < (unit.0, &unit.1));
    units.insert(at, unit);
}
