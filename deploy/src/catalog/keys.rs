//! Keys of records of releases.
//!
//! | key | value |
//! | --- | --- |
//! | `releases/entry/{instance}/{name}` | a release ([`CatalogEntry`](super::CatalogEntry)) |
//! | `releases/holds/{instance}/{content}/{name}@{manifest}` | empty: the release of this name holds this content, if that is its manifest |
//! | `releases/attached/{instance}/{name}/{manifest}` | what was signed of it since ([`Attached`](super::entry::Attached)) |
//! | `releases/gone/{instance}/{name}` | which content the name stood for |
//! | `releases/unswept/{instance}` | empty: releases were removed, and what names them may be there still |
//! | `releases/pin/{pin}` | the key of the release whose pins are called so |
//! | `releases/shown` | how far it is with showing releases in the registry that were made before it did |
//! | `releases/draft/{id}` | what waits for signatures ([`Draft`](super::Draft)) |
//!
//! Instances are hashed: they may hold any character.

use kiln_cas::DigestFunction;

use crate::oci::{ContentDigest, Repository};
use crate::releases::ReleaseName;

/// What the keys of all releases begin with.
pub const ENTRIES: &str = "releases/entry/";
pub const SHOWN: &str = "releases/shown";
pub const DRAFTS: &str = "releases/draft/";

fn hashed(instance: &str) -> String {
    let hex = DigestFunction::Sha256.digest(instance.as_bytes()).hex();
    hex.get(..32).unwrap_or_default().to_owned()
}

/// What the keys of all releases of an instance begin with.
pub fn entries(instance: &str) -> String {
    format!("{ENTRIES}{}/", hashed(instance))
}

pub fn entry(instance: &str, name: &ReleaseName) -> String {
    format!("{}{name}", entries(instance))
}

pub fn holders(instance: &str, hex: &str) -> String {
    format!("releases/holds/{}/{hex}/", hashed(instance))
}

/// How the keys begin that say of which releases of one repository hold a file.
pub fn holders_in(instance: &str, hex: &str, repository: &Repository) -> String {
    format!("{}{repository}:", holders(instance, hex))
}

pub fn all_holders(instance: &str) -> String {
    format!("releases/holds/{}/", hashed(instance))
}

/// `manifest`: the hash of the release's. What never became visible leaves such keys, and its name may go to another one.
pub fn holds(instance: &str, hex: &str, name: &ReleaseName, manifest: &str) -> String {
    format!("{}{name}@{manifest}", holders(instance, hex))
}

/// The name and the manifest at the end of a key of [`holds`].
pub fn holder(key: &str) -> Option<(ReleaseName, &str)> {
    let (name, manifest) = key.splitn(5, '/').nth(4)?.rsplit_once('@')?;
    Some((name.parse().ok()?, manifest))
}

pub fn attached_of(instance: &str) -> String {
    format!("releases/attached/{}/", hashed(instance))
}

/// The release at the end of a key of [`attached`].
pub fn attached_name(key: &str) -> Option<ReleaseName> {
    let (name, _) = key.splitn(4, '/').nth(3)?.rsplit_once('/')?;
    name.parse().ok()
}

/// The content that a name stood for whose release is gone.
pub fn gone(instance: &str, name: &ReleaseName) -> String {
    format!("releases/gone/{}/{name}", hashed(instance))
}

/// Something is left of releases that were removed.
pub fn unswept(instance: &str) -> String {
    format!("releases/unswept/{}", hashed(instance))
}

pub fn attached(instance: &str, name: &ReleaseName, manifest: &ContentDigest) -> String {
    format!("{}{name}/{manifest}", attached_of(instance))
}

pub fn pin(pin: &str) -> String {
    format!("releases/pin/{pin}")
}

pub fn draft(id: &str) -> String {
    format!("{DRAFTS}{id}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_names_a_release() {
        let name: ReleaseName = "team/app:1.0".parse().unwrap();
        assert_eq!(holder(&holds("a/b", "00ff", &name, "77")), Some((name.clone(), "77")));
        assert_eq!(holder("releases/holds/x"), None);
        assert_ne!(entries("a"), entries("b"));
        let manifest = ContentDigest::of(b"1");
        let key = attached("a/b", &name, &manifest);
        assert!(key.starts_with(&attached_of("a/b")));
        assert_eq!(attached_name(&key), Some(name));
    }
}
