//! Schedules, over clocks that jump.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rig::Rig;
use crate::model::Time;
use crate::pipelines::Cron;
use crate::pipelines::control::schedules::{Due, due};
use crate::pipelines::file::{Missed, Schedule};
use crate::services::Clock as _;

const HOUR: u64 = 3_600_000;

fn hourly(missed: Missed) -> Schedule {
    let cron = Cron::read("0 * * * *", "UTC").unwrap();
    Schedule { cron, missed, inputs: BTreeMap::new() }
}

#[test]
fn a_clock_that_jumps_over_times_begins_one_run_or_none() {
    let (once, skip) = (hourly(Missed::Once), hourly(Missed::Skip));
    let at = |hours: u64, minutes: u64| Time(1_000 * HOUR + hours * HOUR + minutes * 60_000);
    assert_eq!(
        due(&once, None, at(0, 30)),
        Due::Looked(at(0, 30)),
        "nothing is begun for the past"
    );
    assert_eq!(due(&once, Some(at(0, 30)), at(0, 59)), Due::Nothing);
    assert_eq!(due(&once, Some(at(0, 30)), at(1, 0)), Due::Begin(at(1, 0)));
    assert_eq!(due(&once, Some(at(0, 30)), at(7, 30)), Due::Begin(at(7, 0)), "of many the last");
    assert_eq!(due(&skip, Some(at(0, 30)), at(7, 30)), Due::Looked(at(7, 0)));
    assert_eq!(due(&skip, Some(at(0, 30)), at(7, 4)), Due::Begin(at(7, 0)), "a little late");
    // Back: what was begun is not begun again.
    assert_eq!(due(&once, Some(at(7, 0)), at(6, 30)), Due::Nothing);
    assert_eq!(due(&once, Some(at(7, 0)), at(7, 30)), Due::Nothing);
    // It was wrong by days: it is not waited for these.
    assert_eq!(due(&once, Some(at(100, 0)), at(7, 30)), Due::Looked(at(7, 30)));
}

#[tokio::test(start_paused = true)]
async fn each_time_begins_one_run_however_many_frontends_look() {
    let mut rig = Rig::new();
    rig.declare(
        "name = \"nightly\"\n[[trigger]]\non = \"schedule\"\ncron = \"0 * * * *\"\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n",
    );
    let (one, other) = (rig.frontend(), rig.frontend());
    one.fire(rig.clock.now()).await;
    assert!(one.list(None, 10).await.unwrap().is_empty());
    rig.clock.advance(Duration::from_secs(3_600));
    let now = rig.clock.now();
    tokio::join!(one.fire(now), other.fire(now));
    one.fire(now).await;
    let begun = one.list(None, 10).await.unwrap();
    assert_eq!(begun.len(), 1);
    assert_eq!(
        (begun[0].run.trigger.as_str(), begun[0].run.pipeline.as_str()),
        ("schedule", "nightly")
    );
}

#[tokio::test(start_paused = true)]
async fn each_release_that_fits_begins_one_run_with_its_name() {
    let mut rig = Rig::new();
    rig.declare(
        "name = \"after\"\n[inputs.release]\n[[trigger]]\non = \"release\"\nnames = [\"team/app:*\"]\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n",
    );
    let made = |name: &str| rig.releases.0.lock().unwrap().push(format!(" {name}"));
    let (one, other) = (rig.frontend(), rig.frontend());
    made("team/app:0");
    one.follow().await;
    made("team/other:1");
    rig.releases.0.lock().unwrap().push("elsewhere team/app:9".to_owned());
    made("team/app:1");
    made("team/app:2");
    for _ in 0..5 {
        tokio::join!(one.follow(), other.follow());
    }
    let begun = one.list(None, 10).await.unwrap();
    let names: Vec<_> = begun.iter().rev().map(|it| it.run.inputs["release"].as_str()).collect();
    assert_eq!(names.len(), 2, "nothing of the past, and nothing else: {names:?}");
    assert!(names.contains(&"team/app:1") && names.contains(&"team/app:2"));
}

#[test]
fn a_call_begins_only_what_waits_for_it() {
    let mut rig = Rig::new();
    rig.declare(
        "name = \"pushed\"\n[[trigger]]\non = \"push\"\nbranches = [\"main\", \"release/*\"]\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n",
    );
    let pushed = &rig.declared["pushed"];
    assert!(pushed.is_triggered("push", "release/1.2"));
    assert!(!pushed.is_triggered("push", "feature") && !pushed.is_triggered("webhook", "main"));
}
