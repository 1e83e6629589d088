//! Parts of a rollout that are away or refuse to work: each ends in a state that says so.

use std::sync::atomic::Ordering;

use super::rig::{DECLARED, METRIC, Rig, digest};
use crate::judge::Points;
use crate::rollouts::machine::{End, Event, Phase, Why};
use crate::rollouts::parts::Measured;

#[tokio::test]
async fn a_store_of_releases_that_is_away_holds_up_what_begins_and_no_way_back() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(&format!("{DECLARED}{METRIC}"), "app:2").await;
    rig.listed.away.store(true, Ordering::SeqCst);
    assert_eq!(rig.drive(&one.id, 60, |_| false).await, Phase::Verifying);
    assert_eq!(rig.runs(), vec![digest("app:1"); 4], "nothing unverified comes to a target");
    rig.listed.away.store(false, Ordering::SeqCst);
    rig.drive(&one.id, 120, |phase| matches!(phase, Phase::Baking(0))).await;
    // It is away again when a limit is broken.
    rig.listed.away.store(true, Ordering::SeqCst);
    let points = |value: f64| -> Points { (0..60).map(|at| Some(value + f64::from(at))).collect() };
    let broken = Measured::Points { canary: points(900.0), baseline: points(100.0) };
    *rig.measures.next.lock().unwrap() = Some(broken);
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RolledBack));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    assert!(rig.listed.blamed.lock().unwrap().is_empty());
    // That the release is bad is noted when somebody answers.
    rig.listed.away.store(false, Ordering::SeqCst);
    rig.drive(&one.id, 60, |_| false).await;
    assert_eq!(rig.listed.blamed.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_partition_that_leaves_half_of_the_targets_on_the_old_version_reverts_the_others() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(&DECLARED.replace("[25, 100]", "[50, 100]"), "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let cut: Vec<String> = {
        let targets = rig.fleet.targets.lock().unwrap();
        let old = targets.iter().filter(|(_, it)| it.version == Some(digest("app:1")));
        old.map(|(name, _)| name.clone()).collect()
    };
    assert_eq!(cut.len(), 2);
    cut.iter().for_each(|name| rig.with(name, |fake| fake.silent = true));
    let end = rig.drive_to_end(&one.id).await;
    assert_eq!(end, Phase::Ended(End::RolledBack));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4], "no target is left on another version");
    let log = rig.control.show(&one.id).await.unwrap().log;
    let lost = |event: &Event| matches!(event, Event::RollbackBegan(Why::Lost(1 | 2)));
    assert!(log.iter().any(|it| lost(&it.event)), "{log:?}");
    // The partition ends: what the others were told to begin with is not carried out late.
    cut.iter().for_each(|name| rig.with(name, |fake| fake.silent = false));
    rig.drive(&one.id, 120, |_| false).await;
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
}
