//! Keys of records of releases.
//!
//! | key | value |
//! | --- | --- |
//! | `releases/entry/{instance}/{name}` | a release ([`Entry`](super::Entry)) |
//! | `releases/holds/{instance}/{content}/{name}@{manifest}` | empty: the release of this name holds this content, if that is its manifest |
//! | `releases/pin/{pin}` | the key of the release whose pins are called so |
//! | `releases/draft/{id}` | what waits for signatures ([`Draft`](super::Draft)) |
//!
//! Instances are hashed: they may hold any character.

use kiln_cas::DigestFunction;

use crate::releases::ReleaseName;

pub const DRAFTS: &str = "releases/draft/";

fn hashed(instance: &str) -> String {
    let hex = DigestFunction::Sha256.digest(instance.as_bytes()).hex();
    hex.get(..32).unwrap_or_default().to_owned()
}

/// What the keys of all releases of an instance begin with.
pub fn entries(instance: &str) -> String {
    format!("releases/entry/{}/", hashed(instance))
}

pub fn entry(instance: &str, name: &ReleaseName) -> String {
    format!("{}{name}", entries(instance))
}

pub fn holders(instance: &str, hex: &str) -> String {
    format!("releases/holds/{}/{hex}/", hashed(instance))
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
    }
}
