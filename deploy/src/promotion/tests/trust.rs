//! Who is believed: keys that come, go and are stolen, several who say something else, and one who says much.

use super::super::Outcome;
use super::super::decision::{Gate, Standing};
use super::{DAY, NOON, World, ask, person, say};
use crate::signing::{KeyRing, Scheme, Signer as _, SigningKey, TrustedKey};
use crate::timestamp::Timestamp;

async fn refused(
    world: &std::sync::Arc<World>,
    policy: &str,
    keys: KeyRing,
    text: &str,
) -> Vec<Gate> {
    let keeper = world.keeper_over(world.memory.clone(), policy);
    keeper.set_keys(keys);
    let judged = keeper.judge(&ask("prod", &super::name(text), person("eve"))).await.unwrap();
    let (Outcome::Refused { decision }
    | Outcome::Promoted { decision, .. }
    | Outcome::NotNow { decision }) = judged
    else {
        panic!("{judged:?}")
    };
    let refused = decision.reasons.iter().filter(|it| it.standing == Standing::Refused);
    refused.map(|it| it.gate).collect()
}

#[tokio::test]
async fn a_condition_holds_for_all_that_keys_have_signed() {
    let world = World::new();
    let other = SigningKey::generate(Scheme::Ed25519).unwrap().0;
    let release = world.release("team/app:1");
    let good = world.releases.lock().unwrap()[&release].1[0].clone();
    world.release_of("team/app:1", "feature", &other);
    world.releases.lock().unwrap().get_mut(&release).unwrap().1.insert(0, good);
    let keys = || {
        let key = |name: &str, key: &SigningKey| TrustedKey::always(name, key.public_key().clone());
        KeyRing::new(vec![key("release", &world.key), key("other", &other)]).unwrap()
    };
    for condition in ["release.branch == 'main'", "release.branch != 'main'"] {
        let policy = format!("[environments.prod]\nconditions = [\"{condition}\"]");
        let gates = refused(&world, &policy, keys(), "team/app:1").await;
        assert_eq!(gates, [Gate::Condition], "{condition}");
    }
    // The policy asks for one signer, so claims that other keys signed do not count.
    let policy =
        "[environments.prod]\nsigners = [\"release\"]\nconditions = [\"release.branch == 'main'\"]";
    assert_eq!(refused(&world, policy, keys(), "team/app:1").await, []);
}

#[tokio::test]
async fn one_key_follows_another_and_one_that_was_stolen_signs_nothing_new() {
    const POLICY: &str = "[environments.prod]\nsigners = [\"old\", \"new\"]";
    let world = World::new();
    let new = SigningKey::generate(Scheme::Ed25519).unwrap().0;
    world.release("team/app:1");
    world.release_of("team/app:2", "main", &new);
    let at = |seconds: i64| Some(Timestamp::from_unix(NOON + seconds));
    let ring = |old: TrustedKey| {
        let new = TrustedKey {
            not_before: at(-60),
            ..TrustedKey::always("new", new.public_key().clone())
        };
        KeyRing::new(vec![TrustedKey { name: "old".to_owned(), ..old }, new]).unwrap()
    };
    let old = || TrustedKey::always("old", world.key.public_key().clone());
    world.go_on(10 * DAY);
    for (old, expected) in [
        (TrustedKey { not_after: at(60), ..old() }, &[][..]),
        (TrustedKey { not_after: at(0), ..old() }, &[Gate::Signature]),
        // The server's record says since when it is there.
        (TrustedKey { revoked_from: at(60), ..old() }, &[]),
        (TrustedKey { revoked_from: at(0), ..old() }, &[Gate::Signature]),
    ] {
        let shown = format!("{old:?}");
        assert_eq!(
            refused(&world, POLICY, ring(old.clone()), "team/app:1").await,
            expected,
            "{shown}"
        );
        assert_eq!(refused(&world, POLICY, ring(old), "team/app:2").await, [], "{shown}");
    }
}

#[tokio::test]
async fn who_approves_much_pushes_out_nobody_else() {
    let world = World::new();
    let keeper = world.keeper();
    let good = world.release("team/app:good");
    keeper.approve(&say("prod", "bo", "looked at it"), &good).await.unwrap();
    for number in 0..super::super::world::MAX_APPROVALS + 10 {
        let release = world.release(&format!("team/app:{number}"));
        keeper.approve(&say("prod", "ana", "fine"), &release).await.unwrap();
    }
    keeper.approve(&say("prod", "cy", "me too"), &good).await.unwrap();
    let kept = keeper.world().await.unwrap().approvals;
    assert_eq!(kept.len(), super::super::world::MAX_APPROVALS);
    let of_good: Vec<_> =
        kept.iter().filter(|it| it.reason != "fine").map(|it| it.who.as_str()).collect();
    assert_eq!(of_good, ["bo", "cy"]);
}
