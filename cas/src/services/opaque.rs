//! Entries of the HTTP cache that are bytes of whatever kind, in instances that are for that: tools such as ccache
//! keep under `/ac/` what only they can read.
//!
//! Each is stored as a blob, and under its key as a result that names the blob: so a hit is complete and promised
//! like any other, and whoever reads the entry in another way finds a result. Keys of the HTTP cache are no digests
//! of actions (their size is 0), so that nothing here is ever the answer to an execution.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use kiln_protos::reapi::{ActionResult, OutputFile};
use prost::Message;
use tonic::Status;

use crate::blob::MAX_WHOLE_BLOB;
use crate::digest::{Digest, DigestFunction, Hasher};

/// Largest entry, in bytes: it is held in memory until its digest is known.
pub const MAX_VALUE: usize = 64 << 20;
/// Bytes of one piece of a value; the store is given one piece at a time.
const PIECE: usize = MAX_WHOLE_BLOB as usize;
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

/// A value on its way in, in pieces: one that grew as a whole would take twice the memory that it is charged.
pub struct Incoming {
    pieces: Vec<BytesMut>,
    hasher: Hasher,
    size: usize,
}

impl Incoming {
    pub fn new() -> Self {
        Self { pieces: Vec::new(), hasher: DigestFunction::Sha256.hasher(), size: 0 }
    }

    /// Takes what came. Error: it is more than [`MAX_VALUE`].
    pub fn push(&mut self, data: &[u8]) -> Result<(), Status> {
        self.size += data.len();
        if self.size > MAX_VALUE {
            return Err(Status::invalid_argument(format!("body: more than {MAX_VALUE} bytes")));
        }
        self.hasher.update(data);
        let room = self.pieces.last().map_or(0, |piece| PIECE.saturating_sub(piece.len()));
        let (first, rest) = data.split_at(room.min(data.len()));
        if let Some(piece) = self.pieces.last_mut() {
            piece.extend_from_slice(first);
        }
        self.pieces.extend(rest.chunks(PIECE).map(BytesMut::from));
        Ok(())
    }

    /// Bytes that have come.
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    /// The digest by which the value is stored, and its pieces.
    pub fn finish(self) -> (Digest, Vec<Bytes>) {
        let pieces = self.pieces.into_iter().map(BytesMut::freeze).collect();
        (self.hasher.finish(), pieces)
    }
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
    fn a_value_is_the_same_however_it_comes() {
        let value: Vec<u8> = (0..3 * PIECE + 5).map(|n| (n % 251) as u8).collect();
        for step in [1_000, PIECE - 1, PIECE, PIECE + 1, value.len()] {
            let mut incoming = Incoming::new();
            value.chunks(step).for_each(|data| incoming.push(data).unwrap());
            assert_eq!(incoming.size(), value.len() as u64);
            let (digest, pieces) = incoming.finish();
            assert_eq!(digest, DigestFunction::Sha256.digest(&value));
            assert!(pieces.concat() == value && pieces.iter().all(|piece| piece.len() <= PIECE));
            assert_eq!(pieces.len(), 4, "{step}");
        }
        assert!(Incoming::new().push(&vec![0; MAX_VALUE + 1]).is_err());
    }

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
