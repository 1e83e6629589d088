//! What panics each time it is done holds up nothing else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::rig::{DECLARED, Rig};
use crate::rollouts::control::faults;
use crate::rollouts::machine::{End, Event, Phase};

#[tokio::test(start_paused = true)]
async fn a_rollout_whose_driver_panics_each_time_is_paused_until_a_person_has_looked() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.listed.breaks.store(true, Ordering::SeqCst);
    let driving = tokio::spawn(faults::keep(rig.control.clone(), one.id.clone()));
    let paused = async {
        while rig.control.show(&one.id).await.unwrap().state.paused.is_none() {
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(3_600), paused).await.expect("it is paused");
    let log = rig.control.show(&one.id).await.unwrap().log;
    let says = |why: &str| why.contains("5 times in a row") && why.contains("it breaks");
    let held = |event: &Event| matches!(event, Event::Paused(why) if says(why));
    assert!(log.iter().any(|it| held(&it.event)), "{log:?}");
    // A fault that goes away by itself may come back, so the rollout stays paused.
    rig.listed.breaks.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    assert!(!driving.is_finished());
    assert!(rig.control.show(&one.id).await.unwrap().state.paused.is_some());
    driving.abort();
}

/// Lets time go by until the rollout has come so far.
async fn until(rig: &Rig, id: &str, holds: impl Fn(&Phase) -> bool) {
    let comes = async {
        while !holds(&rig.control.show(id).await.unwrap().state.phase) {
            rig.wait(100);
            sleep(Duration::from_millis(100)).await;
        }
    };
    timeout(Duration::from_secs(3_600), comes).await.expect("it comes so far");
}

#[tokio::test(start_paused = true)]
async fn whoever_panics_looking_for_rollouts_ends_none_that_goes_on() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    let driving = tokio::spawn(rig.control.clone().run());
    until(&rig, &one.id, |phase| matches!(phase, Phase::Baking(_))).await;
    rig.records.breaks.store(true, Ordering::SeqCst);
    until(&rig, &one.id, |phase| matches!(phase, Phase::Ended(_))).await;
    assert_eq!(rig.control.show(&one.id).await.unwrap().state.phase, Phase::Ended(End::Succeeded));
    assert!(!driving.is_finished());
    // What begins meanwhile is found once that is mended.
    rig.records.breaks.store(false, Ordering::SeqCst);
    let next = rig.start(DECLARED, "app:3").await;
    until(&rig, &next.id, |phase| matches!(phase, Phase::Ended(_))).await;
    driving.abort();
}
