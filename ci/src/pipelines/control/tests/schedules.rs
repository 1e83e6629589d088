//! Schedules, over clocks that jump.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rig::{Hand, Rig};
use crate::model::Time;
use crate::pipelines::Cron;
use crate::pipelines::control::schedules::{Due, due};
use crate::pipelines::file::{Missed, Schedule};
use crate::services::Clock as _;

const HOUR: u64 = 3_600_000;
const HOURLY: &str = r#"
name = "nightly"
[[trigger]]
on = "schedule"
cron = "0 * * * *"
[[stage]]
name = "a"
command = ["true"]
"#;

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
    // The clock is set back: the schedule does not begin again what it has begun already.
    assert_eq!(due(&once, Some(at(7, 0)), at(6, 30)), Due::Nothing);
    assert_eq!(due(&once, Some(at(7, 0)), at(7, 30)), Due::Nothing);
    // The clock was wrong by days, and the schedule does not wait for these days to pass.
    assert_eq!(due(&once, Some(at(100, 0)), at(7, 30)), Due::Looked(at(7, 30)));
}

#[test]
fn of_a_week_in_which_nothing_ran_one_run_is_left() {
    let cron = Cron::read("* * * * *", "UTC").unwrap();
    let minutely = Schedule { cron, missed: Missed::Once, inputs: BTreeMap::new() };
    let (before, now) = (Time(1_000 * HOUR), Time((1_000 + 7 * 24) * HOUR));
    assert_eq!(due(&minutely, Some(before), now), Due::Begin(now));
    assert_eq!(due(&minutely, Some(now), now), Due::Nothing);
}

#[tokio::test(start_paused = true)]
async fn each_time_begins_one_run_however_many_frontends_look() {
    let mut rig = Rig::new();
    rig.declare(HOURLY);
    let (one, other) = (rig.frontend(), rig.frontend());
    one.fire(rig.clock.now()).await;
    assert!(one.list(None, 10).await.unwrap().is_empty());
    let calls = rig.memory.calls();
    one.fire(rig.clock.now()).await;
    assert_eq!(rig.memory.calls(), calls, "nothing is asked while nothing is due");
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
async fn two_schedules_that_are_due_alike_both_begin_what_they_give() {
    let mut rig = Rig::new();
    let schedule = |target: &str| {
        format!(
            "[[trigger]]\non = \"schedule\"\ncron = \"0 * * * *\"\ninputs = {{ target = \"{target}\" }}\n"
        )
    };
    let (arm, x86) = (schedule("arm"), schedule("x86"));
    let stage = "[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n";
    rig.declare(&format!("name = \"both\"\n[inputs.target]\n{arm}{x86}{stage}"));
    let one = rig.frontend();
    one.fire(rig.clock.now()).await;
    rig.clock.advance(Duration::from_secs(3_600));
    for _ in 0..2 {
        one.fire(rig.clock.now()).await;
    }
    let begun = one.list(None, 10).await.unwrap();
    let mut given: Vec<_> = begun.iter().map(|it| it.run.inputs["target"].as_str()).collect();
    given.sort_unstable();
    assert_eq!(given, ["arm", "x86"]);
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_while_he_begins_a_run_is_followed_by_one_who_begins_it_once() {
    let mut begun_by_the_first = Vec::new();
    for calls in 0..20 {
        for last_is_done in [false, true] {
            let mut rig = Rig::new();
            rig.declare(HOURLY);
            let (one, other) = (rig.frontend(), rig.frontend());
            one.fire(rig.clock.now()).await;
            rig.clock.advance(Duration::from_secs(3_600));
            rig.memory.fail_after(calls, last_is_done);
            one.fire(rig.clock.now()).await;
            rig.memory.recover();
            begun_by_the_first.push(other.list(None, 10).await.unwrap().len());
            other.fire(rig.clock.now()).await;
            let begun = other.list(None, 10).await.unwrap();
            assert_eq!(begun.len(), 1, "after {calls} calls, {last_is_done}");
        }
    }
    assert!(begun_by_the_first.contains(&0) && begun_by_the_first.contains(&1));
}

/// The clock of frontends goes as the runtime's does.
async fn ticking(clock: &Hand) {
    loop {
        tokio::time::sleep(Duration::from_millis(250)).await;
        clock.advance(Duration::from_millis(250));
    }
}

/// Follows a course until its end, which is beyond this time.
async fn go_past(time: Time, clock: &Hand, course: impl Future<Output = ()>) {
    tokio::select! {
        () = course => {}
        () = ticking(clock) => {}
    }
    assert!(clock.now() > time);
}

/// Puts the clock a minute before an hour.
fn before_an_hour(rig: &Rig) -> Time {
    let now = rig.clock.now();
    let hour = Time(now.0.next_multiple_of(HOUR));
    rig.clock.advance(hour.since(now) - Duration::from_secs(60));
    hour
}

#[tokio::test(start_paused = true)]
async fn whoever_leads_need_not_have_the_pipeline_declared() {
    let mut rig = Rig::new();
    let hour = before_an_hour(&rig);
    // While this run goes on, the frontend that drives it leads.
    rig.start("name = \"long\"\n[[stage]]\nname = \"hangs\"\ncommand = [\"true\"]\n").await;
    let leader = tokio::spawn(rig.frontend().run());
    rig.declare(HOURLY);
    let other = rig.frontend();
    let course = async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        let second = tokio::spawn(other.clone().run());
        tokio::time::sleep(Duration::from_secs(90)).await;
        leader.abort();
        second.abort();
    };
    go_past(hour, &rig.clock, course).await;
    let begun = other.list(None, 10).await.unwrap();
    let scheduled = begun.iter().filter(|it| it.run.trigger == "schedule");
    assert_eq!(scheduled.count(), 1, "of {}", begun.len());
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_is_lost_around_a_time_neither_loses_nor_repeats_it() {
    let minute = Duration::from_secs(60);
    // In half seconds: from ten seconds before the time on, until its lease would have ended behind it.
    for lost in 0..48 {
        let mut rig = Rig::new();
        rig.declare(HOURLY);
        let hour = before_an_hour(&rig);
        let first = tokio::spawn(rig.frontend().run());
        let other = rig.frontend();
        let course = async {
            // The frontend that comes first leads, so the second one starts later.
            tokio::time::sleep(Duration::from_secs(3)).await;
            let second = tokio::spawn(other.clone().run());
            tokio::time::sleep(Duration::from_millis(47_000 + 500 * lost)).await;
            first.abort();
            tokio::time::sleep(minute).await;
            second.abort();
        };
        go_past(hour, &rig.clock, course).await;
        let begun = other.list(None, 10).await.unwrap();
        assert_eq!(begun.len(), 1, "lost after {lost} half seconds");
    }
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

#[tokio::test(start_paused = true)]
async fn a_release_that_a_pipeline_does_not_take_holds_up_no_other_one() {
    let mut rig = Rig::new();
    rig.declare(
        "name = \"after\"\n[inputs.release]\nvalues = [\"team/app:2\"]\n[[trigger]]\non = \"release\"\nnames = [\"team/app:*\"]\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n",
    );
    let one = rig.frontend();
    one.follow().await;
    for name in ["team/app:1", "team/app:2"] {
        rig.releases.0.lock().unwrap().push(format!(" {name}"));
    }
    for _ in 0..3 {
        one.follow().await;
    }
    let begun = one.list(None, 10).await.unwrap();
    let names: Vec<_> = begun.iter().map(|it| it.run.inputs["release"].as_str()).collect();
    assert_eq!(names, ["team/app:2"]);
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
