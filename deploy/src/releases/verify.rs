//! Verification of an exported release, step by step. Nothing but the directory and the keys is read.

use std::collections::BTreeMap;

use kiln_net::counts::counted;
use serde_json::Value;

use super::attach::CLOSURE_ARTIFACT_TYPE;
use super::compressed::Compression;
use super::export::RELEASE_ANNOTATION;
use super::release::ReleaseName;
use super::verify_error::VerifyError;
use crate::oci::{
    CheckedLayout, ContentDigest, Descriptor, Document, LayerLimits, LayerProblem, Layout,
    LayoutLimits, Manifest, check_layer, check_layout, read_blob,
};
use crate::provenance::{
    CLOSURE_INDEX_TYPE, Closure, ClosureIndex, Part, SLSA_PREDICATE, read_index, read_part,
};
use crate::signing::{
    Attestation, AttestationError, BUNDLE_TYPE, Evidence, KeyRing, MAX_BUNDLE_BYTES,
};
use crate::timestamp::Timestamp;

/// Bytes of the closure's index.
const MAX_LIST_INDEX: usize = 4 << 20;
/// Bytes of a part.
const MAX_LIST_PART: usize = 32 << 20;

/// What whoever verifies demands, beside what must always hold.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Expected {
    pub name: Option<ReleaseName>,
    /// URI of the builder.
    pub builder: Option<String>,
    /// `git+https://…`, with or without `@COMMIT`.
    pub source: Option<String>,
    pub branch: Option<String>,
    /// The lowest SLSA build level.
    pub level: Option<u64>,
}

/// Something that was checked and holds, in words.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Checked {
    pub what: &'static str,
    pub detail: String,
}

/// What held, and the first thing that did not.
#[derive(Debug)]
pub struct Failure {
    pub checked: Vec<Checked>,
    pub broken: VerifyError,
}

/// Verifies an export. `now` is the time at which a signature that is yet to be made shows.
pub fn verify(
    layout: &dyn Layout,
    keys: &KeyRing,
    expected: &Expected,
    now: Timestamp,
) -> Result<Vec<Checked>, Failure> {
    let mut verify = Verify { layout, keys, expected, now, checked: Vec::new() };
    match verify.run() {
        Ok(()) => Ok(verify.checked),
        Err(broken) => Err(Failure { checked: verify.checked, broken }),
    }
}

struct Verify<'a> {
    layout: &'a dyn Layout,
    keys: &'a KeyRing,
    expected: &'a Expected,
    now: Timestamp,
    checked: Vec<Checked>,
}

/// A bundle whose signature was verified.
struct Signed<'a> {
    at: ContentDigest,
    attestation: Attestation<'a>,
}

impl<'a> Verify<'a> {
    fn run(&mut self) -> Result<(), VerifyError> {
        let content = check_layout(self.layout, LayoutLimits::default())?;
        self.note(
            "content",
            format!(
                "{} manifests and {} blobs, {} bytes, are what their digests say",
                content.documents.len(),
                content.blobs.len(),
                content.bytes,
            ),
        );
        let subject = self.release(&content)?;
        self.layers(&content)?;
        let signed = self.signatures(&content, &subject)?;
        let provenance = self.provenance(&signed)?;
        self.signed_name(&signed, &subject)?;
        self.key_times(&signed, &provenance)?;
        self.demands(&provenance)?;
        self.closure(&content, &provenance)
    }

    fn note(&mut self, what: &'static str, detail: String) {
        self.checked.push(Checked { what, detail });
    }

    /// The one manifest that the index calls a release.
    fn release(&mut self, content: &CheckedLayout) -> Result<Descriptor, VerifyError> {
        let named = content
            .index
            .manifests
            .iter()
            .filter_map(|it| it.annotations.get(RELEASE_ANNOTATION).map(|name| (it, name)));
        let named: Vec<_> = named.collect();
        let [(subject, name)] = named.as_slice() else {
            return Err(VerifyError::Releases(named.len()));
        };
        let found: ReleaseName = name.parse()?;
        if let Some(expected) = self.expected.name.as_ref().filter(|it| **it != found) {
            return Err(VerifyError::OtherRelease { expected: expected.clone(), found });
        }
        self.note("release", format!("{found} is {}", subject.digest));
        Ok((*subject).clone())
    }

    fn layers(&mut self, content: &CheckedLayout) -> Result<(), VerifyError> {
        let manifests = content.documents.values().filter_map(|it| match it {
            Document::Manifest(manifest) => Some(manifest),
            Document::Index(_) => None,
        });
        let layers: BTreeMap<_, _> = manifests
            .flat_map(|it| &it.layers)
            .filter(|it| !it.is_foreign())
            .filter_map(|it| Some((&it.digest, Compression::of(&it.media_type)?)))
            .collect();
        let mut entries = 0;
        for (digest, compression) in &layers {
            entries += self
                .layer(digest, *compression)
                .map_err(|source| VerifyError::Layer { layer: (*digest).clone(), source })?;
        }
        if !layers.is_empty() {
            self.note(
                "layers",
                format!(
                    "{} with {entries} files, links and directories can be unpacked",
                    counted(layers.len(), "layer")
                ),
            );
        }
        Ok(())
    }

    fn layer(&self, digest: &ContentDigest, compression: Compression) -> Result<u64, LayerProblem> {
        let reader = compression.reader(self.layout.blob(digest)?)?;
        check_layer(reader, LayerLimits::default())
    }

    /// Verifies all bundles: an export has none that is not by a trusted key and about the release.
    fn signatures(
        &mut self,
        content: &CheckedLayout,
        subject: &Descriptor,
    ) -> Result<Vec<Signed<'a>>, VerifyError> {
        let mut signed = Vec::new();
        for (digest, manifest) in artifacts(content, BUNDLE_TYPE) {
            if manifest.subject.as_ref().is_none_or(|it| it.digest != subject.digest) {
                return Err(VerifyError::Stranger(digest.clone()));
            }
            for layer in &manifest.layers {
                let bundle = read_blob(self.layout, layer, MAX_BUNDLE_BYTES)?;
                signed.push(self.bundle(digest, &bundle, subject)?);
            }
        }
        Ok(signed)
    }

    fn bundle(
        &self,
        at: &ContentDigest,
        bundle: &[u8],
        subject: &Descriptor,
    ) -> Result<Signed<'a>, VerifyError> {
        let refused =
            |source| VerifyError::Attestation { attestation: at.clone(), source: Box::new(source) };
        let attestation = Attestation::from_bundle(bundle, self.keys).map_err(refused)?;
        if !attestation.statement.is_current() {
            return Err(VerifyError::OlderStatement(at.clone()));
        }
        if !attestation.statement.is_about(&subject.digest.set()) {
            return Err(refused(AttestationError::Subject));
        }
        Ok(Signed { at: at.clone(), attestation })
    }

    fn provenance(&self, signed: &[Signed<'a>]) -> Result<Value, VerifyError> {
        let statements = signed.iter().map(|it| &it.attestation.statement);
        let found: Vec<_> = statements.filter(|it| it.predicate_type == SLSA_PREDICATE).collect();
        match found.as_slice() {
            [only] => Ok(Value::Object(only.predicate.clone())),
            [] => Err(VerifyError::NoProvenance),
            several => Err(VerifyError::Provenances(several.len())),
        }
    }

    /// The index is not signed: the name that it gives must be that of which the provenance speaks.
    fn signed_name(&self, signed: &[Signed<'a>], subject: &Descriptor) -> Result<(), VerifyError> {
        let name = subject.annotations.get(RELEASE_ANNOTATION).map(String::as_str);
        let found: ReleaseName = name.unwrap_or_default().parse()?;
        let content = subject.digest.set();
        let statements = signed.iter().map(|it| &it.attestation.statement);
        let mut named = statements
            .filter(|it| it.predicate_type == SLSA_PREDICATE)
            .flat_map(|it| &it.subject)
            .filter(|it| it.names(&content));
        let text = found.to_string();
        match named.find(|it| it.name != text) {
            Some(other) => Err(VerifyError::SignedName { found, signed: other.name.clone() }),
            None => Ok(()),
        }
    }

    /// A bundle says nothing of its time; all of a release are signed together, and the provenance says when.
    fn key_times(&mut self, signed: &[Signed<'a>], provenance: &Value) -> Result<(), VerifyError> {
        let time = text(provenance, "/buildDefinition/internalParameters/signedOn");
        let time = time.and_then(|it| it.parse().ok());
        let evidence = time.map_or(Evidence::None, Evidence::Claimed);
        for one in signed {
            let key = one.attestation.key;
            key.accepts(evidence, self.now)
                .map_err(|source| VerifyError::Key { attestation: one.at.clone(), source })?;
            let predicate = &one.attestation.statement.predicate_type;
            self.checked.push(Checked {
                what: "signature",
                detail: format!("{predicate} is signed by {} ({})", key.name, key.key.id()),
            });
        }
        Ok(())
    }

    fn demands(&mut self, provenance: &Value) -> Result<(), VerifyError> {
        let builder = text(provenance, "/runDetails/builder/id")
            .ok_or(VerifyError::Unsaid("who built it"))?;
        let source =
            text(provenance, "/buildDefinition/externalParameters/source").unwrap_or_default();
        let branch =
            text(provenance, "/buildDefinition/externalParameters/branch").unwrap_or_default();
        let level = provenance
            .pointer("/buildDefinition/internalParameters/slsa/buildLevel")
            .and_then(Value::as_u64)
            .ok_or(VerifyError::Unsaid("which SLSA level it reaches"))?;
        demand("builder", self.expected.builder.as_deref(), builder, |it| it == builder)?;
        let commit_of =
            |it: &str| source.strip_prefix(it).is_some_and(|rest| rest.starts_with('@'));
        demand("source", self.expected.source.as_deref(), source, |it| {
            it == source || commit_of(it)
        })?;
        demand("branch", self.expected.branch.as_deref(), branch, |it| it == branch)?;
        let least = self.expected.level.map(|it| it.to_string());
        let reached = self.expected.level.is_none_or(|it| level >= it);
        demand("SLSA build level", least.as_deref(), &level.to_string(), |_| reached)?;
        let source = if source.is_empty() { "a source that nobody named" } else { source };
        self.note(
            "provenance",
            format!("built by {builder} from {source}, SLSA build level {level}"),
        );
        Ok(())
    }

    fn closure(&mut self, content: &CheckedLayout, provenance: &Value) -> Result<(), VerifyError> {
        let named = closure_digest(provenance).ok_or(VerifyError::Unsaid("what its closure is"))?;
        let lists = artifacts(content, CLOSURE_ARTIFACT_TYPE);
        let list = lists.into_iter().find_map(|(_, manifest)| {
            let layer = manifest.layers.iter().find(|it| it.media_type == CLOSURE_INDEX_TYPE)?;
            (layer.digest.set().get("sha256") == Some(&named)).then_some((layer, manifest))
        });
        let (layer, manifest) = list.ok_or_else(|| VerifyError::NoClosure(named.clone()))?;
        let index = read_index(&read_blob(self.layout, layer, MAX_LIST_INDEX)?)?;
        let mut found = Closure::default();
        for part in &index.parts {
            self.part(manifest, part, &mut found)?;
        }
        index.check_counts(&found)?;
        check_counts(provenance, &index)?;
        self.note(
            "closure",
            format!(
                "{}, {} of them written by clients, and {} are listed as the provenance says",
                counted(index.actions, "action"),
                index.written,
                counted(index.sources, "source"),
            ),
        );
        Ok(())
    }

    fn part(
        &self,
        manifest: &Manifest,
        part: &Part,
        found: &mut Closure,
    ) -> Result<(), VerifyError> {
        let layer = manifest.layers.iter().find(|it| it.digest.to_string() == part.digest);
        let missing = || VerifyError::NoClosure(part.digest.replace("sha256:", ""));
        let data = read_blob(self.layout, layer.ok_or_else(missing)?, MAX_LIST_PART)?;
        Ok(read_part(&data, part, &mut |entry| found.count(&entry))?)
    }
}

/// Manifests of one kind of artifact.
fn artifacts<'c>(content: &'c CheckedLayout, kind: &str) -> Vec<(&'c ContentDigest, &'c Manifest)> {
    let manifests = content.documents.iter().filter_map(|(digest, it)| match it {
        Document::Manifest(manifest) => Some((digest, manifest.as_ref())),
        Document::Index(_) => None,
    });
    manifests.filter(|(_, it)| it.artifact_type.as_deref() == Some(kind)).collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> Option<&'v str> {
    value.pointer(pointer).and_then(Value::as_str)
}

fn demand(
    what: &'static str,
    expected: Option<&str>,
    found: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<(), VerifyError> {
    match expected.filter(|it| !fits(it)) {
        Some(expected) => {
            let (expected, found) = (expected.to_owned(), found.to_owned());
            Err(VerifyError::Unexpected { what, expected, found })
        }
        None => Ok(()),
    }
}

/// The hash of the closure's list among the dependencies.
fn closure_digest(provenance: &Value) -> Option<String> {
    let dependencies = provenance.pointer("/buildDefinition/resolvedDependencies")?.as_array()?;
    let list = dependencies.iter().find(|it| text(it, "/mediaType") == Some(CLOSURE_INDEX_TYPE))?;
    text(list, "/digest/sha256").map(str::to_owned)
}

fn check_counts(provenance: &Value, index: &ClosureIndex) -> Result<(), VerifyError> {
    let counts = [
        ("actions", "closure/actions", index.actions),
        ("written results", "notBuiltHere/writtenResults", index.written),
        ("sources", "notBuiltHere/uploadedSources", index.sources),
    ];
    for (what, at, found) in counts {
        let pointer = format!("/buildDefinition/internalParameters/{at}");
        let says = provenance.pointer(&pointer).and_then(Value::as_u64);
        let says = says.ok_or(VerifyError::Unsaid("how much it was made of"))?;
        if says != found as u64 {
            return Err(VerifyError::Counts { what, says, found });
        }
    }
    Ok(())
}
