//! Releases as the registry serves them.

mod catching;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::Map;

use super::rig::House;
use crate::catalog::{Arrival, CatalogEntry, CatalogError};
use crate::oci::{ContentDigest, Document, Index, MANIFEST_TYPE, Manifest, Reference, Repository};
use crate::promotion::{How, Placed, World};
use crate::provenance::SLSA_PREDICATE;
use crate::registry::UploadLimits;
use crate::registry::store::{Push, Registry, RegistryError, RegistryParts};
use crate::releases::CLOSURE_ARTIFACT_TYPE;
use crate::resource::ResourceDescriptor;
use crate::retention::{Collector, Rules, Stays};
use crate::signing::{
    Attestation, Envelope, IN_TOTO_TYPE, KeyRing, PublicKey, SIGNATURE_ANNOTATION, Scheme,
    SigningKey, SimpleSigning, Statement, TrustedKey,
};
use crate::timestamp::Timestamp;

struct Pulled<'a> {
    house: &'a House,
    registry: Registry,
    repository: Repository,
}

impl<'a> Pulled<'a> {
    fn new(house: &'a House, repository: &str) -> Self {
        let registry = Registry::new(RegistryParts {
            blobs: house.rig.blobs.clone(),
            records: house.rig.records.clone(),
            pins: house.pins.clone(),
            uploads: UploadLimits { count: 1, bytes: 1, age: Duration::from_secs(1) },
            max_blob_size: u64::MAX,
            owned: Vec::new(),
            now: Arc::new(|| 1),
        });
        Self { house, registry, repository: repository.parse().unwrap() }
    }

    async fn pull(&self, reference: &str) -> Result<(ContentDigest, Document), RegistryError> {
        let reference: Reference = reference.parse().unwrap();
        let found = self.registry.find_manifest(&self.repository, &reference).await?;
        let data = self.registry.read_manifest(&found).await?;
        assert_eq!(ContentDigest::of(&data), found.digest);
        let document = Document::read(&found.media_type, &data).unwrap();
        for blob in document.names().filter(|_| matches!(document, Document::Manifest(_))) {
            let size = self.registry.blob_size(&self.repository, &blob.digest).await?;
            assert_eq!(size, blob.size);
        }
        Ok((found.digest, document))
    }

    /// The digest that a tag names, if it names one.
    async fn tag(&self, tag: &str) -> Option<ContentDigest> {
        self.pull(tag).await.ok().map(|it| it.0)
    }

    async fn tags(&self) -> Vec<String> {
        let tags = self.registry.tags(&self.repository, None, 100).await.unwrap().items;
        tags.into_iter().filter(|it| !it.starts_with("sha256-")).collect()
    }

    /// Types of what is about a manifest.
    async fn referrers(&self, subject: &ContentDigest) -> Vec<String> {
        let page =
            self.registry.referrers(&self.repository, subject, None, None).await.unwrap().items;
        for entry in &page.manifests {
            let (_, document) = self.pull(&entry.digest.to_string()).await.unwrap();
            assert_eq!(document.annotations(), &entry.annotations);
        }
        kinds(&page)
    }

    async fn manifest(&self, tag: &str) -> Manifest {
        match self.pull(tag).await.unwrap().1 {
            Document::Manifest(manifest) => *manifest,
            Document::Index(_) => panic!("{tag} is an index"),
        }
    }

    async fn layers(&self, manifest: &Manifest) -> Vec<Vec<u8>> {
        let mut layers = Vec::new();
        for layer in &manifest.layers {
            let content = self.registry.link(&self.repository, &layer.digest).await.unwrap();
            let blob = self.house.rig.blobs.read(&content, 0, None).await.unwrap();
            layers.push(blob.collect(u64::MAX).await.unwrap().into());
        }
        layers
    }
}

fn kinds(index: &Index) -> Vec<String> {
    let kind = |it: &crate::oci::Descriptor| {
        let predicate = it.annotations.get("dev.sigstore.bundle.predicateType");
        predicate.or(it.artifact_type.as_ref()).cloned().unwrap_or_default()
    };
    let mut kinds: Vec<_> = index.manifests.iter().map(kind).collect();
    kinds.sort();
    kinds
}

fn keys(entry: &CatalogEntry) -> KeyRing {
    let key = PublicKey::from_pem(&entry.public_key).unwrap();
    KeyRing::new(vec![TrustedKey::always("key", key)]).unwrap()
}

#[tokio::test]
async fn a_release_is_pulled_with_everything_about_it() {
    let house = House::start().await;
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    let registry = Pulled::new(&house, "team/app");
    let subject = made.release.digest();
    assert_eq!(registry.tag("1.0").await.as_ref(), Some(subject));
    registry.pull(&subject.to_string()).await.unwrap();
    let about = registry.referrers(subject).await;
    assert_eq!(about.len(), 5);
    for kind in [CLOSURE_ARTIFACT_TYPE, SLSA_PREDICATE] {
        assert!(about.iter().any(|it| it == kind), "{about:?}");
    }
    let fallback = registry.pull(&subject.fallback_tag()).await.unwrap().1;
    let Document::Index(fallback) = fallback else { panic!("it is a list") };
    assert_eq!(kinds(&fallback), about);
    // What the tags of cosign's older form lead to verifies by itself.
    let (keys, image) = (keys(&made), subject.to_string());
    let older = registry.manifest(&format!("{}.sig", subject.fallback_tag())).await;
    let signature = older.layers[0].annotations[SIGNATURE_ANNOTATION].clone();
    let payload = registry.layers(&older).await.remove(0);
    assert!(String::from_utf8_lossy(&payload).contains("kiln.example/team/app"));
    SimpleSigning { payload, signature }.verify(&image, &keys).unwrap();
    let older = registry.manifest(&format!("{}.att", subject.fallback_tag())).await;
    assert_eq!(older.layers.len(), 4);
    for (envelope, layer) in registry.layers(&older).await.iter().zip(&older.layers) {
        let read = Envelope::read(envelope).unwrap();
        let read = Attestation::from_envelope(&read, &keys).unwrap();
        assert_eq!(read.statement.predicate_type, layer.annotations["predicateType"]);
        assert!(read.statement.is_about(&subject.set()));
    }
    // Nobody may push to a repository that has releases.
    let data = house.put("{}").await;
    let reference: Reference = "2.0".parse().unwrap();
    let push = Push {
        repository: &registry.repository,
        reference: &reference,
        tags: &[],
        media_type: MANIFEST_TYPE,
        data: data.hex().into(),
    };
    let pushed = registry.registry.push_manifest(&house.rig.blobs, push).await;
    assert!(matches!(pushed, Err(RegistryError::Owned(_))), "{pushed:?}");
}

/// Wherever a server ends: what is a release can be pulled, and nothing else can.
#[tokio::test]
async fn what_is_no_release_yet_is_not_pulled() {
    let mut finished = false;
    for writes in 0..200 {
        let house = House::start().await;
        house.build("one", "1").await;
        house.rig.faults.refuse_after(writes);
        finished = house.create("team/app:1.0", "one").await.is_ok();
        house.rig.faults.refuse(false);
        let registry = Pulled::new(&house, "team/app");
        let listed = house.catalog.list("", None, 10).await.unwrap();
        assert_eq!(registry.tag("1.0").await.is_some(), listed.len() == 1, "{writes}");
        let manifests = house.rig.records.list("registry/manifests/", None, false, 1).await;
        assert_eq!(manifests.unwrap().is_empty(), listed.is_empty(), "{writes}");
        if let [entry] = listed.as_slice() {
            assert_eq!(registry.referrers(entry.release.digest()).await.len(), 5);
        }
        if finished {
            break;
        }
    }
    assert!(finished, "it takes no more writes than that");
}

#[tokio::test]
async fn a_rejected_release_has_no_tag() {
    let house = House::start().await;
    house.build("one", "1").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    house.create("team/app:1.1", "one").await.unwrap();
    house.catalog.reject("", &made.release.name, "loses data", "somebody").await.unwrap();
    let registry = Pulled::new(&house, "team/app");
    assert_eq!(registry.tags().await, ["1.1"]);
    // What runs goes on running: its nodes may pull again.
    registry.pull(&made.release.digest().to_string()).await.unwrap();
}

#[tokio::test]
async fn a_repository_has_releases_of_one_instance() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.create("team/app:1.0", "one").await.unwrap();
    let mut elsewhere = house.asked("team/app:2.0", "one");
    elsewhere.instance = "other".to_owned();
    let refused = house.make(elsewhere).await;
    assert!(matches!(refused, Err(CatalogError::OfAnother(_))), "{refused:?}");
}

#[tokio::test]
async fn no_version_takes_the_tags_of_what_was_signed() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.build("two", "2").await;
    let made = house.create("team/app:1.0", "one").await.unwrap();
    let list = made.release.digest().fallback_tag();
    let registry = Pulled::new(&house, "team/app");
    for tag in [list.clone(), format!("{list}.sig"), format!("{list}.att")] {
        let before = registry.tag(&tag).await;
        let refused = house.create(&format!("team/app:{tag}"), "two").await;
        assert!(matches!(refused, Err(CatalogError::Version(_))), "{refused:?}");
        assert!(before.is_some() && registry.tag(&tag).await == before, "{tag}");
    }
    house.create("team/app:sha256", "two").await.unwrap();
}

fn envelope(entry: &CatalogEntry) -> Vec<u8> {
    let subject = ResourceDescriptor::new("app", "sha256", entry.release.subject.digest.hex());
    let statement = Statement::new(vec![subject], "https://a/summary", Map::new()).unwrap();
    let (key, _) = SigningKey::generate(Scheme::EcdsaP256).unwrap();
    Envelope::sign(IN_TOTO_TYPE, statement.write().unwrap(), &key).unwrap().write().unwrap()
}

/// A promotion, as far as the registry has to do with it.
async fn arrive(house: &House, entry: &CatalogEntry, before: Option<&CatalogEntry>) {
    let signed = envelope(entry);
    let arrival = Arrival {
        environment: "prod",
        release: (&entry.release.name, entry.release.digest()),
        before: before.map(|it| &it.release.name),
        signed: Some((&signed, "https://a/summary")),
    };
    let writes = house.catalog.arrival("", &arrival).await.unwrap();
    house.rig.records.write(writes).await.unwrap();
}

#[tokio::test]
async fn the_tag_of_an_environment_follows_its_pointer() {
    let house = House::start().await;
    house.build("one", "1").await;
    house.build("two", "2").await;
    let one = house.create("team/app:1.0", "one").await.unwrap();
    let two = house.create("team/app:2.0", "two").await.unwrap();
    let other = house.create("team/other:1", "two").await.unwrap();
    let (registry, others) = (Pulled::new(&house, "team/app"), Pulled::new(&house, "team/other"));
    assert_eq!(registry.tag("prod").await, None);
    arrive(&house, &one, None).await;
    assert_eq!(registry.tag("prod").await.as_ref(), Some(one.release.digest()));
    arrive(&house, &two, Some(&one)).await;
    assert_eq!(registry.tag("prod").await.as_ref(), Some(two.release.digest()));
    arrive(&house, &one, Some(&two)).await;
    assert_eq!(registry.tag("prod").await.as_ref(), Some(one.release.digest()));
    arrive(&house, &other, Some(&one)).await;
    assert_eq!(registry.tags().await, ["1.0", "2.0"]);
    assert_eq!(others.tags().await, ["1", "prod"]);
    // The registry lists what was signed for each name, both as referrers and under the older tag.
    let about = registry.referrers(one.release.digest()).await;
    assert_eq!(about.iter().filter(|it| *it == "https://a/summary").count(), 2, "{about:?}");
    let list = registry.pull(&one.release.digest().fallback_tag()).await.unwrap().1;
    let Document::Index(list) = list else { panic!("it is a list") };
    assert_eq!(kinds(&list), about);
    // Somebody else's version has the name.
    let named = house.create("team/app:prod", "two").await.unwrap();
    arrive(&house, &one, Some(&other)).await;
    assert_eq!(registry.tag("prod").await.as_ref(), Some(named.release.digest()));
    // A promotion that came to nothing leaves nothing pinned.
    let signed = envelope(&one);
    let arrival = Arrival {
        environment: "dev",
        release: (&one.release.name, one.release.digest()),
        before: None,
        signed: Some((&signed, "https://a/summary")),
    };
    house.catalog.arrival("", &arrival).await.unwrap();
    assert!(house.swept().await > 0);
    assert_eq!(registry.referrers(one.release.digest()).await.len(), 5 + 3);
}

fn standing(entry: &CatalogEntry) -> World {
    let current = Placed {
        release: entry.release.name.clone(),
        digest: entry.release.digest().clone(),
        generation: 1,
        at: Timestamp::from_unix(0),
        by: "ana".to_owned(),
        how: How::Promoted,
    };
    let mut world = World::default();
    world.places.entry("prod".to_owned()).or_default().current = Some(current);
    world
}

#[tokio::test]
async fn what_nothing_keeps_goes_and_what_stands_somewhere_stays() {
    let house = House::start().await;
    for (invocation, text) in [("one", "1"), ("two", "2"), ("three", "3")] {
        house.build(invocation, text).await;
    }
    let mut made = Vec::new();
    for (name, invocation) in [("1.0", "one"), ("2.0", "two"), ("3.0", "three"), ("3.1", "three")] {
        house.rig.now.fetch_add(2_000_000_000, Ordering::Relaxed);
        made.push(house.create(&format!("team/app:{name}"), invocation).await.unwrap());
    }
    let [old, live, new, again]: [CatalogEntry; 4] = made.try_into().unwrap();
    arrive(&house, &old, None).await;
    arrive(&house, &live, Some(&old)).await;
    let world = serde_json::to_vec(&standing(&live)).unwrap();
    let write = kiln_cas::records::Write {
        key: "promotion/world".to_owned(),
        expect: kiln_cas::records::Expect::Absent,
        value: Some(world.into()),
    };
    house.rig.records.write(vec![write]).await.unwrap();
    let collector = Collector {
        catalog: house.catalog.clone(),
        records: house.rig.records.clone(),
        rules: Rules { predecessors: 0, newest: 1, age: 86_400 },
    };
    let now = |days: i64| {
        let now = house.rig.now.load(Ordering::Relaxed);
        Timestamp::from_unix(now.div_euclid(1_000_000_000)).plus(days * 86_400)
    };
    assert!(collector.look("", now(0)).await.unwrap().iter().all(|it| !it.goes()));
    // What a rollout returns to stays, too.
    let place = "rollouts/place/prod/web".to_owned();
    let good = serde_json::json!({
        "newest": null,
        "good": {"release": "team/app:1.0", "version": old.release.digest().to_string()},
    });
    let mut standing = kiln_cas::records::Write {
        key: place,
        expect: kiln_cas::records::Expect::Anything,
        value: Some(good.to_string().into_bytes().into()),
    };
    house.rig.records.write(vec![standing.clone()]).await.unwrap();
    let fates = collector.collect("", "ana", now(2)).await.unwrap();
    assert_eq!(fates[0].stays, [Stays::Rollout { place: "prod/web".to_owned() }]);
    standing.value = None;
    house.rig.records.write(vec![standing]).await.unwrap();
    // A look removes nothing.
    let fates = collector.look("", now(2)).await.unwrap();
    assert_eq!(fates.iter().map(|it| it.goes()).collect::<Vec<_>>(), [true, false, false, false]);
    assert_eq!(house.names().await.len(), 4);
    let fates = collector.collect("", "ana", now(2)).await.unwrap();
    assert!(fates[0].goes() && fates[0].frees > 0);
    assert_eq!(fates[1].stays, [Stays::Current { environment: "prod".to_owned() }]);
    assert_eq!(fates[2].stays, [Stays::Same { release: again.release.name.clone() }]);
    assert_eq!(fates[3].stays, [Stays::Newest { place: 1 }]);
    assert_eq!(house.names().await, ["team/app:2.0", "team/app:3.0", "team/app:3.1"]);

    let registry = Pulled::new(&house, "team/app");
    assert_eq!(registry.tags().await, ["2.0", "3.0", "3.1", "prod"]);
    assert!(registry.pull(&old.release.digest().to_string()).await.is_err());
    assert!(registry.referrers(old.release.digest()).await.is_empty());
    assert_eq!(registry.tag(&old.release.digest().fallback_tag()).await, None);
    for entry in [&live, &new, &again] {
        registry.pull(&entry.release.name.version.to_string()).await.unwrap();
    }
    // The summary of the removed release went with it, and that of the release that stays is still there.
    assert_eq!(registry.referrers(live.release.digest()).await.len(), 6);
    // Of both names: one list of the closure, which is the same, and what was signed for each.
    assert_eq!(registry.referrers(new.release.digest()).await.len(), 9);
    let pins = house.pins.list("release", None, 10_000).await.unwrap();
    assert!(pins.iter().all(|it| it.name != old.pin));
    let own = |entry: &CatalogEntry| pins.iter().filter(|it| it.name == entry.pin).count();
    assert_eq!((own(&live), own(&new)), (live.content.len(), new.content.len()));
    let swept = house.rig.records.list("releases/holds/", None, false, 10_000).await.unwrap();
    assert!(swept.iter().all(|it| !it.key.contains("team/app:1.0")));
    assert!(pins.iter().filter(|it| it.digest.hex() == old.release.digest().hex()).count() == 0);
    // No other content may ever have the name of a removed release.
    let other = house.create("team/app:1.0", "two").await;
    assert!(matches!(other, Err(CatalogError::Taken { .. })), "{other:?}");
    house.create("team/app:1.0", "one").await.unwrap();
    assert_eq!(registry.tag("1.0").await.as_ref(), Some(old.release.digest()));
}
