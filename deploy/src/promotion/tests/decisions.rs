//! Tests of which gates say what.

use super::super::decision::{Gate, Standing};
use super::super::{Decision, Outcome, Tests};
use super::{DAY, NOON, World, ask, name, person, robot, say};
use crate::signing::{Scheme, SigningKey};

fn of(outcome: Outcome) -> Decision {
    match outcome {
        Outcome::Promoted { decision, .. }
        | Outcome::NotNow { decision }
        | Outcome::Waits { decision, .. }
        | Outcome::Refused { decision } => decision,
        Outcome::Already { placed } => panic!("{placed:?} is there"),
    }
}

fn gates(decision: &Decision, standing: Standing) -> Vec<Gate> {
    let found = decision.reasons.iter().filter(|it| it.standing == standing);
    found.map(|it| it.gate).collect()
}

#[tokio::test]
async fn all_reasons_are_told_at_once_and_a_dry_run_changes_nothing() {
    let world = World::new();
    let keeper = world.keeper();
    let stranger = SigningKey::generate(Scheme::Ed25519).unwrap().0;
    let release = world.release_of("other/app:1", "hack", &stranger);
    let friday = NOON + 4 * DAY + 6 * 3_600;
    world.clock.store(friday, std::sync::atomic::Ordering::SeqCst);
    keeper.hold(&say("prod", "ana", "moving house"), None).await.unwrap();
    let before = keeper.world().await.unwrap();
    let decision = of(keeper.judge(&ask("prod", &release, person("eve"))).await.unwrap());
    assert_eq!(gates(&decision, Standing::Refused), [Gate::Signature, Gate::Condition]);
    let waits = [Gate::Upstream, Gate::Approvals, Gate::Freeze, Gate::Hold, Gate::Check];
    assert_eq!(gates(&decision, Standing::Waits), waits);
    let freeze = decision.reasons.iter().find(|it| it.gate == Gate::Freeze).unwrap();
    assert_eq!(freeze.until.unwrap().to_string(), "2026-06-08T06:00:00Z");
    assert!(freeze.text.contains("nobody is there"), "{}", freeze.text);
    assert_eq!(keeper.world().await.unwrap(), before);
    assert_eq!(world.checks.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn signed_provenance_must_say_what_is_demanded() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release_of("team/app:1", "feature", &world.key);
    let decision = of(keeper.judge(&ask("prod", &release, person("eve"))).await.unwrap());
    assert_eq!(gates(&decision, Standing::Refused), [Gate::Branch]);
    // Where a trusted key has signed two claims about the same content, both have to name the branch.
    let good = world.release("team/app:2");
    let bundle = world.releases.lock().unwrap()[&good].1[0].clone();
    assert_eq!(world.release_of("team/app:2", "feature", &world.key), good);
    world.releases.lock().unwrap().get_mut(&good).unwrap().1.push(bundle);
    let decision = of(keeper.judge(&ask("prod", &good, person("eve"))).await.unwrap());
    assert_eq!(gates(&decision, Standing::Refused), [Gate::Branch]);
}

#[tokio::test]
async fn tests_have_to_be_green() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    keeper.promote(&ask("dev", &release, person("eve"))).await.unwrap();
    world.go_on(3_600);
    for (tests, standing) in [
        (Tests::Red("//:t failed".to_owned()), Standing::Refused),
        (Tests::Undecided("it runs".to_owned()), Standing::Waits),
        (Tests::Green, Standing::Met),
    ] {
        *world.tests.lock().unwrap() = tests;
        let outcome = keeper.judge(&ask("staging", &release, person("eve"))).await.unwrap();
        assert_eq!(of(outcome).standing(), standing);
    }
}

#[tokio::test]
async fn approvals_are_of_the_group_and_of_the_content_and_not_of_the_author() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    let other = world.release("team/app:2");
    world.releases.lock().unwrap().get_mut(&release).unwrap().0.author = "ana".to_owned();
    let open = |decision: Decision| gates(&decision, Standing::Waits).contains(&Gate::Approvals);
    let judged = async || of(keeper.judge(&ask("prod", &release, person("eve"))).await.unwrap());
    for who in ["ana", "bo", "stranger"] {
        keeper.approve(&say("prod", who, "fine"), &release).await.unwrap();
    }
    keeper.approve(&say("prod", "cy", "fine"), &other).await.unwrap();
    assert!(open(judged().await), "only bo's counts");
    assert!(keeper.approve(&say("prod", "bo", "twice"), &release).await.is_err());
    keeper.approve(&say("prod", "cy", "fine"), &release).await.unwrap();
    assert!(!open(judged().await));
    keeper.withdraw(&say("prod", "bo", "not so fine"), &release).await.unwrap();
    assert!(open(judged().await));
    let robot = super::Say { by: robot(), ..say("prod", "", "beep") };
    assert!(keeper.approve(&robot, &release).await.is_err());
}

#[tokio::test]
async fn a_freeze_is_broken_by_two_people_and_for_one_release() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    keeper.hold(&say("prod", "bo", "audit"), Some(DAY)).await.unwrap();
    let held = async || {
        let decision = of(keeper.judge(&ask("prod", &release, person("eve"))).await.unwrap());
        gates(&decision, Standing::Waits).contains(&Gate::Hold)
    };
    assert!(held().await);
    assert!(keeper.ask_override(&say("prod", "eve", "fire"), &release, 600).await.is_err());
    assert!(keeper.ask_override(&say("dev", "ana", "fire"), &release, 600).await.is_err());
    assert!(keeper.ask_override(&say("prod", "ana", " "), &release, 600).await.is_err());
    assert!(keeper.ask_override(&say("prod", "ana", "fire"), &release, 10 * DAY).await.is_err());
    keeper.ask_override(&say("prod", "ana", "fire"), &release, 600).await.unwrap();
    assert!(keeper.confirm_override(&say("prod", "ana", "yes"), &release).await.is_err());
    assert!(held().await, "nobody has confirmed it");
    keeper.confirm_override(&say("prod", "cy", "I see it"), &release).await.unwrap();
    assert!(!held().await);
    world.go_on(601);
    assert!(held().await, "its time is up");
    keeper.lift(&say("prod", "ana", "done")).await.unwrap();
    assert!(!held().await);
}

#[tokio::test]
async fn a_clock_that_goes_back_promotes_nothing_and_rolls_back_all_the_same() {
    let world = World::new();
    let keeper = world.keeper();
    for text in ["team/app:1", "team/app:2"] {
        let release = world.release(text);
        keeper.promote(&ask("dev", &release, person("eve"))).await.unwrap();
        world.go_on(10);
    }
    world.go_on(-3_600);
    let third = world.release("team/app:3");
    let decision = of(keeper.promote(&ask("dev", &third, person("eve"))).await.unwrap());
    assert_eq!(gates(&decision, Standing::Waits), [Gate::Clock]);
    let (placed, _) = keeper.roll_back(&say("dev", "eve", "bad"), None).await.unwrap();
    assert_eq!(placed.release, name("team/app:1"));
    // Times that have not come yet are no soaking.
    let first = keeper.judge(&ask("staging", &name("team/app:1"), person("eve"))).await.unwrap();
    assert!(gates(&of(first), Standing::Waits).contains(&Gate::Soak));
}

#[tokio::test]
async fn a_name_that_stands_for_something_else_before_is_refused() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    keeper.promote(&ask("dev", &release, person("eve"))).await.unwrap();
    let other = crate::oci::ContentDigest::of(b"swapped");
    world.releases.lock().unwrap().get_mut(&release).unwrap().0.digest = other;
    let decision = of(keeper.judge(&ask("staging", &release, person("eve"))).await.unwrap());
    assert!(gates(&decision, Standing::Refused).contains(&Gate::Upstream));
}
