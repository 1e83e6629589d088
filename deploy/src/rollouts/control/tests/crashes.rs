//! Tests in which whoever drives is killed between any two writes, before the write is done or after it, and another
//! goes on.

use std::sync::atomic::Ordering;

use kiln_cas::records::{Expect, Records as _, Write};
use tokio::time::advance;

use super::rig::{DECLARED, METRIC, Rig, digest};
use crate::rollouts::control::{Driver, LEASE, keys};
use crate::rollouts::machine::{End, Event, Phase, RolloutState};

/// Drives to the end, whatever fails; whoever fails forgets everything.
async fn drive(rig: &Rig, id: &str) -> Phase {
    let mut driver = None;
    for _ in 0..400 {
        let mut current = match driver.take() {
            Some(driver) => driver,
            None => Driver::load(rig.control.clone(), id).await.unwrap(),
        };
        if current.round(rig.control.now()).await.is_ok() {
            current.looked().await;
            driver = Some(current);
        }
        let phase = rig.control.show(id).await.unwrap().state.phase;
        if matches!(phase, Phase::Ended(_)) && rig.control.locks().await.unwrap().is_empty() {
            return phase;
        }
        rig.wait(1_000);
    }
    panic!("it does not end");
}

/// Drives one rollout that is killed at the write of this number. Returns whether it came to that.
async fn killed(at: usize, after: bool, good: bool) -> bool {
    let rig = Rig::new();
    rig.good("app:1").await;
    for name in ["a", "b", "c", "d"] {
        rig.with(name, |fake| fake.changes = 0);
    }
    let one = rig.start(&format!("{DECLARED}{METRIC}"), "app:2").await;
    if !good {
        let canary = (0..60).map(|at| Some(900.0 + f64::from(at))).collect();
        let baseline = (0..60).map(|at| Some(100.0 + f64::from(at))).collect();
        let measured = crate::rollouts::parts::Measured::Points { canary, baseline };
        *rig.measures.next.lock().unwrap() = Some(measured);
    }
    let first = rig.records.writes.load(Ordering::SeqCst);
    *rig.records.fails.lock().unwrap() = Some((first + at, after));
    let end = drive(&rig, &one.id).await;
    let place = format!("killed {} write {at}", if after { "after" } else { "before" });
    let (expected, version) = match good {
        true => (End::Succeeded, digest("app:2")),
        false => (End::RolledBack, digest("app:1")),
    };
    assert_eq!(end, Phase::Ended(expected), "{place}");
    assert_eq!(rig.runs(), vec![version; 4], "{place}");
    assert_eq!(rig.changes(), if good { [1, 1, 1, 1] } else { [2, 0, 0, 0] }, "{place}");
    let shown = rig.control.show(&one.id).await.unwrap();
    let log = shown.log;
    assert_eq!(RolloutState::replay(shown.rollout.spec.clone(), &log), shown.state, "{place}");
    let count = |wanted: fn(&Event) -> bool| log.iter().filter(|it| wanted(&it.event)).count();
    assert_eq!(count(|it| matches!(it, Event::Ended(_))), 1, "{place}");
    assert_eq!(count(|it| matches!(it, Event::Locked(_))), 1, "{place}");
    rig.records.writes.load(Ordering::SeqCst) > first + at
}

#[tokio::test]
async fn a_crash_between_any_two_writes_changes_nothing_about_how_it_ends() {
    for good in [true, false] {
        for after in [false, true] {
            let mut at = 0;
            while killed(at, after, good).await {
                at += 1;
            }
            assert!(at > 10, "only {at} writes");
            println!("good {good}, after {after}: killed at each of {at} writes");
        }
    }
}

#[tokio::test]
async fn who_slept_while_another_drove_changes_nothing() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    let mut slept = Driver::load(rig.control.clone(), &one.id).await.unwrap();
    for _ in 0..5 {
        slept.round(rig.control.now()).await.unwrap();
        rig.wait(1_000);
    }
    let phase = rig.drive_to_end(&one.id).await;
    assert_eq!(phase, Phase::Ended(End::Succeeded));
    let length = rig.control.show(&one.id).await.unwrap().state.length;
    let before = rig.changes();
    slept.round(rig.control.now()).await.unwrap();
    slept.round(rig.control.now()).await.unwrap();
    assert_eq!(rig.changes(), before);
    assert_eq!(rig.control.show(&one.id).await.unwrap().state.length, length);
}

#[tokio::test]
async fn who_looks_after_a_rollout_that_ended_leaves_it_so_when_the_next_one_tells_its_targets() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let ended = rig.control.list(None, 1).await.unwrap().remove(0).rollout;
    let mut slept = Driver::load(rig.control.clone(), &ended.id).await.unwrap();
    let next = rig.start(DECLARED, "app:2").await;
    rig.drive(&next.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let before = rig.changes();
    for _ in 0..4 {
        rig.wait(10_000);
        slept.round(rig.control.now()).await.unwrap();
    }
    assert_eq!(rig.changes(), before);
    let head = rig.control.head(&ended.id).await.unwrap().unwrap();
    assert_eq!(head.phase, "succeeded");
    assert_eq!(rig.control.figures().overtaken, 0);
}

#[tokio::test(start_paused = true)]
async fn one_of_two_drives_and_the_other_takes_over_when_the_lease_is_over() {
    let one = Rig::new();
    assert!(one.control.leads().await.unwrap());
    advance(LEASE / 8).await;
    assert!(one.control.leads().await.unwrap(), "it has it");
    advance(LEASE / 2).await;
    assert!(one.control.leads().await.unwrap(), "it is renewed");
    let other = one.elsewhere();
    assert!(!other.leads().await.unwrap());
    advance(LEASE).await;
    assert!(!other.leads().await.unwrap());
    advance(LEASE / 8).await;
    assert!(other.leads().await.unwrap());
    assert!(!one.control.leads().await.unwrap());
}

#[tokio::test(start_paused = true)]
async fn two_tasks_of_one_process_that_renew_at_once_both_have_the_lease() {
    let one = Rig::new();
    one.records.slow.store(true, Ordering::SeqCst);
    let (first, second) = tokio::join!(one.control.leads(), one.control.leads());
    assert!(first.unwrap() && second.unwrap(), "it is taken");
    advance(LEASE / 2).await;
    let (first, second) = tokio::join!(one.control.leads(), one.control.leads());
    assert!(first.unwrap() && second.unwrap(), "it is renewed");
    let other = one.elsewhere();
    assert!(!other.leads().await.unwrap());
    // The lease has ended, and exactly one of the two processes gets it.
    advance(2 * LEASE).await;
    let (first, second) = tokio::join!(one.control.leads(), other.leads());
    assert!(first.unwrap() != second.unwrap());
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_is_set_takes_the_lease_from_nobody() {
    let one = Rig::new();
    let other = one.elsewhere();
    let now = one.control.now();
    assert!(one.control.leads().await.unwrap());
    for set in [now + 3_600_000, 0, now] {
        one.time.0.store(set, Ordering::SeqCst);
        advance(LEASE / 2).await;
        assert!(one.control.leads().await.unwrap(), "{set}");
        assert!(!other.leads().await.unwrap(), "{set}");
    }
    // A clock that is set does not make the process keep the lease for longer, either.
    one.time.0.store(0, Ordering::SeqCst);
    advance(2 * LEASE).await;
    assert!(other.leads().await.unwrap());
}

/// An earlier version wrote leases in a form that this one does not read.
#[tokio::test]
async fn a_lease_that_cannot_be_read_holds_up_nobody() {
    let one = Rig::new();
    let old = br#"{"holder":"old","until":9999999999999}"#.as_slice();
    let write =
        Write { key: keys::LEASE.to_owned(), expect: Expect::Absent, value: Some(old.into()) };
    one.records.inner.write(vec![write]).await.unwrap();
    assert!(one.control.leads().await.unwrap());
    assert!(!one.elsewhere().leads().await.unwrap());
}
