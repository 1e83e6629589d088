//! Promotions from end to end, over records.

use std::sync::atomic::Ordering;

use kiln_cas::records::{Expect, Records, Write};

use super::super::acts::Refusal;
use super::super::{How, Keeper, Outcome, PromotionError, VSA_PREDICATE};
use super::{Ask, DAY, World, ask, name, person, robot, say};
use crate::deployments::Four;
use crate::releases::ReleaseName;
use crate::signing::{Attestation, Envelope};

async fn promoted(keeper: &Keeper, environment: &str, release: &ReleaseName) -> u64 {
    match keeper.promote(&ask(environment, release, person("eve"))).await.unwrap() {
        Outcome::Promoted { placed, .. } => placed.generation,
        other => panic!("{other:?}"),
    }
}

async fn current(keeper: &Keeper, environment: &str) -> Option<ReleaseName> {
    keeper.world().await.unwrap().current(environment).map(|it| it.release.clone())
}

#[tokio::test]
async fn a_release_goes_all_the_way_and_each_step_is_summarised() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    assert_eq!(promoted(&keeper, "dev", &release).await, 1);
    world.go_on(3_600);
    assert_eq!(promoted(&keeper, "staging", &release).await, 1);
    for who in ["ana", "bo"] {
        keeper.approve(&say("prod", who, "fine"), &release).await.unwrap();
    }
    world.go_on(DAY);
    assert_eq!(promoted(&keeper, "prod", &release).await, 1);
    assert_eq!(world.checks.load(Ordering::SeqCst), 1);
    let again = keeper.promote(&ask("prod", &release, person("eve"))).await.unwrap();
    assert!(matches!(again, Outcome::Already { placed } if placed.generation == 1));
    let done = keeper.past("prod", None, 10).await.unwrap();
    assert_eq!((done.len(), done[0].approvals.len()), (1, 2));
    let summary = keeper.summary("prod", 1).await.unwrap().unwrap();
    let keys = world.keys();
    let summary = Attestation::from_envelope(&Envelope::read(&summary).unwrap(), &keys).unwrap();
    assert_eq!(summary.statement.predicate_type, VSA_PREDICATE);
    assert_eq!(summary.statement.predicate["verificationResult"], "PASSED");
    assert_eq!(summary.statement.predicate["verifiedLevels"][0], "SLSA_BUILD_LEVEL_3");
    let digest = crate::oci::ContentDigest::of(b"team/app:1");
    assert!(summary.statement.is_about(&digest.set()));
}

#[tokio::test]
async fn what_cannot_be_read_of_the_past_hides_nothing_else() {
    let world = World::new();
    let keeper = world.keeper();
    for release in ["team/app:1", "team/app:2", "team/app:3"] {
        promoted(&keeper, "dev", &world.release(release)).await;
    }
    let (key, value) = (format!("promotion/done/dev/{:020}", 2), Some("no promotion".into()));
    let damaged = Write { key, expect: Expect::Anything, value };
    world.memory.write(vec![damaged]).await.unwrap();
    // A list of two that is cut to one would be taken for the last one.
    for limit in [2, 10] {
        let past = keeper.past("dev", None, limit).await.unwrap();
        let generations: Vec<_> = past.iter().map(|it| it.placed.generation).collect();
        assert_eq!(generations, [3, 1], "{limit}");
    }
}

#[tokio::test]
async fn a_check_that_fails_refuses() {
    let world = World::new();
    let policy = "[environments.dev]\nchecks = [{ name = \"smoke\", command = [\"x\"] }]";
    let keeper = world.keeper_over(world.memory.clone(), policy);
    let release = world.release("team/app:1");
    *world.check.lock().unwrap() = Err("exit code 1".to_owned());
    let refused = keeper.promote(&ask("dev", &release, person("eve"))).await.unwrap();
    let Outcome::Refused { decision } = refused else { panic!("{refused:?}") };
    let texts: Vec<_> = decision.obstacles().map(|it| it.text.as_str()).collect();
    assert_eq!(texts, ["smoke failed: exit code 1"]);
    assert_eq!(current(&keeper, "dev").await, None);
}

#[tokio::test]
async fn a_rollback_asks_nobody_and_what_it_replaced_stays_away() {
    let world = World::new();
    let keeper = world.keeper();
    let (first, second) = (world.release("team/app:1"), world.release("team/app:2"));
    promoted(&keeper, "dev", &first).await;
    promoted(&keeper, "dev", &second).await;
    keeper.hold(&say("dev", "ana", "nothing moves"), None).await.unwrap();
    let (placed, back) = keeper.roll_back(&say("dev", "bo", "it crashes"), None).await.unwrap();
    assert_eq!(
        (placed.release.clone(), placed.how, placed.generation),
        (first.clone(), How::RolledBack, 3)
    );
    assert!(back.settled);
    let dev = keeper.deployments()["dev"];
    assert_eq!((dev.changes, dev.failures, dev.restore.count()), (2, 1, 1));
    assert_eq!(keeper.deployments()["prod"], Four::default(), "nothing has come there");
    keeper.lift(&say("dev", "ana", "move")).await.unwrap();
    // Automation may not promote the release again, and neither may a person who does not ask for that.
    for by in [robot(), person("eve")] {
        let outcome = keeper.promote(&ask("dev", &second, by)).await.unwrap();
        assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
    }
    let again = Ask { again: true, ..ask("dev", &second, robot()) };
    assert!(matches!(keeper.promote(&again).await.unwrap(), Outcome::Refused { .. }));
    let again = Ask { again: true, ..ask("dev", &second, person("eve")) };
    assert!(matches!(keeper.promote(&again).await.unwrap(), Outcome::Promoted { .. }));
}

#[tokio::test]
async fn automation_never_rolls_back_a_rollback() {
    let world = World::new();
    let keeper = world.keeper();
    for text in ["team/app:1", "team/app:2", "team/app:3"] {
        promoted(&keeper, "dev", &world.release(text)).await;
    }
    let by_itself = super::Say { by: robot(), ..say("dev", "", "errors") };
    keeper.roll_back(&by_itself, None).await.unwrap();
    assert_eq!(current(&keeper, "dev").await, Some(name("team/app:2")));
    let twice = keeper.roll_back(&by_itself, None).await.unwrap_err();
    assert!(matches!(twice, PromotionError::Refused(Refusal::Twice(_))), "{twice:?}");
    keeper.roll_back(&say("dev", "ana", "further"), None).await.unwrap();
    assert_eq!(current(&keeper, "dev").await, Some(name("team/app:1")));
    let none = keeper.roll_back(&say("dev", "ana", "further"), None).await.unwrap_err();
    assert!(matches!(none, PromotionError::Refused(Refusal::NoPredecessor(_))), "{none:?}");
    let to = name("team/app:3");
    let (placed, _) = keeper.roll_back(&say("dev", "ana", "it was good"), Some(&to)).await.unwrap();
    assert_eq!(placed.release, to);
}

#[tokio::test]
async fn a_rollback_prefers_what_settled() {
    let world = World::new();
    let policy = "[environments.dev]\nsettle = \"1h\"";
    let keeper = world.keeper_over(world.memory.clone(), policy);
    for (text, stands) in [("team/app:1", 3_600), ("team/app:2", 60), ("team/app:3", 60)] {
        promoted(&keeper, "dev", &world.release(text)).await;
        world.go_on(stands);
    }
    let (placed, back) = keeper.roll_back(&say("dev", "ana", "bad"), None).await.unwrap();
    assert_eq!((placed.release, back.settled), (name("team/app:1"), true));
}

#[tokio::test]
async fn what_is_rejected_comes_back_by_nothing() {
    let world = World::new();
    let keeper = world.keeper();
    let (first, second) = (world.release("team/app:1"), world.release("team/app:2"));
    promoted(&keeper, "dev", &first).await;
    promoted(&keeper, "dev", &second).await;
    keeper.reject(&first, &person("ana"), "leaks keys").await.unwrap();
    assert!(keeper.reject(&first, &robot(), "beep").await.is_err());
    let again = Ask { again: true, ..ask("dev", &first, person("ana")) };
    assert!(matches!(keeper.promote(&again).await.unwrap(), Outcome::Refused { .. }));
    for to in [None, Some(&first)] {
        assert!(keeper.roll_back(&say("dev", "ana", "back"), to).await.is_err());
    }
    // The same content under another name is the same.
    let alias = name("team/app:latest");
    let mut known = world.releases.lock().unwrap()[&first].clone();
    known.0.name = alias.clone();
    world.releases.lock().unwrap().insert(alias.clone(), known);
    let outcome = keeper.promote(&ask("dev", &alias, person("ana"))).await.unwrap();
    assert!(matches!(outcome, Outcome::Refused { .. }), "{outcome:?}");
}

#[tokio::test]
async fn what_waits_goes_on_by_itself_once_it_may() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    promoted(&keeper, "dev", &release).await;
    let wait = Ask { wait: Some(DAY), ..ask("staging", &release, person("eve")) };
    for _ in 0..2 {
        let outcome = keeper.promote(&wait).await.unwrap();
        assert!(matches!(outcome, Outcome::Waits { .. }), "{outcome:?}");
    }
    assert_eq!(keeper.world().await.unwrap().waiting.len(), 1);
    keeper.sweep().await.unwrap();
    assert_eq!(current(&keeper, "staging").await, None);
    world.go_on(3_600);
    keeper.sweep().await.unwrap();
    assert_eq!(current(&keeper, "staging").await, Some(release));
    assert!(keeper.world().await.unwrap().waiting.is_empty());
}

#[tokio::test]
async fn what_an_earlier_version_has_claimed_goes_on() {
    let world = World::new();
    let keeper = world.keeper();
    let release = world.release("team/app:1");
    promoted(&keeper, "dev", &release).await;
    let wait = Ask { wait: Some(DAY), ..ask("staging", &release, person("eve")) };
    keeper.promote(&wait).await.unwrap();
    let stored = world.memory.get("promotion/world").await.unwrap().unwrap();
    let mut text: serde_json::Value = serde_json::from_slice(&stored.value).unwrap();
    // The record says until when the other frontend runs the checks, by that frontend's clock.
    text["waiting"][0]["busy"] = "2030-01-01T00:00:00Z".into();
    let (key, value) = (stored.key, Some(text.to_string().into()));
    let write = Write { key, expect: Expect::Version(stored.version), value };
    world.memory.write(vec![write]).await.unwrap();
    world.go_on(3_600);
    keeper.sweep().await.unwrap();
    assert_eq!(current(&keeper, "staging").await, Some(release));
}

#[tokio::test]
async fn what_a_rollback_drops_does_not_come_back_while_its_checks_run() {
    let world = World::new();
    let policy = "[environments.dev]\nchecks = [{ name = \"smoke\", command = [\"x\"] }]";
    let keeper = world.keeper_over(world.memory.clone(), policy);
    let [first, second, third] =
        ["team/app:1", "team/app:2", "team/app:3"].map(|it| world.release(it));
    promoted(&keeper, "dev", &first).await;
    promoted(&keeper, "dev", &second).await;
    keeper.hold(&say("dev", "ana", "wait"), None).await.unwrap();
    let wait = Ask { wait: Some(DAY), ..ask("dev", &third, person("eve")) };
    assert!(matches!(keeper.promote(&wait).await.unwrap(), Outcome::Waits { .. }));
    keeper.lift(&say("dev", "ana", "go on")).await.unwrap();
    *world.meanwhile.lock().unwrap() = Some(say("dev", "bo", "it crashes"));
    keeper.sweep().await.unwrap();
    assert_eq!(world.checks.load(Ordering::SeqCst), 3, "it was checked");
    assert_eq!(current(&keeper, "dev").await, Some(first));
    assert!(keeper.world().await.unwrap().waiting.is_empty());
}

#[tokio::test]
async fn what_cannot_come_any_more_waits_no_longer() {
    let world = World::new();
    let keeper = world.keeper();
    let (first, second) = (world.release("team/app:1"), world.release("team/app:2"));
    promoted(&keeper, "dev", &first).await;
    let wait = |release| Ask { wait: Some(DAY), ..ask("staging", release, person("eve")) };
    keeper.promote(&wait(&first)).await.unwrap();
    keeper.reject(&first, &person("ana"), "bad").await.unwrap();
    keeper.sweep().await.unwrap();
    assert!(keeper.world().await.unwrap().waiting.is_empty());
    promoted(&keeper, "dev", &second).await;
    keeper.promote(&wait(&second)).await.unwrap();
    keeper.hold(&say("staging", "ana", "wait"), None).await.unwrap();
    world.go_on(DAY);
    keeper.sweep().await.unwrap();
    assert!(keeper.world().await.unwrap().waiting.is_empty());
    assert_eq!(current(&keeper, "staging").await, None);
    let told = keeper.notices(100).await.unwrap();
    assert_eq!(told.last().unwrap().kind.action(), "release.promote.give-up");
    // What cannot be read holds up none of the others, even where one is asked for at a time.
    let (key, value) = ("promotion/notice/0".to_owned(), Some("no change".into()));
    let damaged = Write { key, expect: Expect::Anything, value };
    world.memory.write(vec![damaged]).await.unwrap();
    assert!(keeper.notices(1).await.unwrap().is_empty());
    assert_eq!(keeper.notices(100).await.unwrap().len(), told.len());
}

#[tokio::test]
async fn environments_take_by_themselves_what_passed_those_before() {
    let world = World::new();
    let policy = "[environments.dev]\n[environments.next]\nafter = [\"dev\"]\nautomatic = true\nsoak = \"1h\"";
    let keeper = world.keeper_over(world.memory.clone(), policy);
    let (first, second) = (world.release("team/app:1"), world.release("team/app:2"));
    for release in [&first, &second] {
        promoted(&keeper, "dev", release).await;
        keeper.sweep().await.unwrap();
        world.go_on(3_600);
        keeper.sweep().await.unwrap();
        assert_eq!(current(&keeper, "next").await.as_ref(), Some(release));
    }
    keeper.roll_back(&say("next", "ana", "bad"), None).await.unwrap();
    for _ in 0..3 {
        world.go_on(DAY);
        keeper.sweep().await.unwrap();
        assert_eq!(current(&keeper, "next").await.as_ref(), Some(&first), "it stays away");
    }
}

#[test]
fn a_world_that_is_full_fits_into_its_record() {
    use super::super::world::{
        Approval, Hold, MAX_APPROVALS, MAX_HOLDS, MAX_OVERRIDES, MAX_PAST, Override, Placed,
        World as Full, kept,
    };
    let (release, who) =
        (name(&format!("{}:{}", "a".repeat(240), "v".repeat(120))), "w".repeat(120));
    let digest = crate::oci::ContentDigest::of(b"app");
    let (at, reason) =
        (crate::timestamp::Timestamp::from_unix(super::NOON), kept(&"ü".repeat(9_000)));
    let mut world = Full::default();
    for number in 0..32 {
        let place = world.places.entry(format!("{number:040}")).or_default();
        for _ in 0..=MAX_PAST + 3 {
            let (release, digest, by) = (release.clone(), digest.clone(), who.clone());
            let how = How::Promoted;
            place.put(Placed { release, digest, generation: 0, at, by, how }, true);
        }
    }
    let environment = "e".repeat(40);
    for _ in 0..MAX_APPROVALS {
        let (environment, digest, who) = (environment.clone(), digest.clone(), who.clone());
        world.approvals.push(Approval { environment, digest, who, at, reason: reason.clone() });
    }
    for _ in 0..MAX_HOLDS {
        let (environment, by, reason) = (environment.clone(), who.clone(), reason.clone());
        world.holds.push(Hold { environment, by, at, until: Some(at), reason });
    }
    for _ in 0..MAX_OVERRIDES {
        let (environment, by, reason) = (environment.clone(), who.clone(), reason.clone());
        let (digest, confirmed) = (digest.clone(), Some(who.clone()));
        world.overrides.push(Override {
            environment,
            digest,
            by,
            at,
            until: at,
            reason,
            confirmed,
        });
    }
    let size = crate::json::write(&world).unwrap().len();
    // There is room for promotions that wait, one for each environment.
    assert!(size < kiln_cas::records::MAX_VALUE - (100 << 10), "{size}");
}
