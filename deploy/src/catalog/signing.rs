//! Who signs: the server, or somebody elsewhere whose key never comes here.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use kiln_cas::Digest;

use super::blocking::{Blocking, stored};
use super::entry::{Draft, Unsigned};
use super::error::CatalogError;
use super::older::Older;
use crate::oci::{ContentDigest, Descriptor};
use crate::releases::bundle_manifest;
use crate::signing::{
    BUNDLE_TYPE, Bundle, IN_TOTO_TYPE, MAX_PAYLOAD_BYTES, PublicKey, SignError, Signer,
    SimpleSigning, pae,
};

/// Signatures that were made elsewhere, in the order in which what they sign is asked for. Each is verified before it is
/// used.
pub struct Presigned {
    public: PublicKey,
    signatures: Mutex<std::vec::IntoIter<Vec<u8>>>,
}

impl Presigned {
    pub fn new(public: PublicKey, signatures: Vec<Vec<u8>>) -> Self {
        Self { public, signatures: Mutex::new(signatures.into_iter()) }
    }
}

impl Signer for Presigned {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let mut signatures = self.signatures.lock().unwrap_or_else(PoisonError::into_inner);
        let signature = signatures.next().ok_or(SignError::Refused)?;
        let fits = self.public.verify(message, &signature);
        fits.then_some(signature).ok_or(SignError::OtherKey)
    }
}

/// What is signed: manifests about the subject, and everything that this added to the store.
#[derive(Debug, Default)]
pub struct Signed {
    pub attestations: Vec<Descriptor>,
    /// Manifests in cosign's older form, by their tags.
    pub tags: Vec<(String, Descriptor)>,
    pub content: Vec<(ContentDigest, u64)>,
}

/// The bytes that are to be signed of each statement, in their order; and last those of cosign's older signature, which
/// calls the image `reference`.
pub fn messages(
    store: &Blocking,
    draft: &Draft,
    reference: &str,
) -> Result<Vec<Vec<u8>>, CatalogError> {
    let image = draft.release.subject.digest.to_string();
    let older = SimpleSigning::document(reference, &image, &BTreeMap::new())?;
    let message = |it| Ok(pae(IN_TOTO_TYPE, &payload(store, draft, it)?));
    draft.statements.iter().map(message).chain([Ok(older)]).collect()
}

fn payload(store: &Blocking, draft: &Draft, of: &Unsigned) -> Result<Vec<u8>, CatalogError> {
    let digest: Option<Digest> = stored(&of.payload);
    let digest = digest.ok_or_else(|| CatalogError::NoDraft(draft.id.clone()))?;
    let read = store.read(&digest, MAX_PAYLOAD_BYTES as u64);
    Ok(read.map_err(CatalogError::Evicted)?.into())
}

/// Signs everything that a draft says, and the image itself, which is called `reference`; and stores it.
pub fn sign(
    store: &Blocking,
    draft: &Draft,
    reference: &str,
    signer: &dyn Signer,
) -> Result<Signed, CatalogError> {
    let (mut signed, mut bundles) = (Signed::default(), Vec::new());
    for unsigned in &draft.statements {
        let payload = payload(store, draft, unsigned)?;
        let bundle = Bundle::sign(IN_TOTO_TYPE, payload, signer)?.write()?;
        let kind = &unsigned.predicate_type;
        let (descriptor, manifest) = bundle_manifest(&bundle, kind, &draft.release.subject)?;
        bundles.push((bundle.clone(), kind.clone()));
        let bundle = store.put(BUNDLE_TYPE, bundle)?;
        store.put(&descriptor.media_type, manifest)?;
        signed.content.extend([&bundle, &descriptor].map(|it| (it.digest.clone(), it.size)));
        signed.attestations.push(descriptor);
    }
    let mut older = Older::default();
    let subject = &draft.release.subject;
    older.add_attestations(store, subject, &bundles)?;
    older.add_signature(store, (reference, subject), signer)?;
    signed.content.extend(older.content);
    signed.tags = older.tags;
    Ok(signed)
}
