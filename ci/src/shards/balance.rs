//! Moves and swaps between the longest shard and the others, for as long as that makes it shorter.

use super::place::{Placed, Suite, Unit};

/// Units that are looked at before it is good enough.
const STEPS: usize = 4_000_000;

/// A plan within this of the lower bound is as good as estimates are.
const CLOSE: f64 = 1e-4;

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

/// The exchange after which both are most equal, if any makes the longer one shorter by a sensible part.
/// Both are sorted, so that one pass over them finds it.
fn exchange(placed: &Placed, longer: usize, shorter: usize) -> Option<Exchange> {
    let (long, short) = (&placed.units[longer], &placed.units[shorter]);
    let gap = placed.loads[longer] - placed.loads[shorter];
    let least = gap * 1e-3;
    let mut best: Option<(f64, Exchange)> = None;
    let mut offer = |change: f64, exchange: Exchange| {
        let off = (gap / 2.0 - change).abs();
        let helps = change > least && change < gap - least;
        if helps && best.as_ref().is_none_or(|(best, _)| off < *best) {
            best = Some((off, exchange));
        }
    };
    if long.len() > 1 {
        let fits = long.partition_point(|(seconds, _)| *seconds <= gap / 2.0);
        for unit in [fits.checked_sub(1), Some(fits).filter(|&unit| unit < long.len())] {
            unit.into_iter().for_each(|unit| offer(long[unit].0, (unit, None)));
        }
    }
    let mut other = 0;
    for (unit, (seconds, _)) in long.iter().enumerate() {
        // The shortest partner that leaves no more than half of the gap, and the one before it.
        while short.get(other).is_some_and(|(partner, _)| seconds - partner > gap / 2.0) {
            other += 1;
        }
        for partner in [other.checked_sub(1), Some(other)].into_iter().flatten() {
            if let Some((partner_seconds, _)) = short.get(partner) {
                offer(seconds - partner_seconds, (unit, Some(partner)));
            }
        }
    }
    best.map(|(_, exchange)| exchange)
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
