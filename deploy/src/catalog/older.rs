//! cosign's older form of what was signed, under tags that are made of the release's digest: `sha256-….sig` and
//! `sha256-….att`. Clients look there that know no referrers.

use std::collections::BTreeMap;

use kiln_cas::StoreError;
use serde_json::json;

use super::blocking::Blocking;
use super::error::CatalogError;
use crate::json;
use crate::oci::{ContentDigest, Descriptor};
use crate::releases::{attestation_tag_manifest, signature_tag_manifest};
use crate::signing::{Bundle, DSSE_TYPE, SIMPLE_SIGNING_TYPE, Signer, SimpleSigning};

const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// What was put into the store of it, and the manifests by their tags.
#[derive(Debug, Default)]
pub struct Older {
    pub tags: Vec<(String, Descriptor)>,
    pub content: Vec<(ContentDigest, u64)>,
}

/// What a signature in this form says the image is called: the server's name and the repository.
pub fn reference(builder: &str, repository: &str) -> String {
    let host = builder.split_once("://").map_or(builder, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    format!("{host}/{repository}")
}

impl Older {
    /// Signs the image in cosign's older form, and adds the signature.
    pub fn add_signature(
        &mut self,
        store: &Blocking,
        (reference, subject): (&str, &Descriptor),
        signer: &dyn Signer,
    ) -> Result<(), CatalogError> {
        let image = subject.digest.to_string();
        let signed = SimpleSigning::sign(reference, &image, &BTreeMap::new(), signer)?;
        let layer = self.put(store, SIMPLE_SIGNING_TYPE, signed.payload.clone())?;
        let config = config(&[layer])?;
        let (descriptor, manifest) = signature_tag_manifest(&signed, &config)?;
        self.put(store, CONFIG_TYPE, config)?;
        self.add(store, (subject, "sig"), descriptor, manifest)
    }

    /// The envelopes of bundles, each with its predicate type. Nothing where there are none.
    pub fn add_attestations(
        &mut self,
        store: &Blocking,
        subject: &Descriptor,
        bundles: &[(Vec<u8>, String)],
    ) -> Result<(), CatalogError> {
        let (mut envelopes, mut layers) = (Vec::new(), Vec::new());
        for (bundle, predicate) in bundles {
            let bundle = Bundle::read(bundle)?;
            let envelope = bundle.envelope()?.write()?;
            layers.push(self.put(store, DSSE_TYPE, envelope.clone())?);
            envelopes.push((envelope, predicate.clone()));
        }
        if envelopes.is_empty() {
            return Ok(());
        }
        let config = config(&layers)?;
        let (descriptor, manifest) = attestation_tag_manifest(&envelopes, &config)?;
        self.put(store, CONFIG_TYPE, config)?;
        self.add(store, (subject, "att"), descriptor, manifest)
    }

    fn put(
        &mut self,
        store: &Blocking,
        media_type: &str,
        data: Vec<u8>,
    ) -> Result<Descriptor, StoreError> {
        let descriptor = store.put(media_type, data)?;
        self.content.push((descriptor.digest.clone(), descriptor.size));
        Ok(descriptor)
    }

    fn add(
        &mut self,
        store: &Blocking,
        (subject, suffix): (&Descriptor, &str),
        descriptor: Descriptor,
        manifest: Vec<u8>,
    ) -> Result<(), CatalogError> {
        self.put(store, &descriptor.media_type, manifest)?;
        self.tags.push((format!("{}.{suffix}", subject.digest.fallback_tag()), descriptor));
        Ok(())
    }
}

/// A configuration as clients of images expect one.
fn config(layers: &[Descriptor]) -> Result<Vec<u8>, CatalogError> {
    let digests: Vec<_> = layers.iter().map(|it| it.digest.to_string()).collect();
    Ok(json::write(&json!({
        "architecture": "",
        "config": {},
        "os": "",
        "rootfs": {"diff_ids": digests, "type": "layers"},
    }))?)
}

#[cfg(test)]
mod tests {
    use super::reference;

    #[test]
    fn an_image_is_called_as_it_is_pulled() {
        assert_eq!(
            reference("https://kiln.example:8980/x", "team/app"),
            "kiln.example:8980/team/app"
        );
        assert_eq!(reference("kiln.example", "app"), "kiln.example/app");
    }
}
