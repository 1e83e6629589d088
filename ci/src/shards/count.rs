//! How many shards there should be.

use thiserror::Error;

use super::place::longest_first_makespan;
use super::{Item, Plan, plan, plan_within};

/// No plan is better than longest first by more than this.
const BETTER: f64 = 4.0 / 3.0;

/// Nor, where there are many tests, by more than this, as a rule: plans for them take long to try.
const BETTER_OF_MANY: f64 = 1.02;

/// Tests of which plans are tried wherever there is hope.
const FEW: usize = 1000;

#[derive(Debug, Error, PartialEq)]
pub enum Impossible {
    #[error("{name} alone takes {seconds:.3} s")]
    LongTest { name: String, seconds: f64 },
    #[error("starting a shard takes {0:.3} s already")]
    Overhead(f64),
}

/// More shards than this are no faster: the longest test takes as long as they do.
pub fn useful_shards(tests: &[Item]) -> usize {
    let total: f64 = tests.iter().map(|test| test.seconds).sum();
    let longest = tests.iter().map(|test| test.seconds).fold(0.0, f64::max);
    match longest > 0.0 {
        true => ((total / longest).ceil() as usize).clamp(1, tests.len()),
        false => tests.len().min(1),
    }
}

/// The plan with the fewest shards of which the longest is done in `target_s` seconds, of which each shard
/// spends `overhead_s` before its first test.
pub fn count_for(tests: Vec<Item>, target_s: f64, overhead_s: f64) -> Result<Plan, Impossible> {
    let room = target_s - overhead_s;
    if room <= 0.0 {
        return Err(Impossible::Overhead(overhead_s));
    }
    let longest = tests.iter().max_by(|one, other| one.seconds.total_cmp(&other.seconds));
    let Some(longest) = longest else { return Ok(Plan::default()) };
    if longest.seconds > room {
        let (name, seconds) = (longest.name.clone(), longest.seconds);
        return Err(Impossible::LongTest { name, seconds });
    }
    let mut longest_first: Vec<_> = tests.iter().map(|test| test.seconds).collect();
    longest_first.sort_by(|one, other| other.total_cmp(one));
    let total: f64 = longest_first.iter().sum();
    let least = ((total / room).ceil() as usize).clamp(1, tests.len());
    let hope = if tests.len() <= FEW { BETTER } else { BETTER_OF_MANY };
    // With a shard a test the longest one fits, so the search ends.
    for shards in least..tests.len() {
        if longest_first_makespan(&longest_first, shards) > room * hope {
            continue;
        }
        let plan = plan_within(tests.clone(), shards, room);
        if plan.makespan_s <= room {
            return Ok(plan);
        }
    }
    let shards = tests.len();
    Ok(plan(tests, shards))
}
