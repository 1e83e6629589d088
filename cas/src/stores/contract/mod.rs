//! One suite for each storage trait, run on every implementation.

pub mod actions;
mod blobs;
pub mod index;
pub mod leases;
mod naming;
mod pins;
pub mod records;
mod verified;

use bytes::Bytes;

use crate::digest::{Digest, DigestFunction};

/// Bytes that differ from seed to seed and do not repeat soon.
pub fn content(seed: u64, size: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut data = Vec::with_capacity(size + 8);
    while data.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        data.extend_from_slice(&state.to_le_bytes());
    }
    data.truncate(size);
    data.into()
}

pub fn blob(seed: u64, size: usize) -> (Digest, Bytes) {
    let data = content(seed, size);
    (DigestFunction::Sha256.digest(&data), data)
}
