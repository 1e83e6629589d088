//! Cuts tests into shards that take equally long.
//!
//! A plan is made from what tests took and judged by what they take next. So it does not only balance the
//! sums (longest first, then moves and swaps between shards); it also gives every shard its share of each
//! part of the suite, since tests of one part get slower together, and it keeps a test that looks like it
//! paid for a set-up with its neighbours, on any of which the set-up may land next.

mod balance;
mod count;
mod format;
mod place;
mod shard;
mod together;

pub use count::{Impossible, count_for, useful_shards};
pub use format::{Format, FormatError, arguments, quoted};
pub use shard::{Item, Plan, Shard};

use place::{Placed, Suite};

/// How much longer than by balancing alone a plan may take for being robust.
const ROBUSTNESS: f64 = 1.002;

/// Cuts tests into `shards`, or as many as there are tests if that is less, each with at least one test. It
/// depends on nothing but names, seconds and the number; not on the order of the tests.
pub fn plan(tests: Vec<Item>, shards: usize) -> Plan {
    plan_within(tests, shards, f64::INFINITY)
}

/// Plans as [`plan`] does, but robustness counts for less than to be done in `limit_s` seconds.
fn plan_within(mut tests: Vec<Item>, shards: usize, limit_s: f64) -> Plan {
    if !tests.is_sorted_by(|one, other| one.name <= other.name) {
        tests.sort_by(|one, other| one.name.cmp(&other.name));
    }
    let shards = shards.min(tests.len());
    if shards == 0 {
        return Plan::default();
    }
    let suite = Suite::new(&tests, shards);
    let mut robust = place::spread(&suite, &together::units(&suite));
    balance::improve(&mut robust, &suite);
    let lower_bound_s = suite.lower_bound();
    let good = |placed: &Placed, than: f64| placed.makespan() <= (than * ROBUSTNESS).min(limit_s);
    let chosen = if good(&robust, lower_bound_s) {
        robust
    } else {
        let mut even = place::longest_first(&suite);
        balance::improve(&mut even, &suite);
        if good(&robust, even.makespan()) { robust } else { even }
    };
    let makespan_s = chosen.makespan();
    let mut plan = Plan { shards: Vec::with_capacity(shards), makespan_s, lower_bound_s };
    let names: Vec<String> = tests.into_iter().map(|test| test.name).collect();
    plan.shards = chosen.shards(names);
    plan
}

#[cfg(test)]
mod tests;
