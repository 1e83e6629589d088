//! What a closure is made of, in the words of a bill of materials: the repository that was built, the other
//! repositories that it took sources from, and the images that actions ran in.
//!
//! Kiln knows the bytes of these and not their licences or makers; it says no more than it knows.

use std::collections::{BTreeMap, BTreeSet};

use sha2::{Digest as _, Sha256};

use super::closure::Found;
use super::record::Origin;
use crate::encoding::hex;

/// Directories into which the build tools put other repositories.
const EXTERNAL: [&str; 2] = ["external/", "../"];
/// Packages of one bill; what is beyond is counted together.
const MAX_PACKAGES: usize = 10_000;

/// A part of a closure with a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Package {
    pub kind: PackageKind,
    pub name: String,
    /// Empty where the name of the repository does not say it.
    pub version: String,
    /// The SHA-256 of an image's own digest; of all else that of the list of files with their digests.
    pub sha256: String,
    /// Files of it that are in the closure.
    pub files: usize,
}

/// What a package is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PackageKind {
    /// The sources of the repository that was built.
    Main,
    /// Sources of another repository.
    Repository,
    /// An image that actions ran in.
    Image,
}

/// Collects packages while a closure is walked.
#[derive(Debug, Default)]
pub struct Packages {
    /// Repository ("" for the main one) -> path -> digest.
    repositories: BTreeMap<String, Files>,
    images: BTreeSet<String>,
}

/// The hashes of files, in any order: their sum does not depend on it.
#[derive(Debug, Default)]
struct Files {
    count: usize,
    /// Hashes of path and digest, each once.
    hashes: BTreeSet<[u8; 32]>,
}

impl Packages {
    pub fn count(&mut self, found: &Found) {
        match found {
            Found::Source { path, digest } => self.count_source(path, &digest.to_string()),
            Found::Missing { .. } => {}
            Found::Action(record) => {
                if let Origin::Ran(run) = &record.origin
                    && !run.image.is_empty()
                    && self.images.len() < MAX_PACKAGES
                {
                    self.images.insert(run.image.clone());
                }
            }
        }
    }

    /// Counts a source by its path and digest.
    pub(super) fn count_source(&mut self, path: &str, digest: &str) {
        let (repository, rest) = split(path);
        let known = self.repositories.contains_key(repository);
        // Beyond the limit sources count for the repository that was built: they are not left out.
        let (repository, rest) = if known || self.repositories.len() < MAX_PACKAGES {
            (repository, rest)
        } else {
            ("", path)
        };
        let files = self.repositories.entry(repository.to_owned()).or_default();
        let mut hash = Sha256::new();
        hash.update((rest.len() as u64).to_be_bytes());
        hash.update(rest);
        hash.update(digest);
        files.count += usize::from(files.hashes.insert(hash.finalize().into()));
    }

    /// All packages, in the order of kind and name.
    pub fn finish(&self, main: &str) -> Vec<Package> {
        let repositories = self.repositories.iter().map(|(name, files)| {
            let (kind, (name, version)) = match name.as_str() {
                "" => (PackageKind::Main, (main.to_owned(), String::new())),
                other => (PackageKind::Repository, version(other)),
            };
            Package { kind, name, version, sha256: files.sha256(), files: files.count }
        });
        let images = self.images.iter().map(|image| Package {
            kind: PackageKind::Image,
            name: image.clone(),
            version: String::new(),
            sha256: image.strip_prefix("sha256:").unwrap_or_default().to_owned(),
            files: 0,
        });
        let mut packages: Vec<_> = repositories.chain(images).collect();
        packages.sort_by(|one, two| (one.kind, &one.name).cmp(&(two.kind, &two.name)));
        packages
    }
}

impl Files {
    fn sha256(&self) -> String {
        let mut hash = Sha256::new();
        for one in &self.hashes {
            hash.update(one);
        }
        hex(&hash.finalize())
    }
}

/// The repository of a source, and its path in there.
fn split(path: &str) -> (&str, &str) {
    let rest = EXTERNAL.iter().find_map(|it| path.strip_prefix(it));
    rest.and_then(|it| it.split_once('/')).unwrap_or(("", path))
}

/// Name and version of a repository as Bazel's modules call it: `rules_cc+0.0.9`, `rules_cc~0.0.9`, or with what a module's
/// extension made behind it, which has no version.
fn version(repository: &str) -> (String, String) {
    let parts: Vec<_> = repository.split(['+', '~']).collect();
    match parts.as_slice() {
        [name, version] if version.starts_with(|it: char| it.is_ascii_digit()) => {
            ((*name).to_owned(), (*version).to_owned())
        }
        [name, ""] => ((*name).to_owned(), String::new()),
        _ => (repository.to_owned(), String::new()),
    }
}
