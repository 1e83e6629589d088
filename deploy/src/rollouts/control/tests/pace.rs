//! Targets a few at a time, baselines that are started anew, and parts that are slow.

use super::rig::{DECLARED, METRIC, Rig, digest};
use crate::rollouts::machine::{End, Event, Phase};

const SUCCEEDED: Phase = Phase::Ended(End::Succeeded);
const ROLLED_BACK: Phase = Phase::Ended(End::RolledBack);

/// How many targets were told together, wave by wave.
async fn waves(rig: &Rig, id: &str) -> Vec<usize> {
    let log = rig.control.show(id).await.unwrap().log;
    let wave = |event: &Event| match event {
        Event::WaveBegan(ids) => Some(ids.len()),
        _ => None,
    };
    log.iter().filter_map(|it| wave(&it.event)).collect()
}

#[tokio::test]
async fn no_more_targets_switch_at_once_than_may_be_down() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let declared = format!("unavailable = \"50%\"\nstay_up = 3\n{DECLARED}");
    let one = rig.start(&declared, "app:2").await;
    assert_eq!(rig.drive_to_end(&one.id).await, SUCCEEDED);
    assert_eq!(waves(&rig, &one.id).await, [1, 1, 1, 1]);
    assert_eq!(rig.runs(), vec![digest("app:2"); 4]);

    // The same pace holds on the way back.
    let bad = rig.start(&declared, "app:3").await;
    rig.drive(&bad.id, 100, |phase| matches!(phase, Phase::Soaking)).await;
    rig.with("b", |fake| fake.crashes = 3);
    assert_eq!(rig.drive_to_end(&bad.id).await, ROLLED_BACK);
    assert_eq!(waves(&rig, &bad.id).await, [1; 8]);
    assert_eq!(rig.runs(), vec![digest("app:2"); 4]);
}

#[tokio::test]
async fn who_is_down_already_counts() {
    let rig = Rig::new();
    rig.good("app:1").await;
    rig.with("d", |fake| fake.health = Some("refused".to_owned()));
    let declared = format!("unavailable = 1\n{DECLARED}");
    let one = rig.start(&declared, "app:2").await;
    rig.drive(&one.id, 20, |_| false).await;
    let shown = rig.control.show(&one.id).await.unwrap();
    assert_eq!((shown.state.phase, shown.state.crowded), (Phase::Applying(0), Some(1)));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    let preview = rig.control.preview(&declared, "prod").await.unwrap();
    assert_eq!(preview.down, [("d".to_owned(), "refused".to_owned())]);
    assert_eq!((preview.plan.unavailable, preview.plan.steps[1].waves), (Some(1), 3));
    rig.with("d", |fake| fake.health = None);
    assert_eq!(rig.drive_to_end(&one.id).await, SUCCEEDED);
}

#[tokio::test]
async fn a_canary_is_compared_with_targets_that_were_started_anew_with_it() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let declared = format!("{DECLARED}[judge]\nbaseline = \"fresh\"\n{METRIC}");
    let preview = rig.control.preview(&declared, "prod").await.unwrap();
    assert_eq!(preview.fresh, [vec!["d".to_owned()], Vec::new()]);
    rig.measures.baselines.lock().unwrap().clear();
    let one = rig.start(&declared, "app:2").await;
    assert_eq!(rig.drive_to_end(&one.id).await, SUCCEEDED);
    let compared = rig.measures.baselines.lock().unwrap().clone();
    assert_eq!(compared[0], ["d".to_owned()]);
    assert_eq!(rig.changes(), [2, 2, 2, 3], "it was started anew once");
    assert_eq!(rig.control.list(None, 1).await.unwrap()[0].head.changed, 4);
}

#[tokio::test(start_paused = true)]
async fn a_slow_balancer_holds_up_no_way_back() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let both = format!("by = \"both\"\ntraffic = \"edge\"\n{DECLARED}");
    let held = rig.splits.1.lock().await;
    let one = rig.start(&both, "app:2").await;
    rig.drive(&one.id, 10, |_| false).await;
    let shown = rig.control.show(&one.id).await.unwrap();
    assert_eq!(shown.state.phase, Phase::Applying(0), "its requests are not split yet");
    *rig.listed.refused.lock().unwrap() = Some("app:2 is rejected by bob".to_owned());
    rig.drive(&one.id, 10, |_| false).await;
    assert_eq!(rig.runs(), vec![digest("app:1"); 4], "targets wait for no balancer");
    drop(held);
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
}

#[tokio::test(start_paused = true)]
async fn whoever_says_slowly_how_targets_are_holds_up_no_decision() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let held = rig.fleet.gate.lock().await;
    *rig.listed.refused.lock().unwrap() = Some("app:2 is rejected by bob".to_owned());
    let phase = rig.drive(&one.id, 10, |phase| matches!(phase, Phase::RollingBack)).await;
    assert_eq!(phase, Phase::RollingBack);
    rig.drive(&one.id, 3, |_| false).await;
    assert_eq!(rig.runs(), vec![digest("app:1"); 4], "who returns is told");
    drop(held);
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
}

#[tokio::test]
async fn the_floor_of_an_environment_holds_whatever_is_declared() {
    let rig = Rig::floored(&[("prod", 3)]);
    let first = rig.start(DECLARED, "app:1").await;
    assert_eq!(first.spec.unavailable, Some(1));
    rig.drive_to_end(&first.id).await;
    let preview = rig.control.preview(DECLARED, "prod").await.unwrap();
    let elsewhere = rig.control.preview(DECLARED, "stage").await.unwrap();
    assert_eq!((preview.plan.unavailable, elsewhere.plan.unavailable), (Some(1), None));
    let next = rig.start(&format!("unavailable = 4\n{DECLARED}"), "app:2").await;
    assert_eq!(rig.drive_to_end(&next.id).await, SUCCEEDED);
    assert_eq!(waves(&rig, &next.id).await, [1, 1, 1, 1]);
}
