//! What one action costs the queue while many others wait. Prints nanoseconds for each of
//! submission, and for dispatch, completion and publication together.
//!
//! `cargo run --release -p kiln-scheduler --example queue_cost`

use std::sync::Arc;
use std::time::Instant;

use kiln_cas::{ActionKey, Digest, DigestFunction};
use kiln_scheduler::queue::platform::{Offer, Requirement};
use kiln_scheduler::queue::{Effect, Event, Joined, Limits, Machine, Submit, WorkerId};

const WORKERS: u64 = 100;
const SLOTS: u32 = 8;
const INVOCATIONS: u64 = 50;
const PROPERTY_SETS: u64 = 20;
const MEASURED: u64 = 20_000;

fn main() {
    println!("{:>10} {:>12} {:>12}", "queued", "submit ns", "run ns");
    for queued in [1_000, 10_000, 100_000, 1_000_000] {
        let (submit, run) = measure(queued);
        println!("{queued:>10} {submit:>12} {run:>12}");
    }
}

fn submit(number: u64, sets: &[Requirement], invocations: &[Arc<str>]) -> Event {
    let mut hash = [0; 32];
    hash[..8].copy_from_slice(&number.to_le_bytes());
    let action = Digest { hash, size: 8, function: DigestFunction::Sha256 };
    // Not in order, so that the trees grow everywhere.
    let mixed = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Event::Submit(Box::new(Submit {
        key: ActionKey { instance: "main".into(), action },
        requirement: sets[(mixed >> 40) as usize % sets.len()].clone(),
        priority: 0,
        invocation: invocations[(mixed >> 20) as usize % invocations.len()].clone(),
        expected_ms: Some(mixed >> 50),
        timeout_ms: 60_000,
        do_not_cache: false,
        skip_cache_lookup: false,
        caller: None,
        avoid: None,
    }))
}

/// Mean nanoseconds with so many tasks waiting throughout.
fn measure(queued: u64) -> (u128, u128) {
    let property = |n: u64| ("pool".to_owned(), n.to_string());
    let sets: Vec<_> = (0..PROPERTY_SETS).map(|n| Requirement::new([property(n)])).collect();
    let invocations: Vec<Arc<str>> = (0..INVOCATIONS).map(|n| n.to_string().into()).collect();
    let mut machine = Machine::new(Limits { max_queued: 2_000_000, ..Limits::default() });
    let mut effects = Vec::new();
    for worker in 0..WORKERS {
        let joined = Joined {
            worker: WorkerId(worker + 1),
            name: worker.to_string().into(),
            slots: SLOTS,
            // Each worker serves a third of the sets.
            offer: Offer::new((0..PROPERTY_SETS).filter(|n| n % 3 == worker % 3).map(property)),
            leases: Vec::new(),
            paused: None,
        };
        machine.handle(0, Event::WorkerJoined(joined), &mut effects);
    }
    let mut number = 0;
    while (machine.queued() as u64) < queued {
        number += 1;
        machine.handle(0, submit(number, &sets, &invocations), &mut effects);
    }
    let mut running: Vec<_> = (effects.drain(..))
        .filter_map(|effect| match effect {
            Effect::Assign { worker, lease, .. } => Some((worker, lease)),
            _ => None,
        })
        .collect();
    let events: Vec<_> =
        (0..MEASURED).map(|n| submit(number + 1 + n, &sets, &invocations)).collect();
    let begun = Instant::now();
    for event in events {
        machine.handle(1, event, &mut effects);
    }
    let submit_ns = begun.elapsed().as_nanos() / u128::from(MEASURED);
    effects.clear();
    let begun = Instant::now();
    for n in 0..MEASURED as usize {
        let slot = n % running.len();
        let (worker, lease) = running[slot];
        machine.handle(2, Event::Completed { worker, lease }, &mut effects);
        let mut published = None;
        for effect in effects.drain(..) {
            match effect {
                Effect::Publish { task, .. } => published = Some(task),
                Effect::Assign { worker, lease, .. } => running[slot] = (worker, lease),
                _ => {}
            }
        }
        if let Some(task) = published {
            machine.handle(2, Event::Published { task, bytes: 500 }, &mut effects);
        }
        effects.clear();
    }
    (submit_ns, begun.elapsed().as_nanos() / u128::from(MEASURED))
}
