//! The form of one record in a segment file.
//!
//! ```text
//! 0   4  magic: live or dead (the only bytes that ever change)
//! 4   4  CRC-32 of everything after it, up to the end of the payload
//! 8   4  payload length
//! 12  41 key
//! 53  3  zero
//! 56  .. payload, then zeros up to a multiple of 8
//! ```
//! Numbers are little-endian.

use std::hash::{BuildHasherDefault, Hash, Hasher};

use crate::digest::Digest;

pub const HEADER: usize = 56;
pub const ALIGN: u64 = 8;
const CRC_FROM: usize = 8;
pub const LIVE: [u8; 4] = *b"kLiv";
pub const DEAD: [u8; 4] = *b"kDed";
pub const KEY: usize = 41;

/// 32 bytes of hash, size (little-endian), function.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Key(pub [u8; KEY]);

impl Key {
    pub fn new(hash: &[u8; 32], size: u64, function: u8) -> Self {
        let mut key = [0; KEY];
        key[..32].copy_from_slice(hash);
        key[32..40].copy_from_slice(&size.to_le_bytes());
        key[40] = function;
        Self(key)
    }

    /// One of `count` shards; independent of the bytes that [`Hash`] uses.
    pub fn shard(&self, count: usize) -> usize {
        usize::from(self.0[31]) % count
    }
}

impl From<&Digest> for Key {
    fn from(digest: &Digest) -> Self {
        Self::new(&digest.hash, digest.size, digest.function as u8)
    }
}

/// Keys are cryptographic hashes: eight of their bytes are as good as any hash of them.
impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mut word = [0; 8];
        word.copy_from_slice(&self.0[..8]);
        state.write_u64(u64::from_le_bytes(word));
    }
}

/// Passes the one word on that a [`Key`] writes.
#[derive(Default)]
pub struct WordHasher(u64);

impl Hasher for WordHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = word;
    }
}

pub type KeyMap<V> = std::collections::HashMap<Key, V, BuildHasherDefault<WordHasher>>;

/// Bytes that a payload of `length` takes in a segment.
pub fn space(length: u64) -> u64 {
    (HEADER as u64 + length).next_multiple_of(ALIGN)
}

pub fn encode(key: &Key, payload: &[u8]) -> [u8; HEADER] {
    let mut header = [0; HEADER];
    header[..4].copy_from_slice(&LIVE);
    header[8..12].copy_from_slice(&(payload.len() as u32).to_le_bytes());
    header[12..12 + KEY].copy_from_slice(&key.0);
    let crc = checksum(&header, payload);
    header[4..8].copy_from_slice(&crc.to_le_bytes());
    header
}

fn checksum(header: &[u8; HEADER], payload: &[u8]) -> u32 {
    let mut crc = crc32fast::Hasher::new();
    crc.update(&header[CRC_FROM..]);
    crc.update(payload);
    crc.finalize()
}

pub struct Header {
    pub live: bool,
    pub length: u32,
    pub key: Key,
    crc: u32,
    bytes: [u8; HEADER],
}

impl Header {
    /// `None`: these bytes do not begin a record.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; HEADER] = bytes.get(..HEADER)?.try_into().ok()?;
        let live = bytes[..4] == LIVE;
        if !live && bytes[..4] != DEAD {
            return None;
        }
        let word = |at: usize| {
            u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let mut key = [0; KEY];
        key.copy_from_slice(&bytes[12..12 + KEY]);
        Some(Self { live, length: word(8), key: Key(key), crc: word(4), bytes })
    }

    pub fn matches(&self, payload: &[u8]) -> bool {
        payload.len() == self.length as usize && checksum(&self.bytes, payload) == self.crc
    }
}
