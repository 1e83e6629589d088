//! What is counted of rollouts.

use super::rig::{DECLARED, Rig};
use crate::rollouts::control::{By, Command, PHASES};
use crate::rollouts::machine::{End, Phase};

const ROLLED_BACK: Phase = Phase::Ended(End::RolledBack);

fn by() -> By {
    By { name: "ana".to_owned(), reason: "because".to_owned() }
}

#[tokio::test]
async fn what_came_and_what_failed_is_counted_with_its_times_and_what_was_taken_back_is_neither() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let came = rig.control.now();
    let bad = rig.start(DECLARED, "app:2").await;
    rig.drive(&bad.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    rig.with("a", |fake| fake.crashes = 3);
    assert_eq!(rig.drive_to_end(&bad.id).await, ROLLED_BACK);
    let restored = rig.control.now() - bad.at;
    let prod = rig.control.figures().deployments["prod"];
    assert_eq!((prod.changes, prod.failures), (2, 1));
    // The release was made at 0.
    assert_eq!(prod.lead.count(), 1);
    assert!(prod.lead.seconds() > 1_000.0 && prod.lead.seconds() <= came as f64 / 1_000.0);
    assert_eq!(prod.restore.count(), 1);
    assert!(prod.restore.seconds() > 0.0 && prod.restore.seconds() <= restored as f64 / 1_000.0);

    let aborted = rig.start(DECLARED, "app:3").await;
    rig.drive(&aborted.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    rig.control.say(&aborted.id, Command::Abort, &by()).await.unwrap();
    assert_eq!(rig.drive_to_end(&aborted.id).await, ROLLED_BACK);
    assert_eq!(rig.control.figures().deployments["prod"], prod);
}

#[tokio::test]
async fn those_that_run_are_counted_by_phase_and_a_drill_that_is_overdue_by_place() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    rig.wait(3_000);
    let census = rig.control.counted(0).await.unwrap();
    assert_eq!((census.running.len(), census.running["baking"].rollouts), (1, 1), "{census:?}");
    assert!(census.running["baking"].oldest >= 3_000, "{census:?}");
    rig.control.say(&one.id, Command::Pause, &by()).await.unwrap();
    rig.wait(60_000);
    let census = rig.control.counted(0).await.unwrap();
    assert_eq!(census.running["paused"].oldest, 60_000, "{census:?}");
    assert!(census.running.keys().all(|phase| PHASES.contains(&phase.as_str())));
    assert_eq!(rig.control.drills_overdue().await.unwrap(), 0);

    rig.control.say(&one.id, Command::Abort, &by()).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    let demands = DECLARED.replace("watch = ", "drill_every = \"30d\"\nwatch = ");
    let drill = crate::rollouts::control::Start { drill: true, ..Rig::ask(&demands, "app:3") };
    let drill = rig.control.start(&drill).await.unwrap();
    assert_eq!(rig.drive_to_end(&drill.id).await, ROLLED_BACK);
    assert_eq!(rig.control.drills_overdue().await.unwrap(), 0);
    rig.wait(31 * 86_400_000);
    let overdue = rig.control.drills_overdue().await.unwrap();
    let census = rig.control.counted(overdue).await.unwrap();
    assert_eq!((census.drills_overdue, census.running.len()), (1, 0), "{census:?}");
}
