//! Millions of events with faults against the queue's state machine, from one seed.
//!
//! `KILN_SEED` repeats a run; `KILN_SIM_ACTIONS` sets its length.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail this way")]

mod coverage;
mod model;
mod properties;
mod restarts;
mod retold;
mod rng;
mod shared;
mod subject;
mod twins;
mod world;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use coverage::Marked;
use kiln_scheduler::queue::{Limits, Machine};
use subject::Subject;
use world::{World, limits, scarce};

/// The number of frontends where the queue is in Redis.
const FRONTENDS: usize = 8;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

fn fresh_seed() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970");
    now.as_nanos() as u64
}

fn in_memory(seed: u64, hosts: usize, actions: u64) -> World<Machine> {
    simulate(Machine::new(limits()), limits(), seed, hosts, actions)
}

fn simulate<S: Subject>(
    machine: S,
    limits: Limits,
    seed: u64,
    hosts: usize,
    actions: u64,
) -> World<S> {
    println!("KILN_SEED={seed} hosts={hosts} actions={actions}");
    let mut world = World::new(machine, limits, seed, hosts, actions);
    world.run();
    let counters = world.machine.counters();
    println!(
        "{} steps, {} s simulated, {} fairness checks ({} contested)\n{:?}\n{counters:?}",
        world.steps,
        world.now / 1000,
        world.model.fair_checks,
        world.model.contested,
        world.model.endings
    );
    assert_eq!(world.model.finished, counters.submitted);
    assert_eq!(counters.submitted + counters.merged + counters.refused, actions);
    assert_eq!(world.model.published, counters.published);
    assert_eq!(world.model.returned, counters.returned);
    assert_eq!(world.model.refused, counters.leases_refused);
    world
}

#[test]
fn a_faulty_fleet_ends_every_action_exactly_once() {
    let seed = number("KILN_SEED").unwrap_or_else(fresh_seed);
    let world = in_memory(seed, 300, number("KILN_SIM_ACTIONS").unwrap_or(100_000));
    let counters = world.machine.counters();
    // The faults did happen.
    assert!(counters.workers_lost > 0 && counters.retries > 0 && counters.stale_results > 0);
    assert!(counters.leases_expired > 0 && counters.merged > 0 && counters.abandoned > 0);
    assert!(world.model.contested > world.model.fair_checks / 4, "hardly anything waited");
    assert!(world.model.adopted > 0, "no session was taken up again");
    assert!(counters.poisoned > 0 && counters.cancelled > 0);
    assert!(counters.returned > 0 && world.model.returned_too_often > 0);
    assert!(counters.leases_refused > 0, "no worker refused anything");
    assert!(world.model.at_quota > 0, "no caller came to its quota");
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let [a, b] = [7, 7].map(|seed| in_memory(seed, 40, 5_000));
    assert_eq!((a.now, a.steps, a.machine.counters()), (b.now, b.steps, b.machine.counters()));
}

#[test]
fn the_queue_in_redis_does_what_the_one_in_memory_does() {
    let Some(both) = shared::Both::start(limits()) else { return };
    let seed = number("KILN_SEED").unwrap_or_else(fresh_seed);
    let mut world =
        simulate(both, limits(), seed, 60, number("KILN_SIM_ACTIONS").unwrap_or(10_000));
    let counters = world.machine.counters();
    assert!(counters.workers_lost > 0 && counters.retries > 0 && counters.stale_results > 0);
    assert!(counters.leases_expired > 0 && counters.merged > 0 && counters.abandoned > 0);
    assert!(counters.returned > 0, "no draining worker gave anything back");
    world.rest();
    let left = world.machine.left_behind();
    assert!(left.len() < 100, "{} keys stay behind: {left:?}", left.len());
}

/// The same events lead to the same effects, and there is no function of the script to which none
/// has led. Prints the branches of which that cannot be said.
#[test]
fn each_function_of_the_script_is_compared_with_its_twin() {
    let seed = number("KILN_SEED").unwrap_or(7);
    let mut coverage = Marked::new();
    let hasty = Limits { cancel_timeout: 150, ..limits() };
    for (limits, hosts) in [(limits(), 60), (scarce(), 5), (hasty, 40)] {
        let Some(both) = shared::Both::marked(limits.clone(), coverage) else { return };
        let mut world = simulate(both, limits, seed, hosts, 3_000);
        world.rest();
        coverage = world.machine.into_coverage();
    }
    println!("never compared: {:#?}", coverage.branches_missed());
    let missed = coverage.functions_missed(&["lua/frontends.lua", "lua/view.lua"]);
    assert!(missed.is_empty(), "never compared: {missed:?}");
}

#[test]
fn the_queue_in_redis_ends_every_action_exactly_once_though_frontends_fail() {
    in_redis(100, number("KILN_SIM_ACTIONS").unwrap_or(5_000));
}

#[test]
fn the_same_seed_gives_the_same_run_in_redis() {
    let [Some(a), Some(b)] = [(); 2].map(|()| shared::Frontends::start(limits(), FRONTENDS)) else {
        return;
    };
    let [mut a, mut b] = [a, b].map(|frontends| simulate(frontends, limits(), 7, 40, 1_000));
    assert_eq!((a.now, a.steps, a.lapses), (b.now, b.steps, b.lapses));
    assert_eq!(a.machine.counters(), b.machine.counters());
}

/// `KILN_SEED=... cargo nextest run -p kiln-scheduler --run-ignored only a_million_actions_in_redis`
#[test]
#[ignore = "a quarter of an hour"]
fn a_million_actions_in_redis() {
    in_redis(1_000, number("KILN_SIM_ACTIONS").unwrap_or(1_000_000));
}

fn in_redis(hosts: usize, actions: u64) {
    let Some(frontends) = shared::Frontends::start(limits(), FRONTENDS) else { return };
    let seed = number("KILN_SEED").unwrap_or_else(fresh_seed);
    let begun = Instant::now();
    let mut world = simulate(frontends, limits(), seed, hosts, actions);
    let (seconds, lost) = (begun.elapsed().as_secs_f64(), world.model.unpublished);
    println!("{seconds:.0} s; {} lapses, {lost} publications lost", world.lapses);
    let counters = world.machine.counters();
    // The faults did happen.
    assert!(counters.returned > 0, "no draining worker gave anything back");
    assert!(world.lapses > FRONTENDS as u64, "no frontend was lost");
    assert!(counters.workers_lost > 0 && counters.retries > 0 && counters.stale_results > 0);
    assert!(world.model.adopted > 0, "no session was taken up again");
}

#[test]
#[ignore = "a minute in a debug build"]
fn a_million_actions() {
    let seed = number("KILN_SEED").unwrap_or_else(fresh_seed);
    in_memory(seed, 1_000, number("KILN_SIM_ACTIONS").unwrap_or(1_000_000));
}
