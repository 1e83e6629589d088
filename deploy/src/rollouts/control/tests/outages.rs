//! Parts of a rollout that are away or refuse to work: each ends in a state that says so.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{DECLARED, METRIC, Rig, digest};
use crate::judge::{Points, Verdict};
use crate::rollouts::control::{By, Command, Driver};
use crate::rollouts::machine::{End, Event, Phase, Why};
use crate::rollouts::parts::Measured;

const SUCCEEDED: Phase = Phase::Ended(End::Succeeded);

fn ana() -> By {
    By { name: "ana".to_owned(), reason: "because".to_owned() }
}

fn split() -> String {
    format!("by = \"both\"\ntraffic = \"edge\"\nrollback = \"30s\"\n{DECLARED}")
}

/// The texts that people were told of one kind of event of a rollout.
async fn told(rig: &Rig, id: &str, event: &str) -> Vec<String> {
    let all = rig.control.notices(1_000).await.unwrap();
    let of = all.into_iter().filter(|it| it.rollout == id && it.event == event);
    of.map(|it| it.text).collect()
}

#[tokio::test]
async fn a_balancer_that_takes_no_split_stops_a_rollout_with_what_it_says() {
    let rig = Rig::new();
    rig.good("app:1").await;
    *rig.splits.2.lock().unwrap() = Some("it does not reload");
    let one = rig.start(&split(), "app:2").await;
    assert_eq!(rig.drive(&one.id, 300, |_| false).await, Phase::Applying(0));
    let shown = rig.control.show(&one.id).await.unwrap();
    assert!(shown.state.paused.is_some(), "{:?}", shown.log);
    let paused = told(&rig, &one.id, "rollout.pause").await;
    assert_eq!(paused, ["paused: requests cannot be split: edge: it does not reload"]);
    // It is mended: a person lets the rollout go on.
    *rig.splits.2.lock().unwrap() = None;
    rig.control.say(&one.id, Command::Resume, &ana()).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, SUCCEEDED);
}

#[tokio::test]
async fn a_rollback_that_fails_says_what_is_left() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(&split(), "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    *rig.splits.2.lock().unwrap() = Some("it does not reload");
    rig.control.say(&one.id, Command::Abort, &ana()).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RollbackFailed));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4], "targets return all the same");
    let why = "a person is needed: requests are split as before the rollback";
    assert_eq!(told(&rig, &one.id, "rollout.end").await, [format!("NOT all is restored: {why}")]);

    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(&format!("rollback = \"30s\"\n{DECLARED}"), "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let canary = *rig.control.show(&one.id).await.unwrap().state.targets.keys().next().unwrap();
    let targets = rig.control.show(&one.id).await.unwrap().targets;
    let name = targets[usize::try_from(canary).unwrap()].name.clone();
    rig.with(&name, |fake| fake.lies = true);
    rig.control.say(&one.id, Command::Abort, &ana()).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RollbackFailed));
    let why = format!("a person is needed: not restored: {name}");
    assert_eq!(told(&rig, &one.id, "rollout.end").await, [format!("NOT all is restored: {why}")]);
}

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

fn noise(random: &mut fastrand::Rng) -> Points {
    let mut point = || (random.u8(0..10) > 0).then(|| 70.0 + 60.0 * random.f64());
    (0..60).map(|_| point()).collect()
}

/// What a signal says that is noise, lacks values, has those of one side alone, or does not answer.
fn flaky(random: &mut fastrand::Rng) -> Measured {
    let (canary, baseline) = (noise(random), noise(random));
    match random.u8(0..8) {
        0 => Measured::Failed("no answer within 5s".to_owned()),
        1 => Measured::Missing("there is no series of the canary".to_owned()),
        2 => Measured::Points { canary: Points::new(), baseline },
        3 => Measured::Points { canary, baseline: Points::new() },
        _ => Measured::Points { canary, baseline },
    }
}

#[tokio::test]
async fn a_flaky_signal_reverts_none_of_two_hundred_rollouts() {
    const SEED: u64 = 13;
    let (rig, mut random) = (Rig::new(), fastrand::Rng::with_seed(SEED));
    rig.good("app:0").await;
    // The judge alone looks, at the end of each bake.
    let rarely = DECLARED.replace("watch = \"1s\"", "watch = \"1h\"");
    let declared = format!("{rarely}{METRIC}critical = true\n");
    let (mut held, mut went_on) = (0, 0);
    for number in 1..=200 {
        let one = rig.start(&declared, &format!("app:{number}")).await;
        let mut driver = Driver::load(rig.control.clone(), &one.id).await.unwrap();
        for _ in 0..24 {
            *rig.measures.next.lock().unwrap() = Some(flaky(&mut random));
            driver.round(rig.control.now()).await.unwrap();
            driver.looked().await;
            rig.wait(4_000);
        }
        let shown = rig.control.show(&one.id).await.unwrap();
        assert_eq!(shown.state.why, None, "seed {SEED}, rollout {number}: {:?}", shown.log);
        held += shown.judgements.iter().filter(|it| it.verdict == Verdict::Hold).count();
        went_on += shown.judgements.iter().filter(|it| it.verdict == Verdict::Promote).count();
        if shown.state.is_forward() {
            rig.control.say(&one.id, Command::Abort, &ana()).await.unwrap();
            rig.drive_to_end(&one.id).await;
        }
    }
    assert!(held > 100 && went_on > 100, "{held} looks held, {went_on} let it go on");
}

#[tokio::test]
async fn a_release_whose_key_is_revoked_in_the_middle_is_reverted() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let long = DECLARED.replace("bake = \"10s\"", "bake = \"1h\"");
    let one = rig.start(&long, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    *rig.listed.unsigned.lock().unwrap() = Some("app:2".to_owned());
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RolledBack));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
    let why = rig.control.show(&one.id).await.unwrap().state.why;
    assert_eq!(why, Some(Why::Breach("nobody has signed app:2".to_owned())));
}

#[tokio::test]
async fn what_is_no_fault_of_the_release_holds_it_until_that_is_over() {
    let long = DECLARED.replace("bake = \"10s\"", "bake = \"1h\"");
    for says in [
        "this server trusts no key",
        "there is no release",
        "app:2 is other content now",
        "the store does not answer",
    ] {
        let rig = Rig::new();
        rig.good("app:1").await;
        let one = rig.start(&long, "app:2").await;
        rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
        let set = |on: bool| {
            let why = on.then(|| says.to_owned());
            match says {
                "this server trusts no key" => *rig.listed.unsure.lock().unwrap() = why,
                "there is no release" => *rig.listed.unlisted.lock().unwrap() = why,
                "the store does not answer" => rig.listed.away.store(on, Ordering::SeqCst),
                _ => rig.listed.other.store(on, Ordering::SeqCst),
            }
        };
        set(true);
        assert_eq!(rig.drive(&one.id, 150, |_| false).await, Phase::Baking(0));
        // Whoever takes over knows nothing yet, and lets nothing go on.
        rig.drive(&one.id, 8, |_| false).await;
        let shown = rig.control.show(&one.id).await.unwrap();
        assert!(shown.state.frozen && shown.state.why.is_none(), "{says}: {:?}", shown.log);
        let held = told(&rig, &one.id, "rollout.freeze").await;
        assert!(held.len() == 1 && held[0].contains(says), "{held:?}");
        set(false);
        assert_eq!(rig.drive(&one.id, 150, |_| false).await, Phase::Baking(0));
        let shown = rig.control.show(&one.id).await.unwrap();
        assert!(shown.state.paused.is_none(), "{says}: {:?}", shown.log);
        assert_eq!(told(&rig, &one.id, "rollout.resume").await, ["goes on"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_store_of_releases_that_hangs_holds_a_rollout_and_none_of_its_rounds() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let long = DECLARED.replace("bake = \"10s\"", "bake = \"1h\"");
    let one = rig.start(&long, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    rig.listed.hangs.store(true, Ordering::SeqCst);
    let mut driver = Driver::load(rig.control.clone(), &one.id).await.unwrap();
    for _ in 0..200 {
        driver.round(rig.control.now()).await.unwrap();
        driver.looked().await;
        rig.wait(1_000);
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let held = told(&rig, &one.id, "rollout.freeze").await;
    assert!(held.len() == 1 && held[0].ends_with("no answer within 1m"), "{held:?}");
    let state = rig.control.show(&one.id).await.unwrap().state;
    assert!(state.frozen && state.phase == Phase::Baking(0) && state.why.is_none());
}

#[tokio::test]
async fn a_target_that_cannot_carry_out_its_order_is_named_with_what_it_says() {
    let rig = Rig::new();
    rig.good("app:1").await;
    for name in ["a", "b", "c", "d"] {
        rig.with(name, |fake| {
            fake.lies = true;
            fake.failed = Some("there is no room on the disk".to_owned());
        });
    }
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::RollingBack)).await;
    for name in ["a", "b", "c", "d"] {
        rig.with(name, |fake| (fake.lies, fake.failed) = (false, None));
    }
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RolledBack));
    let shown = rig.control.show(&one.id).await.unwrap();
    let canary = usize::try_from(*shown.state.targets.keys().next().unwrap()).unwrap();
    let says = format!("release: {}: there is no room on the disk", shown.targets[canary].name);
    let why = told(&rig, &one.id, "rollout.rollback").await;
    assert!(why.len() == 1 && why[0].ends_with(&says), "{why:?}");
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
    let why = told(&rig, &one.id, "rollout.rollback").await.remove(0);
    let (_, named) = why.rsplit_once(": ").expect("names");
    assert!(named.split(", ").all(|name| cut.iter().any(|it| it == name)), "{why}");
    // The partition ends: what the others were told to begin with is not carried out late.
    cut.iter().for_each(|name| rig.with(name, |fake| fake.silent = false));
    rig.drive(&one.id, 120, |_| false).await;
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);
}
