//! Blobs, actions and results that load generator and floor agree on.

use bytes::{BufMut, Bytes, BytesMut};
use kiln_protos::{protobuf, reapi};
use prost::Message;
use sha2::{Digest as _, Sha256};

/// Bytes of a small blob.
pub const SMALL: usize = 4096;
/// Bytes of a large blob.
pub const LARGE: usize = 64 << 20;
/// An action digest that starts with these digits is answered with NOT_FOUND by the floor;
/// elsewhere nothing that starts with them is ever stored.
pub const MISS_MARK: &str = "00000000";

/// The last bytes of a blob, the only ones in which blobs of one size differ.
const TAIL: usize = 64;
/// Start value of the generator behind the common bytes.
const SEED: u64 = 0x6b69_6c6e;

/// Names one blob of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// The run that writes the blob. 0: no run, as it is one of the blobs that are read, the same
    /// in every run.
    pub run: u64,
    pub index: u64,
}

impl Key {
    /// The blob that the floor answers with.
    pub const FIRST: Self = Self { run: 0, index: 0 };

    fn tail(self) -> [u8; TAIL] {
        let mut tail = [0; TAIL];
        tail[..8].copy_from_slice(&self.run.to_le_bytes());
        tail[8..16].copy_from_slice(&self.index.to_le_bytes());
        tail
    }
}

/// Any number of blobs of one size. They share all bytes but the tail, so that a distinct
/// blob of 64 MiB is hashed and sent without touching 64 MiB again.
#[derive(Clone)]
pub struct Pattern {
    head: Bytes,
    hashed_head: Sha256,
}

impl Pattern {
    /// `size`: bytes of a blob, at least 64.
    pub fn new(size: usize) -> Self {
        let head = incompressible(size.saturating_sub(TAIL));
        let hashed_head = Sha256::new_with_prefix(&head);
        Self { head, hashed_head }
    }

    pub fn size(&self) -> usize {
        self.head.len() + TAIL
    }

    pub fn hash(&self, key: Key) -> Hash {
        let mut state = self.hashed_head.clone();
        state.update(key.tail());
        Hash::of_bytes(&state.finalize())
    }

    pub fn digest(&self, key: Key) -> reapi::Digest {
        reapi::Digest {
            hash: self.hash(key).as_str().to_owned(),
            size_bytes: i64::try_from(self.size()).unwrap_or(i64::MAX),
        }
    }

    /// The whole blob in one piece: a copy.
    pub fn blob(&self, key: Key) -> Bytes {
        let mut blob = BytesMut::with_capacity(self.size());
        blob.put_slice(&self.head);
        blob.put_slice(&key.tail());
        blob.freeze()
    }

    /// The blob in pieces of at most `chunk` bytes; only the last one is copied.
    pub fn pieces(&self, key: Key, chunk: usize) -> Vec<Bytes> {
        let last = (self.size() - 1) / chunk * chunk;
        let last = last.min(self.head.len());
        let mut pieces: Vec<_> = (0..last)
            .step_by(chunk)
            .map(|start| self.head.slice(start..(start + chunk).min(last)))
            .collect();
        let mut end = BytesMut::with_capacity(self.size() - last);
        end.put_slice(&self.head[last..]);
        end.put_slice(&key.tail());
        pieces.push(end.freeze());
        pieces
    }
}

/// A SHA-256 as 64 hexadecimal digits, without an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Hash([u8; 64]);

impl Hash {
    pub fn of(data: &[u8]) -> Self {
        Self::of_bytes(&Sha256::digest(data))
    }

    fn of_bytes(hash: &[u8]) -> Self {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut digits = [b'0'; 64];
        for (pair, byte) in digits.chunks_exact_mut(2).zip(hash) {
            pair[0] = DIGITS[usize::from(byte >> 4)];
            pair[1] = DIGITS[usize::from(byte & 15)];
        }
        Self(digits)
    }

    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).unwrap_or_default()
    }
}

/// The digest of some bytes.
pub fn digest_of(data: &[u8]) -> reapi::Digest {
    reapi::Digest {
        hash: Hash::of(data).as_str().to_owned(),
        size_bytes: i64::try_from(data.len()).unwrap_or(i64::MAX),
    }
}

/// The digest of a message's encoding, and the encoding.
pub fn encode(message: &impl Message) -> (reapi::Digest, Bytes) {
    let data = Bytes::from(message.encode_to_vec());
    (digest_of(&data), data)
}

/// A typical result: three files and a standard output, the first four small blobs; and when
/// and where it came about.
pub fn action_result(small: &Pattern) -> reapi::ActionResult {
    let file = |index: u64, path: &str| reapi::OutputFile {
        path: path.to_owned(),
        digest: Some(small.digest(Key { run: 0, index })),
        is_executable: index == 2,
        ..Default::default()
    };
    reapi::ActionResult {
        output_files: vec![
            file(0, "bazel-out/k8-fastbuild/bin/app/_objs/main/main.o"),
            file(1, "bazel-out/k8-fastbuild/bin/app/_objs/main/main.d"),
            file(2, "bazel-out/k8-fastbuild/bin/app/main"),
        ],
        stdout_digest: Some(small.digest(Key { run: 0, index: 3 })),
        execution_metadata: Some(metadata()),
        ..Default::default()
    }
}

/// A worker's name and when each step took place.
fn metadata() -> reapi::ExecutedActionMetadata {
    let at = |step: i64| {
        Some(protobuf::Timestamp { seconds: 1_700_000_000 + step / 4, nanos: 250_000_000 })
    };
    reapi::ExecutedActionMetadata {
        worker: "worker-1".to_owned(),
        queued_timestamp: at(0),
        worker_start_timestamp: at(1),
        input_fetch_start_timestamp: at(1),
        input_fetch_completed_timestamp: at(2),
        execution_start_timestamp: at(2),
        execution_completed_timestamp: at(6),
        output_upload_start_timestamp: at(6),
        output_upload_completed_timestamp: at(7),
        worker_completed_timestamp: at(7),
        ..Default::default()
    }
}

/// The first `size` bytes of a sequence that is the same every time and that no compressor
/// shortens.
fn incompressible(size: usize) -> Bytes {
    let mut state = SEED;
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        data.extend_from_slice(&(word ^ (word >> 31)).to_le_bytes());
    }
    data.truncate(size);
    Bytes::from(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_hashes_to_its_name_in_one_piece_and_in_many() {
        let pattern = Pattern::new(1000);
        for key in [Key::FIRST, Key { run: 7, index: 9 }] {
            let blob = pattern.blob(key);
            assert_eq!(blob.len(), 1000);
            assert_eq!(Hash::of(&blob), pattern.hash(key));
            for chunk in [1, 10, 64, 100, 936, 950, 999, 1000, 5000] {
                let pieces = pattern.pieces(key, chunk);
                assert_eq!(pieces.concat(), blob, "in pieces of {chunk}");
            }
        }
    }

    #[test]
    fn blobs_of_one_pattern_differ() {
        let pattern = Pattern::new(SMALL);
        let first = pattern.hash(Key::FIRST);
        assert_ne!(first, pattern.hash(Key { run: 0, index: 1 }));
        assert_ne!(first, pattern.hash(Key { run: 1, index: 0 }));
    }
}
