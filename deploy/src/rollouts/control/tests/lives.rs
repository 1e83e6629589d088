//! Tests of how rollouts go.

use std::sync::atomic::Ordering;

use kiln_cas::records::{Expect, Records, Write};

use super::rig::{DECLARED, METRIC, Rig, digest, words};
use crate::judge::{Points, Verdict};
use crate::rollouts::control::{By, Command, ControlError};
use crate::rollouts::machine::{End, Event, Phase, Why};
use crate::rollouts::parts::{Measured, Place, Side};

const SUCCEEDED: Phase = Phase::Ended(End::Succeeded);
const ROLLED_BACK: Phase = Phase::Ended(End::RolledBack);

fn points(value: f64) -> Points {
    (0..60).map(|at| Some(value + f64::from(at * 37 % 11))).collect()
}

fn by(name: &str) -> By {
    By { name: name.to_owned(), reason: "because".to_owned() }
}

#[tokio::test]
async fn a_good_release_comes_to_all_targets_and_is_what_the_next_returns_to() {
    let rig = Rig::new();
    rig.good("app:1").await;
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    let next = rig.start(&format!("{DECLARED}{METRIC}"), "app:2").await;
    assert_eq!(next.previous.as_ref().unwrap().release.to_string(), "app:1");
    assert_eq!(rig.drive_to_end(&next.id).await, SUCCEEDED);
    let shown = rig.control.show(&next.id).await.unwrap();
    let looked: Vec<_> = shown.judgements.iter().map(|it| it.verdict).collect();
    assert_eq!(looked, [Verdict::Promote; 3], "{:?}", shown.judgements);
    assert!(shown.judgements[0].reasons[0].contains("nothing is left to compare with"));
    assert!(rig.control.locks().await.unwrap().is_empty(), "the lock is given back");
    let audit = kiln_cas::stores::audit::AuditLog::new(rig.records.inner.clone());
    assert_eq!(audit.verify(1, u64::MAX).await.unwrap(), None);
    let told = rig.control.notices(100).await.unwrap();
    let events: Vec<_> =
        told.iter().filter(|it| it.rollout == next.id).map(|it| &*it.event).collect();
    assert_eq!(
        events,
        ["rollout.start", "rollout.step", "rollout.step", "rollout.soak", "rollout.end"]
    );
    rig.control.told(&told[0]).await.unwrap();
    assert_eq!(rig.control.notices(100).await.unwrap().len(), told.len() - 1);
    // What cannot be read holds up none of the others, even where one is asked for at a time.
    let (key, value) = ("rollouts/notice/0".to_owned(), Some("no notice".into()));
    let damaged = Write { key, expect: Expect::Anything, value };
    rig.records.inner.write(vec![damaged]).await.unwrap();
    assert!(rig.control.notices(1).await.unwrap().is_empty());
    assert_eq!(rig.control.notices(100).await.unwrap(), told[1..]);
}

#[tokio::test]
async fn a_worse_canary_is_reverted_with_the_numbers_and_never_tried_again_by_itself() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let worse = Measured::Points { canary: points(150.0), baseline: points(100.0) };
    *rig.measures.next.lock().unwrap() = Some(worse);
    let bad = rig.start(&format!("{DECLARED}{METRIC}"), "app:2").await;
    assert_eq!(rig.drive_to_end(&bad.id).await, ROLLED_BACK);
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    let shown = rig.control.show(&bad.id).await.unwrap();
    assert!(shown.state.targets.len() == 1, "only the canary was touched");
    let why = super::super::in_words(shown.state.why.as_ref().unwrap());
    assert!(why.contains("latency"), "{why}");
    assert_eq!(rig.listed.blamed.lock().unwrap().len(), 1);
    let error = rig.control.start(&Rig::ask(DECLARED, "app:2")).await.unwrap_err();
    assert!(words(&error).contains("reverted there before"), "{error}");
    let again = super::super::Start { again: true, ..Rig::ask(DECLARED, "app:2") };
    rig.control.start(&again).await.unwrap();
}

#[tokio::test]
async fn a_broken_limit_reverts_without_waiting_for_the_bake() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(&format!("{DECLARED}{METRIC}"), "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let broken = Measured::Points { canary: points(900.0), baseline: points(100.0) };
    *rig.measures.next.lock().unwrap() = Some(broken);
    let began = rig.control.now();
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    assert!(rig.control.now() - began <= 5_000, "{} ms", rig.control.now() - began);
}

#[tokio::test]
async fn a_signal_that_fails_or_says_nothing_holds_and_then_a_person_is_needed() {
    for measured in
        [Measured::Failed("502 Bad Gateway".to_owned()), Measured::Missing("no series".to_owned())]
    {
        let rig = Rig::new();
        rig.good("app:1").await;
        *rig.measures.next.lock().unwrap() = Some(measured);
        let one = rig.start(&format!("{DECLARED}{METRIC}"), "app:2").await;
        let phase = rig.drive(&one.id, 200, |_| false).await;
        let shown = rig.control.show(&one.id).await.unwrap();
        assert_eq!(phase, Phase::Baking(0));
        assert!(shown.state.paused.is_some(), "it neither goes on nor back");
        rig.control.say(&one.id, Command::Abort, &by("ana")).await.unwrap();
        assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
        assert!(rig.listed.blamed.lock().unwrap().is_empty(), "the release is not to blame");
    }
}

#[tokio::test]
async fn crashes_and_ill_targets_revert_without_any_signal() {
    // What a target says may be longer than a record.
    let long = "refused ".repeat(200_000);
    for (crashes, health) in
        [(3, None), (0, Some("connection refused".to_owned())), (0, Some(long))]
    {
        let rig = Rig::new();
        rig.good("app:1").await;
        let one = rig.start(DECLARED, "app:2").await;
        rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
        rig.with("a", |fake| (fake.crashes, fake.health) = (crashes, health));
        assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    }
}

#[tokio::test]
async fn a_release_that_is_rejected_in_the_middle_is_reverted_and_a_freeze_holds() {
    let rig = Rig::new();
    rig.good("app:1").await;
    *rig.listed.frozen.lock().unwrap() = Some("weekend".to_owned());
    let error = rig.control.start(&Rig::ask(DECLARED, "app:2")).await.unwrap_err();
    assert!(matches!(error, ControlError::Frozen(_)), "{error}");
    *rig.listed.frozen.lock().unwrap() = None;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    *rig.listed.frozen.lock().unwrap() = Some("weekend".to_owned());
    rig.drive(&one.id, 60, |_| false).await;
    let shown = rig.control.show(&one.id).await.unwrap();
    assert!(shown.state.frozen && shown.state.phase == Phase::Baking(0));
    let refused = rig.control.say(&one.id, Command::Resume, &by("ana")).await.unwrap_err();
    assert!(words(&refused).contains("a freeze stops it"), "{refused}");
    rig.control.say(&one.id, Command::Pause, &by("ana")).await.unwrap();
    let frozen = rig.control.say(&one.id, Command::Resume, &by("ana")).await.unwrap_err();
    assert!(matches!(frozen, ControlError::Frozen(_)), "a pause is no way around it: {frozen}");
    *rig.listed.refused.lock().unwrap() = Some("app:2 is rejected by bob".to_owned());
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
}

#[tokio::test]
async fn one_rollout_at_a_place_and_a_newer_one_takes_over_when_told_to() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let busy = rig.control.start(&Rig::ask(DECLARED, "app:3")).await.unwrap_err();
    assert!(matches!(&busy, ControlError::Busy { id, .. } if *id == one.id), "{busy}");
    let same = super::super::Start { supersede: true, ..Rig::ask(DECLARED, "app:1") };
    let refused = rig.control.start(&same).await.unwrap_err();
    assert!(matches!(refused, ControlError::Refused(_)), "{refused}");
    assert!(rig.control.show(&one.id).await.unwrap().state.is_forward(), "it goes on");
    let newer = super::super::Start { supersede: true, ..Rig::ask(DECLARED, "app:3") };
    let newer = rig.control.start(&newer).await.unwrap();
    rig.drive(&newer.id, 3, |_| false).await;
    let waits = rig.control.show(&newer.id).await.unwrap().state.phase;
    assert_eq!(waits, Phase::Waiting, "until the first has given the lock back");
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    assert_eq!(rig.drive_to_end(&newer.id).await, SUCCEEDED);
    assert_eq!(rig.runs(), vec![digest("app:3"); 4]);
}

#[tokio::test]
async fn a_newer_release_takes_the_place_of_an_older_one_where_that_is_declared() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let declared = format!("supersede = true\n{DECLARED}");
    rig.listed.made.store(20, Ordering::SeqCst);
    let one = rig.start(&declared, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    for (made, declared) in [(10, &*declared), (20, &*declared), (30, DECLARED)] {
        rig.listed.made.store(made, Ordering::SeqCst);
        let busy = rig.control.start(&Rig::ask(declared, "app:3")).await;
        assert!(matches!(busy, Err(ControlError::Busy { .. })), "{made}: {busy:?}");
    }
    let newer = rig.start(&declared, "app:3").await;
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    let why = rig.control.show(&one.id).await.unwrap().state.why;
    assert!(matches!(why, Some(Why::Superseded(_))), "{why:?}");
    assert_eq!(rig.drive_to_end(&newer.id).await, SUCCEEDED);
    assert_eq!(rig.runs(), vec![digest("app:3"); 4]);
}

#[tokio::test]
async fn the_lock_of_a_person_holds_up_what_begins_and_is_given_back() {
    let rig = Rig::new();
    let place = Place { service: "api".to_owned(), environment: "prod".to_owned() };
    rig.control.lock(&place, "bob", "a migration", 1_000).await.unwrap();
    let longer = rig.control.lock(&place, "bob", "a migration", 3_600_000).await.unwrap();
    assert_eq!(longer.expires, rig.control.now() + 3_600_000, "it lasts as long as was asked");
    for strange in [0, 30 * 86_400_000 + 1, u64::MAX] {
        let refused = rig.control.lock(&place, "bob", "a migration", strange).await.unwrap_err();
        assert!(matches!(refused, ControlError::LockTime), "{strange}: {refused}");
    }
    let locked = rig.control.lock(&place, "ana", "me too", 1_000).await.unwrap_err();
    assert!(words(&locked).starts_with("bob has the deploy lock until 1970"), "{locked}");
    let one = rig.start(DECLARED, "app:1").await;
    assert_eq!(rig.drive(&one.id, 30, |_| false).await, Phase::Waiting);
    let waits = rig.control.show(&one.id).await.unwrap().waits_for.unwrap();
    assert!(waits.starts_with("bob has the deploy lock until 1970"), "{waits}");
    assert!(waits.ends_with(": a migration"), "{waits}");
    rig.control.unlock(&place, "ana", "it is done").await.unwrap();
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    assert_eq!(rig.control.show(&one.id).await.unwrap().waits_for, None);
    let own = rig.control.unlock(&place, "ana", "no").await.unwrap_err();
    assert!(words(&own).contains("abort it"), "{own}");
    assert_eq!(rig.drive_to_end(&one.id).await, SUCCEEDED);
}

#[tokio::test]
async fn a_lock_lasts_as_long_as_was_asked_while_clocks_change() {
    let rig = Rig::new();
    let place = Place { service: "api".to_owned(), environment: "prod".to_owned() };
    let at = |text: &str| text.parse::<jiff::Timestamp>().unwrap().as_millisecond() as u64;
    // Clocks in Berlin go forward on 29 March and back on 25 October, at one o'clock of UTC.
    for (from, until) in [
        ("2026-03-29T00:30:00Z", "2026-03-29T02:30:00Z"),
        ("2026-10-25T00:30:00Z", "2026-10-25T02:30:00Z"),
    ] {
        rig.time.0.store(at(from), Ordering::SeqCst);
        rig.control.lock(&place, "bob", "a migration", 2 * 3_600_000).await.unwrap();
        rig.time.0.store(at(until) - 1, Ordering::SeqCst);
        let held = rig.control.lock(&place, "ana", "me too", 1_000).await.unwrap_err();
        assert!(
            words(&held).starts_with(&format!("bob has the deploy lock until {until}")),
            "{held}"
        );
        rig.time.0.store(at(until), Ordering::SeqCst);
        assert!(rig.control.locks().await.unwrap().is_empty(), "{until}");
    }
}

#[tokio::test]
async fn a_gate_lets_in_whom_a_person_lets_in() {
    let rig = Rig::new();
    let gated = DECLARED
        .replace("steps = [25, 100]", "step = [{ percent = 25 }, { percent = 100, gate = true }]");
    let one = rig.start(&gated, "app:1").await;
    let phase = rig.drive(&one.id, 100, |phase| matches!(phase, Phase::Gate(_))).await;
    assert_eq!(phase, Phase::Gate(1));
    let early = rig.control.say(&one.id, Command::Resume, &by("ana")).await.unwrap_err();
    assert!(matches!(early, ControlError::NotNow(_)));
    let none = By { name: "ana".to_owned(), reason: " ".to_owned() };
    let silent = rig.control.say(&one.id, Command::Promote, &none).await.unwrap_err();
    assert!(matches!(silent, ControlError::Reason));
    rig.control.say(&one.id, Command::Promote, &by("ana")).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, SUCCEEDED);
}

#[tokio::test]
async fn requests_are_split_as_steps_say_and_all_go_back_first() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let both = format!("by = \"both\"\ntraffic = \"edge\"\n{DECLARED}");
    let one = rig.start(&both, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let shares = |rig: &Rig| -> Vec<Vec<(Side, f64, usize)>> {
        let all = rig.splits.0.lock().unwrap();
        let pools = |split: &crate::rollouts::parts::Split| {
            split.pools.iter().map(|it| (it.side, it.share, it.members.len())).collect()
        };
        all.iter().map(pools).collect()
    };
    let canary = vec![(Side::Baseline, 75.0, 3), (Side::Canary, 25.0, 1)];
    assert_eq!(shares(&rig), std::slice::from_ref(&canary));
    rig.control.say(&one.id, Command::Abort, &by("ana")).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    let back = vec![(Side::Baseline, 100.0, 3), (Side::Canary, 0.0, 1)];
    assert_eq!(shares(&rig), [canary, back, vec![(Side::Baseline, 100.0, 4)]]);
}

#[tokio::test]
async fn targets_that_lie_or_are_silent_are_named_and_reverted() {
    let rig = Rig::new();
    rig.good("app:1").await;
    rig.with("a", |fake| fake.lies = true);
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::RollingBack)).await;
    rig.with("a", |fake| fake.lies = false);
    assert_eq!(rig.drive_to_end(&one.id).await, ROLLED_BACK);
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    let log = rig.control.show(&one.id).await.unwrap().log;
    assert!(log.iter().any(|it| matches!(it.event, Event::GivenUp(_))));
}

#[tokio::test]
async fn what_cannot_be_driven_is_refused_before_anything_is_written() {
    let rig = Rig::new();
    for (declared, part) in [
        ("targets = 4\nstrategy = \"blue-green\"\nname = \"api\"", "who switches the requests"),
        ("targets = 4\nby = \"traffic\"\ntraffic = \"edge\"\nname = \"api\"", "need colour"),
        ("targets = 4\nname = \"api\"\nstay_up = 4", "leaves none that may be switched"),
        ("targets = 3\nname = \"api\"", "says 3 targets, and \"agents\" has 4"),
        ("targets = [\"a\", \"z\"]\nname = \"api\"", "there is no target \"z\""),
        ("targets = 4\nname = \"api\"\nfrom = \"mars\"", "no targets \"mars\"; it has agents"),
        ("targets = 4\nname = \"api\"\nby = \"both\"", "needs traffic"),
        ("targets = 4\nname = \"a/b\"", "line 2, column 8"),
        ("targets = 4\nname = \"api\"\nbaek = \"1s\"", "did you mean bake"),
        (
            &METRIC.replace("prom", "graphite").replace("[[", "targets = 4\nname = \"api\"\n[["),
            "no signals \"graphite\"; it has prom",
        ),
        (
            &METRIC.replace("increase", "up").replace("[[", "targets = 4\nname = \"api\"\n[["),
            "direction",
        ),
    ] {
        let error = rig.control.start(&Rig::ask(declared, "app:1")).await.unwrap_err();
        assert!(words(&error).contains(part), "{part}: {}", words(&error));
    }
    rig.fleet.targets.lock().unwrap().clear();
    let nowhere = "targets = 4\nname = \"api\"\nlabels = { region = \"mars\" }";
    let error = rig.control.start(&Rig::ask(nowhere, "app:1")).await.unwrap_err();
    assert!(words(&error).contains("has all of these labels"), "{}", words(&error));
    let outside =
        super::super::Start { environment: "../x".to_owned(), ..Rig::ask(DECLARED, "a:1") };
    assert!(matches!(rig.control.start(&outside).await, Err(ControlError::Unfit(_))));
    assert!(rig.control.list(None, 10).await.unwrap().is_empty());
    for strange in ["", "a/b", &"x".repeat(5_000)] {
        let shown = rig.control.show(strange).await.err();
        assert!(matches!(shown, Some(ControlError::NoRollout(_))), "{shown:?}");
        let listed = rig.control.list(Some(strange), 10).await;
        assert!(matches!(listed, Err(ControlError::NoRollout(_))));
    }
}

#[tokio::test]
async fn what_nobody_has_signed_is_nothing_to_return_to() {
    let rig = Rig::new();
    *rig.listed.unsigned.lock().unwrap() = Some("app:0".to_owned());
    let previous = Some("app:0".parse().unwrap());
    let ask = super::super::Start { previous, ..Rig::ask(DECLARED, "app:1") };
    let refused = rig.control.start(&ask).await.unwrap_err();
    assert!(words(&refused).contains("nobody has signed app:0"), "{refused}");
    *rig.listed.unsigned.lock().unwrap() = None;
    let started = rig.control.start(&ask).await.unwrap();
    assert_eq!(started.previous.unwrap().release.to_string(), "app:0");
}

#[tokio::test]
async fn a_drill_is_reverted_in_time_blames_nobody_and_may_be_demanded() {
    let rig = Rig::new();
    let demands = format!("drill_every = \"30d\"\n{DECLARED}");
    let early = super::super::Start { drill: true, ..Rig::ask(&demands, "app:1") };
    let none = rig.control.start(&early).await.unwrap_err();
    assert!(words(&none).contains("needs a release to return to"), "{none}");
    rig.good("app:1").await;
    let overdue = rig.control.start(&Rig::ask(&demands, "app:2")).await.unwrap_err();
    assert!(words(&overdue).contains("no drill has passed there yet"), "{overdue}");
    let whole = DECLARED.replace("steps = [25, 100]", "steps = [100]");
    let whole = super::super::Start { drill: true, ..Rig::ask(&whole, "app:2") };
    let all = rig.control.start(&whole).await.unwrap_err();
    assert!(words(&all).contains("fewer than all targets"), "{all}");
    let drill = super::super::Start { drill: true, ..Rig::ask(&demands, "app:2") };
    let drill = rig.control.start(&drill).await.unwrap();
    assert_eq!(rig.drive_to_end(&drill.id).await, ROLLED_BACK);
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    assert!(rig.listed.blamed.lock().unwrap().is_empty());
    let shown = rig.control.show(&drill.id).await.unwrap();
    assert_eq!(shown.state.targets.len(), 1);
    let went = shown.drill.unwrap();
    assert!(went.passed && went.fired.unwrap() + went.restored.unwrap() <= went.budget, "{went:?}");
    let figures = rig.control.figures();
    assert_eq!((figures.started, figures.rolled_back), (1, 0), "drills are no failures");
    let next = rig.start(&demands, "app:2").await;
    assert_eq!(rig.drive_to_end(&next.id).await, SUCCEEDED);
    rig.wait(31 * 86_400_000);
    let standing = rig.control.drill_standing(&next).await.unwrap().unwrap();
    assert!(standing.is_overdue && standing.passed.as_ref() == Some(&went), "{standing:?}");
    let again = rig.control.start(&Rig::ask(&demands, "app:3")).await.unwrap_err();
    assert!(words(&again).contains(&drill.id), "{again}");
}
