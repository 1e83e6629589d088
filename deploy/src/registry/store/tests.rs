use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::stream;
use kiln_cas::blob::SharedBlobStore;
use kiln_cas::pins::Pins;
use kiln_cas::records::{Expect, Record, Records, RecordsError, SharedRecords, Version, Write};
use kiln_cas::stores::{MemoryBlobStore, MemoryRecords};

use super::keys;
use super::{
    Body, ClaimError, Push, Registry, RegistryError, RegistryParts, ReleasedRepository, Shown,
};
use crate::oci::{
    ContentDigest, Descriptor, Document, INDEX_TYPE, Index, MANIFEST_TYPE, Manifest, Reference,
    Repository, Tag,
};
use crate::registry::ownership::Owned;
use crate::registry::uploads::UploadLimits;

/// Records that are gone after so many writes, as for a process that was killed.
struct Killed {
    inner: MemoryRecords,
    writes_left: AtomicU64,
}

#[async_trait]
impl Records for Killed {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.inner.get(key).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        let left = self.writes_left.load(Ordering::Relaxed);
        if left == 0 {
            return Err(RecordsError::Unavailable("killed".into()));
        }
        self.writes_left.store(left - 1, Ordering::Relaxed);
        self.inner.write(writes).await
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.inner.list(prefix, after, reverse, limit).await
    }
}

/// `team/owned` is a release's.
struct Release;

#[async_trait]
impl Owned for Release {
    async fn refusal(
        &self,
        repository: &Repository,
        _: Option<&Tag>,
    ) -> Result<Option<String>, RecordsError> {
        Ok((repository.as_str() == "team/owned").then(|| "release 7 owns it".to_owned()))
    }
}

struct House {
    registry: Registry,
    blobs: SharedBlobStore,
    records: Arc<Killed>,
    pins: Pins,
    now: Arc<AtomicU64>,
    repository: Repository,
}

impl House {
    fn new() -> Self {
        let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        let writes_left = AtomicU64::new(u64::MAX);
        let records = Arc::new(Killed { inner: MemoryRecords::default(), writes_left });
        let shared: SharedRecords = records.clone();
        let pins = Pins::new(blobs.clone(), shared.clone());
        let now = Arc::new(AtomicU64::new(1));
        let clock = now.clone();
        let registry = Registry::new(RegistryParts {
            blobs: blobs.clone(),
            records: shared,
            pins: pins.clone(),
            uploads: UploadLimits { count: 10, bytes: 1 << 30, age: Duration::from_secs(60) },
            max_blob_size: u64::MAX,
            owned: vec![Arc::new(Release)],
            now: Arc::new(move || clock.load(Ordering::Relaxed)),
        });
        let repository = "team/app".parse().unwrap();
        Self { registry, blobs, records, pins, now, repository }
    }

    fn writes(&self, left: u64) {
        self.records.writes_left.store(left, Ordering::Relaxed);
    }

    async fn blob(&self, data: &[u8]) -> Descriptor {
        let digest = ContentDigest::of(data);
        let (length, body) = (Some(data.len() as u64), body(data));
        let pushed =
            self.registry.push_blob(&self.blobs, &self.repository, &digest, length, body).await;
        pushed.unwrap();
        Descriptor::new("x/y", digest, data.len() as u64)
    }

    async fn image(&self, layer: &[u8]) -> (Descriptor, Vec<u8>) {
        let (config, layer) = (self.blob(b"{}").await, self.blob(layer).await);
        let data = Manifest::image(config, vec![layer]).write().unwrap();
        (Descriptor::of(MANIFEST_TYPE, &data), data)
    }

    async fn push(
        &self,
        reference: &str,
        media_type: &str,
        data: &[u8],
    ) -> Result<(), RegistryError> {
        let reference: Reference = reference.parse().unwrap();
        let push = Push {
            repository: &self.repository,
            reference: &reference,
            tags: &[],
            media_type,
            data: Bytes::copy_from_slice(data),
        };
        self.registry.push_manifest(&self.blobs, push).await.map(drop)
    }

    /// Pushes an image without a tag.
    async fn untagged(&self, layer: &[u8]) -> Descriptor {
        let (descriptor, data) = self.image(layer).await;
        self.push(&descriptor.digest.to_string(), MANIFEST_TYPE, &data).await.unwrap();
        descriptor
    }

    /// Pushes a signature without a tag.
    async fn signature(&self, subject: &Descriptor) -> Descriptor {
        self.blob(b"{}").await;
        let mut manifest = Manifest::artifact("a/sig", Vec::new());
        manifest.subject = Some(subject.clone());
        let data = manifest.write().unwrap();
        let descriptor = Descriptor::of(MANIFEST_TYPE, &data);
        self.push(&descriptor.digest.to_string(), MANIFEST_TYPE, &data).await.unwrap();
        descriptor
    }

    /// Whether exactly these manifests are pinned, each with its blobs.
    async fn pinned(&self, expected: &[&Descriptor]) {
        let pins = self.pins.list("registry", None, 1000).await.unwrap();
        let mut hashes: Vec<String> = pins.iter().map(|pin| pin.digest.hex()).collect();
        hashes.sort_unstable();
        let mut wanted = Vec::new();
        for descriptor in expected {
            let digest = Reference::Digest(descriptor.digest.clone());
            let found = self.registry.find_manifest(&self.repository, &digest).await.unwrap();
            let data = self.registry.read_manifest(&found).await.unwrap();
            let document = Document::read(&descriptor.media_type, &data).unwrap();
            wanted.push(descriptor.digest.hex().to_owned());
            if let Document::Manifest(_) = document {
                wanted.extend(document.names().map(|it| it.digest.hex().to_owned()));
            }
        }
        wanted.sort_unstable();
        assert_eq!(hashes, wanted);
    }

    async fn tidy(&self) {
        self.registry.tidy().await.unwrap();
        let left = self.records.list("registry/untidy/", None, false, 10).await.unwrap();
        assert!(left.is_empty(), "{left:?}");
    }
}

fn body(data: &[u8]) -> Body {
    Box::pin(stream::iter([Ok(Bytes::copy_from_slice(data))]))
}

#[tokio::test]
async fn a_tag_pins_what_it_needs_and_lets_go_when_it_moves() {
    let house = House::new();
    let loose = house.untagged(b"loose").await;
    house.pinned(&[]).await;
    let one = house.untagged(b"one").await;
    let list = Index::new(vec![one.clone()]).write().unwrap();
    let index = Descriptor::of(INDEX_TYPE, &list);
    house.push("v1", INDEX_TYPE, &list).await.unwrap();
    house.pinned(&[&one, &index]).await;
    // What is said of it stays as well, said before or after.
    let signature = house.signature(&one).await;
    house.pinned(&[&one, &index, &signature]).await;
    house.tidy().await;
    house.pinned(&[&one, &index, &signature]).await;
    let (other, data) = house.image(b"other").await;
    let early = house.signature(&other).await;
    house.pinned(&[&one, &index, &signature]).await;
    house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
    house.tidy().await;
    house.pinned(&[&other, &early]).await;
    house.registry.delete_tag(&house.repository, &"v1".parse().unwrap()).await.unwrap();
    house.tidy().await;
    house.pinned(&[]).await;
    drop(loose);
}

#[tokio::test]
async fn a_deleted_manifest_takes_its_tags_and_pins_along() {
    let house = House::new();
    let (image, data) = house.image(b"layer").await;
    house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
    house.push("v2", MANIFEST_TYPE, &data).await.unwrap();
    house.registry.delete_manifest(&house.repository, &image.digest).await.unwrap();
    house.pinned(&[]).await;
    let tags = house.registry.tags(&house.repository, None, 10).await.unwrap();
    assert!(tags.items.is_empty());
}

/// Wherever a push is killed: a tag names something whole or nothing, and what is pinned for nothing is let go of.
#[tokio::test]
async fn a_push_that_is_killed_anywhere_leaves_nothing_half() {
    let mut ended = false;
    for writes in 0..20 {
        let house = House::new();
        let (image, data) = house.image(b"layer").await;
        house.writes(writes);
        let pushed = house.push("v1", MANIFEST_TYPE, &data).await.is_ok();
        house.writes(u64::MAX);
        let tag: Reference = "v1".parse().unwrap();
        let found = house.registry.find_manifest(&house.repository, &tag).await;
        assert!(found.is_ok() || !pushed);
        // Long after.
        house.now.fetch_add(3_600_000, Ordering::Relaxed);
        house.tidy().await;
        let expected: &[&Descriptor] = if found.is_ok() { &[&image] } else { &[] };
        house.pinned(expected).await;
        let intents = house.records.list("registry/pinning/", None, false, 10).await.unwrap();
        assert!(intents.is_empty());
        ended |= pushed;
    }
    assert!(ended, "the push never comes to its end");
}

/// A tidying is killed after each of its writes, and the next one does what is left.
#[tokio::test]
async fn a_tidying_that_is_killed_anywhere_is_done_by_the_next() {
    for writes in 0..20 {
        let house = House::new();
        let (_, data) = house.image(b"layer").await;
        house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
        let (image, data) = house.image(b"other").await;
        house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
        house.writes(writes);
        let _ = house.registry.tidy().await;
        house.writes(u64::MAX);
        house.now.fetch_add(3_600_000, Ordering::Relaxed);
        house.tidy().await;
        house.pinned(&[&image]).await;
    }
}

#[tokio::test]
async fn what_cannot_be_read_holds_up_no_other_upload_and_hides_no_other_referrer() {
    let house = House::new();
    let damage = async |key: String| {
        let value = Some("nothing that a registry writes".into());
        house.records.write(vec![Write { key, expect: Expect::Anything, value }]).await.unwrap();
    };
    damage(keys::upload(&house.repository, "0")).await;
    let begin = async || house.registry.begin_upload(&house.repository).await;
    let id = begin().await.unwrap();
    let (registry, blobs) = (&house.registry, &house.blobs);
    registry.add_part(blobs, &house.repository, &id, None, body(b"part")).await.unwrap();
    for _ in 0..8 {
        begin().await.unwrap();
    }
    assert!(matches!(begin().await, Err(RegistryError::TooManyUploads)), "it takes up room");

    let subject = house.untagged(b"layer").await;
    let signature = house.signature(&subject).await;
    let odd = ContentDigest::of(b"odd");
    damage(keys::referrer(&house.repository, &subject.digest, &odd)).await;
    let found = registry.referrers(&house.repository, &subject.digest, None, None).await.unwrap();
    let digests: Vec<_> = found.items.manifests.iter().map(|it| &it.digest).collect();
    assert_eq!((digests, found.next), (vec![&signature.digest], None));
}

#[tokio::test]
async fn what_a_release_owns_is_not_pushed_to() {
    let mut house = House::new();
    house.repository = "team/owned".parse().unwrap();
    let pushed = house.push("v1", MANIFEST_TYPE, b"{}").await;
    assert!(matches!(pushed, Err(RegistryError::Owned(_))), "{pushed:?}");
}

/// A repository with releases shows nothing else, because an image that was pushed before could be taken for
/// a release.
#[tokio::test]
async fn a_repository_is_pushed_to_or_has_releases() {
    let house = House::new();
    let (image, data) = house.image(b"layer").await;
    let records: SharedRecords = house.records.clone();
    let released = |name: &str| ReleasedRepository::new(records.clone(), name.parse().unwrap());
    let shown = Shown::of(&image, &Document::read(MANIFEST_TYPE, &data).unwrap()).unwrap();
    house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
    let taken = released("team/app").claim("a").await;
    assert!(matches!(taken, Err(ClaimError::Pushed(_))), "{taken:?}");

    let mut house = house;
    house.repository = "team/other".parse().unwrap();
    let other = released("team/other");
    // A claim that is not carried out changes nothing. Of a claim and a push, the one that comes first
    // counts.
    let claim = other.claim("a").await.unwrap();
    house.image(b"layer").await;
    house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
    assert!(records.write(claim).await.is_err(), "somebody had pushed meanwhile");

    house.repository = "team/new".parse().unwrap();
    let new = released("team/new");
    let shown = std::slice::from_ref(&shown);
    new.link(shown).await.unwrap();
    let mut writes = new.claim("a").await.unwrap();
    writes.extend(new.show(shown).unwrap());
    writes.push(new.tag(&"v1".parse().unwrap(), &image.digest));
    records.write(writes).await.unwrap();
    let tag: Reference = "v1".parse().unwrap();
    let found = house.registry.find_manifest(&house.repository, &tag).await.unwrap();
    assert_eq!(house.registry.read_manifest(&found).await.unwrap(), data);
    for name in Document::read(MANIFEST_TYPE, &data).unwrap().names() {
        let size = house.registry.blob_size(&house.repository, &name.digest).await.unwrap();
        assert_eq!(size, name.size);
    }
    let pushed = house.push("v2", MANIFEST_TYPE, &data).await;
    assert!(matches!(pushed, Err(RegistryError::Owned(_))), "{pushed:?}");
    let deleted = house.registry.delete_manifest(&house.repository, &image.digest).await;
    assert!(matches!(deleted, Err(RegistryError::Owned(_))), "{deleted:?}");
    assert!(matches!(new.claim("b").await, Err(ClaimError::Another(_))));
    // The manifests are hidden at once, unless another change came meanwhile.
    let manifests = std::slice::from_ref(&image.digest);
    let before = new.changes().await.unwrap();
    records.write(new.claim("a").await.unwrap()).await.unwrap();
    let late = new.hide(manifests, before).await.unwrap();
    assert!(records.write(late).await.is_err());
    assert!(house.registry.find_manifest(&house.repository, &tag).await.is_ok());
    assert_eq!(new.reach(manifests).await.unwrap(), manifests);
    let changes = new.changes().await.unwrap();
    records.write(new.hide(manifests, changes).await.unwrap()).await.unwrap();
    assert!(house.registry.find_manifest(&house.repository, &tag).await.is_err());
}

/// A layer that was somewhere else comes, and the manifest is pushed again: it is kept as the others are.
#[tokio::test]
async fn a_layer_that_comes_later_is_pinned() {
    let house = House::new();
    let config = house.blob(b"{}").await;
    let mut layer = Descriptor::of("application/vnd.oci.image.layer.v1.tar", b"far away");
    layer.urls = vec!["https://files.example/layer".to_owned()];
    let data = Manifest::image(config, vec![layer.clone()]).write().unwrap();
    let image = Descriptor::of(MANIFEST_TYPE, &data);
    house.push("v1", MANIFEST_TYPE, &data).await.unwrap();
    let pins = async || {
        let pins = house.pins.list("registry", None, 100).await.unwrap();
        let mut pins: Vec<_> = pins.iter().map(|it| it.digest.hex()).collect();
        pins.sort();
        pins
    };
    assert_eq!(pins().await.len(), 2, "the manifest and its configuration");
    house.blob(b"far away").await;
    house.push(&image.digest.to_string(), MANIFEST_TYPE, &data).await.unwrap();
    house.pinned(&[&image]).await;
    assert!(pins().await.contains(&layer.digest.hex().to_owned()));
    house.tidy().await;
    house.pinned(&[&image]).await;
}
