//! Keys of records. A colon ends the name of a repository, which has none.

use crate::oci::{ContentDigest, Repository, Tag};

/// What all keys of a registry begin with.
pub const REGISTRY: &str = "registry/";
pub const BLOBS: &str = "registry/blobs/";
pub const MANIFESTS: &str = "registry/manifests/";
pub const REFERRERS: &str = "registry/referrers/";
pub const UPLOADS: &str = "registry/uploads/";
pub const PINNING: &str = "registry/pinning/";
pub const UNTIDY: &str = "registry/untidy/";

/// How the keys of a blob begin in all repositories that have it.
pub fn blob_anywhere(digest: &ContentDigest) -> String {
    format!("{BLOBS}{digest}:")
}

pub fn blob(repository: &Repository, digest: &ContentDigest) -> String {
    format!("{BLOBS}{digest}:{repository}")
}

pub fn manifests(repository: &Repository) -> String {
    format!("{MANIFESTS}{repository}:")
}

pub fn manifest(repository: &Repository, digest: &ContentDigest) -> String {
    format!("{MANIFESTS}{repository}:{digest}")
}

pub fn tags(repository: &Repository) -> String {
    format!("registry/tags/{repository}:")
}

pub fn tag(repository: &Repository, tag: &Tag) -> String {
    format!("registry/tags/{repository}:{tag}")
}

pub fn referrers(repository: &Repository, subject: &ContentDigest) -> String {
    format!("{REFERRERS}{repository}:{subject}/")
}

pub fn referrer(
    repository: &Repository,
    subject: &ContentDigest,
    digest: &ContentDigest,
) -> String {
    format!("{REFERRERS}{repository}:{subject}/{digest}")
}

pub fn upload(repository: &Repository, id: &str) -> String {
    format!("{UPLOADS}{repository}:{id}")
}

pub fn pieces(id: &str, record: u64) -> String {
    format!("registry/pieces/{id}/{record:06}")
}

pub fn pinning(generation: &str) -> String {
    format!("{PINNING}{generation}")
}

/// Grows with each change that makes more of a repository be kept.
pub fn changes(repository: &Repository) -> String {
    format!("registry/changes/{repository}")
}

/// The key of the owner whose releases a repository has. It stays, also when the last of them is gone.
pub fn owner(repository: &Repository) -> String {
    format!("registry/owners/{repository}")
}

/// Something of the repository may be let go of.
pub fn untidy(repository: &Repository) -> String {
    format!("{UNTIDY}{repository}")
}
