//! Entries of the HTTP cache that are bytes of whatever kind, in instances that are for that: tools such as ccache
//! keep under `/ac/` what only they can read.
//!
//! Each is stored as a blob, and under its key as a result that names the blob: so a hit is complete and promised
//! like any other, and whoever reads the entry in another way finds a result. Keys of the HTTP cache are no digests
//! of actions (their size is 0), so that nothing here is ever the answer to an execution.

use std::collections::HashSet;

use bytes::Bytes;
use kiln_protos::reapi::{ActionResult, OutputFile};
use prost::Message;
use tonic::Status;

use super::off_thread::off_thread;
use crate::digest::{Digest, DigestFunction};

/// Largest entry, in bytes: it is held in memory until its digest is known.
pub const MAX_VALUE: usize = 64 << 20;
/// The one output of such a result.
const VALUE: &str = "kiln.opaque/value";

/// Names of the instances.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpaqueInstances(HashSet<String>);

impl OpaqueInstances {
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self(names.into_iter().collect())
    }

    pub fn contains(&self, instance: &str) -> bool {
        self.0.contains(instance)
    }
}

/// The digest by which `value` is stored.
pub async fn digest_of(value: &Bytes) -> Result<Digest, Status> {
    let value = value.clone();
    off_thread(value.len() as u64, move || DigestFunction::Sha256.digest(&value)).await
}

/// The result that stands for a value.
pub fn wrap(value: &Digest) -> ActionResult {
    let digest = Some(value.to_wire());
    let file = OutputFile { path: VALUE.to_owned(), digest, ..Default::default() };
    ActionResult { output_files: vec![file], ..Default::default() }
}

/// The value that a result stands for; `None`: it is a result of another kind.
pub fn unwrap(result: &[u8]) -> Option<Digest> {
    let result = ActionResult::decode(result).ok()?;
    let file = result.output_files.first().filter(|file| file.path == VALUE)?;
    Digest::from_wire(file.digest.as_ref()?, DigestFunction::Sha256).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_wrapped_is_unwrapped() {
        for value in [&b""[..], b"whatever"] {
            let digest = DigestFunction::Sha256.digest(value);
            assert_eq!(unwrap(&wrap(&digest).encode_to_vec()), Some(digest));
        }
        let file = OutputFile { path: "out".to_owned(), ..Default::default() };
        let other = ActionResult { output_files: vec![file], ..Default::default() };
        assert_eq!(unwrap(&other.encode_to_vec()), None);
        assert_eq!(unwrap(b""), None);
        assert_eq!(unwrap(b"\xff"), None);
    }
}
