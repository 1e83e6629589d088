//! An export of another server becomes a release of this one: its content is in the store already, put there like any
//! other. Nothing of it is believed that is not verified with keys that whoever brings it trusts.

use std::collections::BTreeMap;
use std::io::{self, Read};

use kiln_cas::pins::Pin;
use serde_json::Value;

use super::blocking::{Blocking, stored};
use super::entry::{CatalogEntry, Counts};
use super::error::CatalogError;
use super::held;
use super::making::signed_by;
use super::older::Older;
use super::prepare::MAX_BLOBS;
use super::{Catalog, blocking};
use crate::oci::{
    ContentDigest, Descriptor, Document, DocumentKind, INDEX_TYPE, Index, LAYOUT_FILE, Layout,
};
use crate::provenance::{Level, SLSA_PREDICATE};
use crate::releases::{Expected, LAYOUT, RELEASE_ANNOTATION, Release, verify};
use crate::signing::{Attestation, BUNDLE_TYPE, KeyRing, MAX_BUNDLE_BYTES, PublicKey};
use crate::timestamp::Timestamp;

/// How deep indexes may be within indexes.
const MAX_DEPTH: usize = 8;
const MAX_MANIFEST: u64 = 4 << 20;
/// Signed bundles of one release.
const MAX_BUNDLES: usize = 64;
const MAX_BUNDLES_BYTES: usize = 32 << 20;

/// An export, as it is in the store.
struct StoredLayout<'a> {
    store: &'a Blocking,
    index: &'a [u8],
    sizes: BTreeMap<ContentDigest, u64>,
}

impl Catalog {
    /// `index`: the export's `index.json`. `keys`: one of them must have signed everything that is signed.
    pub async fn import(
        &self,
        instance: &str,
        index: Vec<u8>,
        keys: KeyRing,
        who: &str,
    ) -> Result<CatalogEntry, CatalogError> {
        let store = Blocking::new(self.parts.blobs.clone());
        let (now, instance, made_by) = (self.now(), instance.to_owned(), who.to_owned());
        let read = move || {
            let (imported, holds) = imported(&store, &index, &keys, now)?;
            Ok((imported.entry(instance, made_by), holds))
        };
        let (mut entry, holds) = blocking(read).await?;
        self.check_name(&entry.instance, &entry.release.name).await?;
        if let Some(existing) = self.same(&entry).await? {
            return signed_by(existing, &entry.public_key);
        }
        if self.add(&mut entry, &holds, "release.import", who).await? {
            return Ok(entry);
        }
        self.unpin(&entry).await?;
        let existing = self.same(&entry).await?.ok_or(CatalogError::Stopped)?;
        signed_by(existing, &entry.public_key)
    }

    async fn same(&self, entry: &CatalogEntry) -> Result<Option<CatalogEntry>, CatalogError> {
        let release = &entry.release;
        let built = (entry.source.as_deref(), entry.branch.as_deref());
        self.same_or_none(&entry.instance, &release.name, &release.subject, built).await
    }
}

struct Imported {
    release: Release,
    source: Option<String>,
    branch: Option<String>,
    level: Level,
    closure: Counts,
    public_key: String,
    content: Vec<(ContentDigest, u64)>,
    tags: Vec<(String, Descriptor)>,
}

impl Imported {
    fn entry(self, instance: String, made_by: String) -> CatalogEntry {
        let Self { release, source, branch, level, closure, public_key, content, tags } = self;
        let pin = Pin::fresh_name();
        CatalogEntry {
            release,
            instance,
            source,
            branch,
            level,
            closure,
            public_key,
            made_by,
            pin,
            content,
            tags,
            rejected: None,
        }
    }
}

fn imported(
    store: &Blocking,
    index: &[u8],
    keys: &KeyRing,
    now: Timestamp,
) -> Result<(Imported, Vec<String>), CatalogError> {
    let refused = |why: String| CatalogError::Import(why);
    let read = match Document::read(INDEX_TYPE, index) {
        Ok(Document::Index(index)) => *index,
        Ok(Document::Manifest(_)) => return Err(refused("its index is a manifest".to_owned())),
        Err(error) => return Err(refused(error.to_string())),
    };
    let (sizes, layers) = reached(store, &read)?;
    let layout = StoredLayout { store, index, sizes };
    verify(&layout, keys, &Expected::default(), now)
        .map_err(|it| CatalogError::NotVerified(Box::new(it.broken)))?;
    let is_subject = |it: &&Descriptor| it.annotations.contains_key(RELEASE_ANNOTATION);
    let unnamed = || refused("it names no release".to_owned());
    let subject = read.manifests.iter().find(is_subject).ok_or_else(unnamed)?;
    let name = subject.annotations.get(RELEASE_ANNOTATION).and_then(|it| it.parse().ok());
    let rest = read.manifests.iter().filter(|it| it.digest != subject.digest);
    let attestations: Vec<_> = rest.map(plain).collect();
    let signed = signed(store, &attestations, keys)?;
    let key = signer(&signed)?;
    let of = |kind: &str| signed.iter().find(|it| it.predicate_type == kind);
    let said = of(SLSA_PREDICATE).map(|it| it.predicate.clone()).unwrap_or_default();
    let mut older = Older::default();
    let bundles: Vec<_> = signed.into_iter().map(|it| (it.bundle, it.predicate_type)).collect();
    older.add_attestations(store, &plain(subject), &bundles)?;
    let text = |at: &str| said.pointer(at).and_then(Value::as_str).map(str::to_owned);
    let count = |at: &str| {
        let number = said.pointer(&format!("/buildDefinition/internalParameters/{at}"));
        number.and_then(Value::as_u64).and_then(|it| usize::try_from(it).ok()).unwrap_or(0)
    };
    let level = said.pointer("/buildDefinition/internalParameters/slsa").cloned();
    let unsaid = || refused("its provenance does not say which level it reaches".to_owned());
    let level = level.and_then(|it| serde_json::from_value(it).ok()).ok_or_else(unsaid)?;
    let holds = held::files(store, layers.iter()).into_iter().collect();
    let mut content = layout.sizes;
    content.extend(older.content);
    let imported = Imported {
        release: Release {
            name: name.ok_or_else(unnamed)?,
            subject: plain(subject),
            attestations,
            invocation: text("/runDetails/metadata/invocationId").unwrap_or_default(),
            target: text("/buildDefinition/externalParameters/target").unwrap_or_default(),
            created: now,
        },
        source: text("/buildDefinition/externalParameters/source"),
        branch: text("/buildDefinition/externalParameters/branch"),
        level,
        closure: Counts {
            actions: count("closure/actions"),
            written: count("notBuiltHere/writtenResults"),
            sources: count("notBuiltHere/uploadedSources"),
            missing: count("notBuiltHere/missingInputs"),
        },
        public_key: key.to_pem().map_err(|it| refused(it.to_string()))?,
        content: content.into_iter().collect(),
        tags: older.tags,
    };
    Ok((imported, holds))
}

/// The descriptor without what the index of the export says of it.
fn plain(it: &Descriptor) -> Descriptor {
    let mut plain = Descriptor::new(&it.media_type, it.digest.clone(), it.size);
    plain.artifact_type.clone_from(&it.artifact_type);
    plain
}

/// What an index leads to: the sizes of everything, and layers.
type Reached = (BTreeMap<ContentDigest, u64>, Vec<Descriptor>);

/// Everything that an index leads to.
fn reached(store: &Blocking, index: &Index) -> Result<Reached, CatalogError> {
    let (mut sizes, mut layers) = (BTreeMap::new(), Vec::new());
    let mut open: Vec<_> = index.manifests.iter().map(|it| (it.clone(), 0)).collect();
    while let Some((it, depth)) = open.pop() {
        if it.is_foreign() || sizes.insert(it.digest.clone(), it.size).is_some() {
            continue;
        }
        if sizes.len() > MAX_BLOBS || depth > MAX_DEPTH {
            return Err(CatalogError::TooMany(MAX_BLOBS));
        }
        if DocumentKind::of(&it.media_type).is_none() {
            layers.push(it);
            continue;
        }
        let digest = stored(&it).ok_or_else(|| CatalogError::Sha512(it.digest.clone()))?;
        let data = store.read(&digest, MAX_MANIFEST).map_err(CatalogError::Evicted)?;
        let document = Document::read(&it.media_type, &data)
            .map_err(|error| CatalogError::Import(format!("{}: {error}", it.digest)))?;
        open.extend(document.names().map(|it| (it.clone(), depth + 1)));
    }
    Ok((sizes, layers))
}

/// The one key that signed all of it: a release has one.
fn signer(signed: &[SignedBundle]) -> Result<PublicKey, CatalogError> {
    let refused = |why: &str| CatalogError::Import(why.to_owned());
    let first = signed.first().ok_or_else(|| refused("nothing about it is signed"))?;
    match signed.iter().all(|it| it.key == first.key) {
        true => Ok(first.key.clone()),
        false => Err(refused("what is signed about it is signed with several keys")),
    }
}

/// What a bundle says that one of the keys signed.
struct SignedBundle {
    key: PublicKey,
    bundle: Vec<u8>,
    predicate_type: String,
    predicate: Value,
}

fn signed(
    store: &Blocking,
    attestations: &[Descriptor],
    keys: &KeyRing,
) -> Result<Vec<SignedBundle>, CatalogError> {
    let (mut signed, mut bytes) = (Vec::new(), 0);
    for attestation in attestations {
        let Some(digest) = stored(attestation) else { continue };
        let data = store.read(&digest, MAX_MANIFEST).map_err(CatalogError::Evicted)?;
        let Ok(Document::Manifest(manifest)) = Document::read(&attestation.media_type, &data)
        else {
            continue;
        };
        if manifest.artifact_type.as_deref() != Some(BUNDLE_TYPE) {
            continue;
        }
        for digest in manifest.layers.iter().filter_map(stored) {
            let bundle =
                store.read(&digest, MAX_BUNDLE_BYTES as u64).map_err(CatalogError::Evicted)?;
            let Ok(it) = Attestation::from_bundle(&bundle, keys) else { continue };
            bytes += bundle.len();
            signed.push(SignedBundle {
                key: it.key.key.clone(),
                bundle: bundle.into(),
                predicate_type: it.statement.predicate_type,
                predicate: Value::Object(it.statement.predicate),
            });
            if signed.len() > MAX_BUNDLES || bytes > MAX_BUNDLES_BYTES {
                let why = format!("more than {MAX_BUNDLES} bundles, or too large ones");
                return Err(CatalogError::Import(why));
            }
        }
    }
    Ok(signed)
}

impl Layout for StoredLayout<'_> {
    fn file(&self, name: &str, limit: usize) -> io::Result<Vec<u8>> {
        match name {
            LAYOUT_FILE => Ok(LAYOUT.to_vec()),
            _ if self.index.len() <= limit => Ok(self.index.to_vec()),
            _ => Err(io::Error::new(io::ErrorKind::InvalidData, "it is too large")),
        }
    }

    fn blob(&self, digest: &ContentDigest) -> io::Result<Box<dyn Read>> {
        let size = self.sizes.get(digest).ok_or(io::ErrorKind::NotFound)?;
        let stored = super::sized(digest, *size).ok_or(io::ErrorKind::NotFound)?;
        Ok(Box::new(self.store.open(&stored).map_err(io::Error::other)?))
    }
}
