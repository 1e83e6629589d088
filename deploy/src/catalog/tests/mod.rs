//! Releases over stores in memory: made, found again, refused, and what crashes and races leave.

mod full;
mod honest;
mod layers;
mod links;
pub mod rig;
mod shown;
mod store;
mod sweeping;

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

use kiln_cas::records::{Expect, Write};
use kiln_cas::stores::audit::AuditLog;

use self::rig::{House, trusting};
use super::sweep::PAGE;
use super::{By, CatalogError, Form, Prepared, ToldFile, Wanted, keys};
use crate::executions::tests::rig::{DAY, content, executed, hit};
use crate::oci::{ContentDigest, DirectoryLayout};
use crate::provenance::ClosureEntry;
use crate::releases::{DirectoryExport, Expected, export, verify};
use crate::signing::{KeyRing, PublicKey, Scheme, Signer as _, SigningKey, TrustedKey};
use crate::timestamp::Timestamp;

#[tokio::test]
async fn a_release_is_exported_and_verified_without_the_server() {
    let house = House::start().await;
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    assert_eq!((made.closure.actions, made.closure.sources), (2, 1));
    assert_eq!((made.level.build_level, made.closure.missing), (3, 0), "{:?}", made.level);

    let (opener, entry) = (house.catalog.opener(&made), made.clone());
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let checked = tokio::task::spawn_blocking(move || {
        export(&entry.release, &|it| opener.open(it), &mut DirectoryExport::new(&path)).unwrap();
        let key = PublicKey::from_pem(&entry.public_key).unwrap();
        let keys = KeyRing::new(vec![TrustedKey::always("key", key)]).unwrap();
        let expected =
            Expected { name: Some(entry.release.name), level: Some(3), ..Expected::default() };
        let now = Timestamp::from_unix(20_000 * 86_400);
        verify(&DirectoryLayout::new(&path), &keys, &expected, now).unwrap()
    });
    assert!(checked.await.unwrap().iter().any(|it| it.what == "closure"));
    let (lines, more) = house.catalog.closure(&made, 0, 10).await.unwrap();
    let kinds: Vec<_> = lines
        .iter()
        .map(|it| match it {
            ClosureEntry::Executed(it) => it.target.clone(),
            ClosureEntry::Source { path, .. } => path.clone(),
            _ => String::new(),
        })
        .collect();
    assert_eq!((kinds, more), (["//app", "//lib", "a.c"].map(str::to_owned).to_vec(), false));
    let log = AuditLog::new(house.rig.records.clone()).list(0, 10).await.unwrap();
    let noted: Vec<_> =
        log.iter().map(|it| (&*it.event.actor, &*it.event.action, &*it.event.subject)).collect();
    assert_eq!(noted, [("somebody", "release.create", "team/app:1.0")]);
}

#[tokio::test]
async fn a_name_is_one_content_for_ever() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.build("two", "2").await;
    let first = house.create("team/app:1.0", "one").await.unwrap();
    assert_eq!(house.create("team/app:1.0", "one").await.unwrap(), first);
    let other = house.create("team/app:1.0", "two").await;
    assert!(matches!(other, Err(CatalogError::Taken { .. })), "{other:?}");
    let mut elsewhere = house.asked("team/app:1.0", "one");
    elsewhere.revision.source = None;
    assert!(matches!(house.make(elsewhere).await, Err(CatalogError::Taken { .. })));
    let name = first.release.name.clone();
    let rejected = house.catalog.reject("", &name, "loses data", "somebody").await.unwrap();
    assert_eq!(rejected.rejected.unwrap().reason, "loses data");
    let again = house.create("team/app:1.0", "one").await;
    assert!(matches!(again, Err(CatalogError::Rejected { .. })), "{again:?}");
    assert!(house.catalog.reject("", &name, " ", "somebody").await.is_err());
    assert_eq!(house.names().await, ["team/app:1.0"]);
}

#[tokio::test]
async fn two_machines_release_the_same_manifest() {
    let (one, two) = (House::start().await, House::start().await);
    two.rig.now.fetch_add(3 * DAY + 7_000_000_000, Ordering::Relaxed);
    for house in [&one, &two] {
        house.build("one", "1").await;
    }
    let (first, second) = (
        one.create("team/app:1.0", "one").await.unwrap(),
        two.create("team/app:1.0", "one").await.unwrap(),
    );
    assert_eq!(first.release.subject, second.release.subject);
    assert_ne!(first.release.attestations, second.release.attestations, "other keys, other times");
}

#[tokio::test]
async fn a_hit_at_another_frontend_leads_to_the_same_provenance() {
    let house = House::start().await;
    house.build("one", "1").await;
    let other = house.again();
    let app = executed("one", "//app", &[("bazel-out/k8/bin/app/app", "program 1")]);
    other.rig.events.publish(hit(&app, "two", "//app"));
    other.rig.executions.flush().await;
    let made = other.create("team/app:1.0", "two").await.unwrap();
    assert_eq!((made.closure.actions, made.closure.written), (2, 0), "{:?}", made.closure);
}

#[tokio::test]
async fn whoever_has_the_key_signs_and_nobody_else() {
    let house = House::start().await;
    house.build("one", "1").await;
    let prepared =
        house.catalog.prepare(house.asked("team/app:1.0", "one"), By::Client).await.unwrap();
    let Prepared::Draft(draft, messages) = prepared else { panic!("it is not there yet") };
    assert_eq!(house.names().await, [] as [&str; 0], "nothing is visible before it is signed");
    let (key, _) = SigningKey::generate(Scheme::Ed25519).unwrap();
    let (stranger, _) = SigningKey::generate(Scheme::Ed25519).unwrap();
    let sign =
        |key: &SigningKey| messages.iter().map(|it| key.sign(it).unwrap()).collect::<Vec<_>>();
    let finish = async |draft: &str, key: &SigningKey, signatures: Vec<Vec<u8>>| {
        let signed = (key.public_key().clone(), signatures);
        house.catalog.signed_elsewhere("", draft, signed, "somebody").await
    };
    let forged = finish(&draft.id, &key, sign(&stranger)).await;
    assert!(matches!(forged, Err(CatalogError::Sign(_))), "{forged:?}");
    let few = finish(&draft.id, &key, sign(&key)[1..].to_vec()).await;
    assert!(matches!(few, Err(CatalogError::Signatures(4, 5))), "{few:?}");
    for id in ["", "../x", "00000000000000000000000000000000"] {
        assert!(matches!(finish(id, &key, sign(&key)).await, Err(CatalogError::NoDraft(_))));
    }
    assert_eq!(house.names().await, [] as [&str; 0]);
    house.rig.now.fetch_add(60_000_000_000, std::sync::atomic::Ordering::Relaxed);
    let made = finish(&draft.id, &key, sign(&key)).await.unwrap();
    assert_eq!(made.release.created, draft.release.created.plus(60), "when the signatures came");
    assert_eq!(made.public_key, key.public_key().to_pem().unwrap());
    assert_eq!(made.level.build_level, 1, "the key is somebody else's");
    assert!(matches!(finish(&draft.id, &key, sign(&key)).await, Err(CatalogError::NoDraft(_))));
}

#[tokio::test]
async fn outputs_that_are_gone_are_told() {
    let house = House::start().await;
    house.build("one", "1").await;
    let lost = executed("one", "//lost", &[("bazel-out/k8/bin/lost", "never stored")]);
    house.rig.events.publish(lost);
    house.rig.executions.flush().await;
    let ask = async |target: &str, invocation: &str| {
        let mut asked = house.asked("team/app:1.0", invocation);
        asked.outputs.target = target.to_owned();
        house.make(asked).await.unwrap_err()
    };
    assert!(matches!(ask("//lost", "one").await, CatalogError::Evicted(_)));
    assert!(matches!(ask("//none", "one").await, CatalogError::NoOutputs { .. }));
    assert!(matches!(ask("//app", "none").await, CatalogError::NoInvocation(_)));
    let mut image = house.asked("team/app:1.0", "one");
    image.form = Form::Image;
    assert!(matches!(house.make(image).await, Err(CatalogError::NoLayout(_))));
    let mut chosen = house.asked("team/app:1.0", "one");
    chosen.outputs.paths = vec!["nothing".to_owned()];
    assert!(matches!(house.make(chosen).await, Err(CatalogError::NoSuchOutput { .. })));
    assert_eq!(house.names().await, [] as [&str; 0]);
}

#[tokio::test]
async fn build_events_say_which_of_several_outputs_are_meant() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.put("other").await;
    let mut other = executed("one", "//app", &[("bazel-out/k8/bin/app/other", "other")]);
    other.action = Some(crate::executions::tests::rig::action("other"));
    house.rig.events.publish(other);
    house.rig.executions.flush().await;
    let ambiguous = house.create("team/app:1.0", "one").await;
    assert!(matches!(ambiguous, Err(CatalogError::Ambiguous { count: 2, .. })), "{ambiguous:?}");
    let digest = content("other");
    let (path, hash) = ("app/other".to_owned(), digest.hex());
    let told = ToldFile { path, hash, size: digest.size, link: None };
    let mut asked = house.asked("team/app:1.0", "one");
    asked.outputs = Wanted { told: Some(vec![told]), ..asked.outputs };
    house.make(asked).await.unwrap();
    let origins = house.catalog.origins("", &digest.hex()).await.unwrap();
    let releases: Vec<_> = origins.releases.iter().map(ToString::to_string).collect();
    assert_eq!((origins.made.len(), releases), (1, vec!["team/app:1.0".to_owned()]));
}

#[tokio::test]
async fn what_a_newer_server_wrote_beside_is_left_alone() {
    let house = House::start().await;
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    let (name, key) = (&made.release.name, keys::entry("", &made.release.name));
    let read = async || {
        let record = house.rig.records.get(&key).await.unwrap().unwrap();
        serde_json::from_slice::<serde_json::Value>(&record.value).unwrap()
    };
    let mut entry = read().await;
    for part in ["", "/release", "/level", "/closure"] {
        entry.pointer_mut(part).unwrap()["later"] = "something".into();
    }
    let value = Some(entry.to_string().into_bytes().into());
    let write = Write { key: key.clone(), expect: Expect::Anything, value };
    house.rig.records.write(vec![write]).await.unwrap();
    assert_eq!(house.catalog.get("", name).await.unwrap(), made);
    house.catalog.reject("", name, "loses data", "somebody").await.unwrap();
    assert!(house.catalog.get("", name).await.unwrap().rejected.is_some());
    let mut kept = read().await;
    kept.as_object_mut().unwrap().remove("rejected");
    assert_eq!(kept, entry);
}

/// The server ends after each of its writes, one after the other.
#[tokio::test]
async fn wherever_a_server_ends_nothing_half_made_is_seen() {
    let mut finished = false;
    for writes in 0..200 {
        let house = House::start().await;
        house.build("one", "1").await;
        house.rig.faults.refuse_after(writes);
        let made = house.create("team/app:1.0", "one").await;
        house.rig.faults.refuse(false);
        let after = house.again();
        let visible = after.names().await;
        if made.is_ok() {
            assert_eq!(visible, ["team/app:1.0"]);
            finished = true;
            break;
        }
        for entry in after.catalog.list("", None, 10).await.unwrap() {
            // The release became visible, and only the answer was lost. Then the release has to be whole.
            let pinned = after.pins.list(super::PINS, None, 1_000).await.unwrap();
            let pinned: BTreeSet<_> = pinned.iter().map(|it| it.digest.hex()).collect();
            assert!(entry.content.iter().all(|(digest, _)| pinned.contains(digest.hex())));
            assert_eq!(entry.release.attestations.len(), 5, "the list, and four that are signed");
        }
        // A sweep removes what the crash left, and the same release can be made again.
        after.swept().await;
        let again = after.create("team/app:1.0", "one").await.unwrap();
        let pins = after.pins.list(super::PINS, None, 1_000).await.unwrap();
        assert_eq!(pins.len(), again.content.len(), "after {writes} writes");
        assert!(pins.iter().all(|it| it.name == again.pin));
    }
    assert!(finished, "it takes no more writes than that");
}

#[tokio::test]
async fn what_never_became_visible_is_in_no_release() {
    let mut finished = false;
    for writes in 0..200 {
        let house = House::start().await;
        house.build("one", "1").await;
        house.build("two", "2").await;
        house.rig.faults.refuse_after(writes);
        finished = house.create("team/app:1.0", "one").await.is_ok();
        house.rig.faults.refuse(false);
        if finished {
            break;
        }
        if house.names().await.is_empty() {
            house.create("team/app:1.0", "two").await.unwrap();
            let found = house.catalog.origins("", &content("program 1").hex()).await.unwrap();
            assert!(found.releases.is_empty(), "after {writes} writes: {found:?}");
        }
    }
    assert!(finished, "it takes no more writes than that");
}

#[tokio::test]
async fn of_two_that_race_one_is_the_release() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.build("two", "2").await;
    let (same, too) = tokio::join!(house.create("a:1", "one"), house.create("a:1", "one"));
    assert_eq!(same.unwrap(), too.unwrap());
    let (one, two) = tokio::join!(house.create("b:1", "one"), house.create("b:1", "two"));
    let (winner, loser) = if one.is_ok() { (one, two) } else { (two, one) };
    assert!(matches!(loser, Err(CatalogError::Taken { .. })), "{loser:?}");
    let (all, winner) = (house.pins.list(super::PINS, None, 1_000).await.unwrap(), winner.unwrap());
    let own = all.iter().filter(|it| it.name == winner.pin).count();
    assert_eq!(own, winner.content.len());
    let names: BTreeSet<_> = all.iter().map(|it| &it.name).collect();
    assert_eq!(names.len(), 2, "the losers let go");
}

#[tokio::test]
async fn an_export_is_taken_in_by_another_server_as_it_is() {
    let (house, other) = (House::start().await, House::start().await);
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    let index = crate::releases::export_index(&made.release).unwrap();
    let key = PublicKey::from_pem(&made.public_key).unwrap();
    let early = other.catalog.import("", index.clone(), trusting(&key), "bringer").await;
    assert!(matches!(early, Err(CatalogError::Evicted(_))), "{early:?}");
    for (digest, size) in &made.content {
        let digest = super::sized(digest, *size).unwrap();
        let blob = house.rig.blobs.read(&digest, 0, None).await.unwrap();
        let bytes = blob.collect(u64::MAX).await.unwrap();
        other.rig.blobs.write(&digest, bytes).await.unwrap();
    }
    let (stranger, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
    let stranger = stranger.public_key();
    let wrong = other.catalog.import("", index.clone(), trusting(stranger), "bringer").await;
    assert!(matches!(wrong, Err(CatalogError::NotVerified(_))), "{wrong:?}");
    // Of several keys that are trusted it is one, which is noted; one that was revoked counts no more.
    let mut policy = vec![TrustedKey::always("a", stranger.clone()), TrustedKey::always("b", key)];
    let both = KeyRing::new(policy.clone()).unwrap();
    policy[1].revoked_from = Some(made.release.created.plus(3_600));
    let revoked = KeyRing::new(policy).unwrap();
    let late = other.catalog.import("", index.clone(), revoked, "bringer").await;
    assert!(matches!(late, Err(CatalogError::NotVerified(_))), "{late:?}");
    let taken = other.catalog.import("", index.clone(), both.clone(), "bringer").await.unwrap();
    assert_eq!(taken.public_key, made.public_key);
    assert_eq!(taken.release.attestations, made.release.attestations);
    assert_eq!((taken.level, taken.closure), (made.level, made.closure));
    assert_eq!((&taken.release.target, &taken.source), (&made.release.target, &made.source));
    let again = other.catalog.import("", index, both, "bringer").await.unwrap();
    assert_eq!(again.pin, taken.pin);
}

#[tokio::test]
async fn executions_that_were_lost_are_named_and_cost_a_level() {
    let house = House::start().await;
    house.build("one", "1").await;
    let now = house.rig.now.load(Ordering::Relaxed);
    let loss = crate::executions::tests::rig::loss(now, 7);
    house.rig.records.write(vec![loss]).await.unwrap();
    let made = house.create("team/app:1.0", "one").await.unwrap();
    assert_eq!(made.level.build_level, 2);
    assert!(made.level.but.iter().any(|it| it.starts_with("7 executions")), "{:?}", made.level);
}

#[tokio::test]
async fn what_cannot_be_read_hides_no_other_release_and_is_not_removed() {
    let house = House::start().await;
    for (name, build) in [("team/app:1.0", "1"), ("team/app:2.0", "2")] {
        house.build(build, build).await;
        house.create(name, build).await.unwrap();
    }
    let (entry, draft) = (keys::entry("", &"team/app:1.0".parse().unwrap()), keys::draft("odd"));
    for key in [&entry, &draft] {
        let (key, value) = (key.clone(), Some("nothing that a catalog writes".into()));
        let write = Write { key, expect: Expect::Anything, value };
        house.rig.records.write(vec![write]).await.unwrap();
    }
    assert_eq!(house.names().await, ["team/app:2.0"]);
    // A short list would be taken for the last one.
    assert_eq!(house.catalog.list("", None, 1).await.unwrap().len(), 1);
    assert_eq!(house.catalog.instances(10).await.unwrap(), [""]);
    assert!(house.catalog.catch_up(10).await.unwrap().done);
    // Whoever removes releases has to know what all of them need.
    assert!(house.catalog.list_whole("", None, 10).await.is_err());
    house.swept().await;
    assert!(house.rig.records.get(&draft).await.unwrap().is_some());
}

#[tokio::test]
async fn what_cannot_be_read_of_a_release_that_is_gone_is_left_for_the_next_look() {
    let house = House::start().await;
    let name = "team/app:9".parse().unwrap();
    let attached = keys::attached("", &name, &ContentDigest::of(b"odd"));
    for key in [keys::gone("", &name), keys::unswept(""), attached.clone()] {
        let value = Some("nothing that a catalog writes".into());
        let write = Write { key, expect: Expect::Anything, value };
        house.rig.records.write(vec![write]).await.unwrap();
    }
    house.catalog.sweep_removed("").await.unwrap();
    for key in [keys::unswept(""), attached] {
        assert!(house.rig.records.get(&key).await.unwrap().is_some(), "{key}");
    }
}

#[tokio::test]
async fn many_drafts_that_cannot_be_read_keep_no_other_one() {
    let house = House::start().await;
    house.build("one", "1").await;
    let prepared = house.catalog.prepare(house.asked("team/app:1.0", "one"), By::Client).await;
    let Prepared::Draft(draft, _) = prepared.unwrap() else { panic!("it is not there yet") };
    // Before the id of any other one.
    for at in 0..PAGE {
        let (key, value) = (keys::draft(&format!("-{at:03}")), Some("no draft".into()));
        let write = Write { key, expect: Expect::Anything, value };
        house.rig.records.write(vec![write]).await.unwrap();
    }
    house.swept().await;
    let left = house.rig.records.list(keys::DRAFTS, None, false, 2 * PAGE).await.unwrap();
    assert_eq!(left.len(), PAGE);
    assert!(left.iter().all(|it| it.key != keys::draft(&draft.id)));
}
