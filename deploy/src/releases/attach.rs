//! Manifests about a manifest: how what was signed is found by whoever has the content.

use crate::json::JsonError;
use crate::oci::{Descriptor, MANIFEST_TYPE, Manifest};
use crate::provenance::{CLOSURE_INDEX_TYPE, CLOSURE_PART_TYPE, Part};
use crate::signing::{
    BUNDLE_TYPE, DSSE_TYPE, SIGNATURE_ANNOTATION, SIMPLE_SIGNING_TYPE, SimpleSigning,
};

/// Predicates of bills of materials.
pub const SPDX_PREDICATE: &str = "https://spdx.dev/Document";
pub const CYCLONEDX_PREDICATE: &str = "https://cyclonedx.org/bom";
/// The artifact that holds the list of a closure.
pub const CLOSURE_ARTIFACT_TYPE: &str = "application/vnd.kiln.closure.v1";
/// Annotations by which cosign knows what a bundle is before it reads it.
const CONTENT_ANNOTATION: &str = "dev.sigstore.bundle.content";
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";
/// The annotation that says the same in the older form.
const OLDER_PREDICATE_ANNOTATION: &str = "predicateType";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

fn about(subject: &Descriptor, artifact_type: &str, layers: Vec<Descriptor>) -> Manifest {
    let Descriptor { media_type, digest, size, .. } = subject;
    let mut manifest = Manifest::artifact(artifact_type, layers);
    manifest.subject = Some(Descriptor::new(media_type, digest.clone(), *size));
    manifest
}

/// The bytes of a manifest, with what names them.
fn written(manifest: &Manifest) -> Result<(Descriptor, Vec<u8>), JsonError> {
    let data = manifest.write()?;
    let mut descriptor = Descriptor::of(MANIFEST_TYPE, &data);
    descriptor.artifact_type.clone_from(&manifest.artifact_type);
    Ok((descriptor, data))
}

/// A referrer that holds a Sigstore bundle.
pub fn bundle_manifest(
    bundle: &[u8],
    predicate_type: &str,
    subject: &Descriptor,
) -> Result<(Descriptor, Vec<u8>), JsonError> {
    let mut manifest = about(subject, BUNDLE_TYPE, vec![Descriptor::of(BUNDLE_TYPE, bundle)]);
    let annotations =
        [(CONTENT_ANNOTATION, "dsse-envelope"), (PREDICATE_ANNOTATION, predicate_type)];
    manifest.annotations =
        annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
    written(&manifest)
}

/// A referrer that holds the list of the closure: its index first, then its parts. The parts' digests were made by the list's writer;
/// `None` if one of them is no digest.
pub fn closure_manifest(
    index: &[u8],
    parts: &[Part],
    subject: &Descriptor,
) -> Result<Option<(Descriptor, Vec<u8>)>, JsonError> {
    let mut layers = vec![Descriptor::of(CLOSURE_INDEX_TYPE, index)];
    for part in parts {
        let Ok(digest) = part.digest.parse() else { return Ok(None) };
        layers.push(Descriptor::new(CLOSURE_PART_TYPE, digest, part.size as u64));
    }
    written(&about(subject, CLOSURE_ARTIFACT_TYPE, layers)).map(Some)
}

/// cosign's older form of an image's signature: what is under the tag `sha256-….sig`. `config` is the configuration that
/// it names, to be kept beside it.
pub fn signature_tag_manifest(
    signed: &SimpleSigning,
    config: &[u8],
) -> Result<(Descriptor, Vec<u8>), JsonError> {
    let layer = Descriptor::of(SIMPLE_SIGNING_TYPE, &signed.payload)
        .with(SIGNATURE_ANNOTATION, &signed.signature);
    written(&Manifest::image(Descriptor::of(CONFIG_TYPE, config), vec![layer]))
}

/// cosign's older form of attestations: what is under the tag `sha256-….att`. Each envelope comes with its predicate type.
pub fn attestation_tag_manifest(
    envelopes: &[(Vec<u8>, String)],
    config: &[u8],
) -> Result<(Descriptor, Vec<u8>), JsonError> {
    let layer = |(envelope, predicate): &(Vec<u8>, String)| {
        Descriptor::of(DSSE_TYPE, envelope)
            .with(SIGNATURE_ANNOTATION, "")
            .with(OLDER_PREDICATE_ANNOTATION, predicate)
    };
    let layers = envelopes.iter().map(layer).collect();
    written(&Manifest::image(Descriptor::of(CONFIG_TYPE, config), layers))
}
