//! A frontend dies, or its records do, between any two steps: another one goes on, and nothing is done twice.

use std::time::Duration;

use super::rig::Rig;
use crate::pipelines::control::Stands;
use crate::pipelines::control::driver::Driver;

const CHAIN: &str = r#"
name = "chain"
concurrency = { group = "g" }
[[stage]]
name = "a"
command = ["true"]
[[stage]]
name = "b"
needs = ["a"]
matrix = { n = [1, 2] }
command = ["true"]
[[stage]]
name = "c"
needs = ["a", "b"]
command = ["use", "${stages.a.tree}"]
"#;

#[tokio::test(start_paused = true)]
async fn a_frontend_that_dies_between_any_two_steps_is_replaced() {
    let mut deaths = 0;
    for calls in 0.. {
        for last_is_done in [false, true] {
            let rig = Rig::new();
            let run = rig.start(CHAIN).await;
            rig.memory.fail_after(calls, last_is_done);
            let died = rig.drive(&run.id).await.is_err();
            rig.memory.recover();
            rig.drive(&run.id).await.unwrap();
            let shown = rig.frontend().show(&run.id).await.unwrap();
            assert_eq!(Stands::of(&shown.state), Stands::Passed, "after {calls} calls");
            assert!(shown.state.stages.iter().all(|it| it.attempts == 1), "after {calls} calls");
            let times = rig.times();
            assert_eq!(times.len(), 4);
            assert!(times.values().all(|it| *it == 1), "{calls}: {times:?}");
            deaths += usize::from(died);
            if !died {
                assert!(deaths > 30, "it died {deaths} times");
                return;
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn two_frontends_with_the_same_run_do_it_once() {
    let rig = Rig::new();
    let run = rig.start(CHAIN).await;
    let (one, other) = tokio::join!(rig.drive(&run.id), rig.drive(&run.id));
    one.unwrap();
    other.unwrap();
    let shown = rig.frontend().show(&run.id).await.unwrap();
    assert_eq!(Stands::of(&shown.state), Stands::Passed);
    assert!(rig.times().values().all(|it| *it == 1), "{:?}", rig.times());
}

#[tokio::test(start_paused = true)]
async fn records_that_are_away_hold_a_run_up_and_no_more() {
    let rig = Rig::new();
    let run = rig.start(CHAIN).await;
    rig.memory.fail_after(7, true);
    let driving = tokio::spawn(Driver::keep(rig.frontend(), run.id.clone()));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!driving.is_finished());
    rig.memory.recover();
    driving.await.unwrap();
    let shown = rig.frontend().show(&run.id).await.unwrap();
    assert_eq!(Stands::of(&shown.state), Stands::Passed);
    assert!(rig.times().values().all(|it| *it == 1), "{:?}", rig.times());
}
