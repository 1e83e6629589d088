//! A driver that panics each time it runs.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tokio::time::{sleep, timeout};

use super::rig::{DECLARED, Rig};
use crate::rollouts::control::faults;
use crate::rollouts::machine::Event;

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
    // What is gone by itself may come again.
    rig.listed.breaks.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    assert!(!driving.is_finished());
    assert!(rig.control.show(&one.id).await.unwrap().state.paused.is_some());
    driving.abort();
}
