use std::time::Duration;

use super::*;
use crate::clock::Clock;

const LEASE: u32 = 1000;
const MIN: u64 = 100;

fn promised(at: u32, holders: u32) -> Times {
    Times { accessed: at, leased_until: at + LEASE, holders }
}

fn invocations(clock: &Clock) -> Invocations {
    let invocations = Invocations::new(clock.clone(), Duration::from_secs(MIN));
    // Past the time in which an invocation may have run before this process.
    clock.advance(1000);
    invocations
}

fn stands(invocations: &Invocations, clock: &Clock, times: Times) -> bool {
    Ruling { now: clock.now(), cut: Some(invocations.cut(LEASE)) }.stands(times)
}

#[test]
fn an_invocation_runs_while_it_asks_and_a_while_after() {
    let clock = Clock::manual(1000);
    let invocations = invocations(&clock);
    let request = invocations.begin(b"a").unwrap();
    let times = promised(clock.now(), request.holders());
    clock.advance(500);
    assert!(stands(&invocations, &clock, times), "its request is under way");
    drop(request);
    clock.advance(99);
    assert!(stands(&invocations, &clock, times) && invocations.running() == 1);
    clock.advance(1);
    assert!(!stands(&invocations, &clock, times) && invocations.running() == 0);
    // A promise that belongs to no invocation stands for the least time from the promise on.
    let nobodys = promised(clock.now(), 0);
    clock.advance(99);
    assert!(stands(&invocations, &clock, nobodys));
    clock.advance(1);
    assert!(!stands(&invocations, &clock, nobodys));
    assert!(Ruling::strict(clock.now()).stands(nobodys), "where none may be cut short");
    assert!(invocations.begin(b"").is_none());
}

#[test]
fn whoever_takes_a_seat_does_not_hold_what_was_promised_there_before() {
    let clock = Clock::manual(1000);
    let invocations = invocations(&clock);
    let times = promised(clock.now(), u32::MAX);
    clock.advance(200);
    let requests: Vec<_> =
        (0..100u32).map(|n| invocations.begin(&n.to_le_bytes()).unwrap()).collect();
    let seats = requests.iter().fold(0, |seats, request| seats | request.holders());
    assert_eq!(seats, u32::MAX, "they spread over all seats");
    assert!(!stands(&invocations, &clock, times));
    let later = promised(clock.now(), requests[3].holders());
    clock.advance(200);
    assert!(stands(&invocations, &clock, later));
}

#[test]
fn what_ran_before_a_restart_keeps_its_promises_when_it_goes_on() {
    let clock = Clock::manual(5000);
    let before = Times { accessed: 4000, leased_until: 4000 + LEASE, holders: u32::MAX };
    let invocations = Invocations::new(clock.clone(), Duration::from_secs(MIN));
    assert!(!stands(&invocations, &clock, promised(4000, 0)));
    let request = invocations.begin(b"a").unwrap();
    assert!(stands(&invocations, &clock, Times { leased_until: 5500, ..before }));
    drop(request);
    clock.advance(100);
    let _late = invocations.begin(b"b").unwrap();
    assert!(!stands(&invocations, &clock, Times { leased_until: 5500, ..before }));
}

#[test]
fn names_without_end_take_bounded_memory_and_still_count() {
    let clock = Clock::manual(1000);
    let invocations = invocations(&clock);
    for n in 0..10_000u32 {
        drop(invocations.begin(&n.to_le_bytes()));
    }
    assert_eq!(invocations.running(), 4097);
    let crowd = invocations.begin(b"one more").unwrap();
    let times = promised(clock.now(), crowd.holders());
    clock.advance(500);
    assert!(stands(&invocations, &clock, times));
    drop(crowd);
    clock.advance(100);
    drop(invocations.begin(b"the next"));
    assert_eq!(invocations.running(), 1);
}
