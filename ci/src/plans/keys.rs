//! Keys of the records in which plans are kept.
//!
//! | key | what it says |
//! | --- | --- |
//! | `plans/heads/HASH` | what a plan is, and how far |
//! | `plans/pieces/HASH-TIME-CUT/NUMBER` | the tests of one piece |
//! | `plans/due/TIME-HASH` | when a plan expires, and how much of it there is |

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::model::Time;
use crate::storage::{self, Damage};

pub const DUE: &str = "plans/due/";

const KIND: [u8; 4] = *b"KPLN";
const VERSION: u32 = 1;
/// Bytes of a document before it is compressed.
const MAX_DOCUMENT: usize = 16 << 20;

/// Names of plans are hashed: they may be long, and hold anything.
pub fn hash(instance: &str, id: &str) -> String {
    let mut hash = blake3::Hasher::new_derive_key("kiln 2026 name of a record about a plan");
    for part in [instance, id] {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}

pub fn head(hash: &str) -> String {
    format!("plans/heads/{hash}")
}

/// How keys of the pieces of a plan begin that expires then: another one of its name, or another cut, is elsewhere.
pub fn place(hash: &str, expires: Time, cut: &str) -> String {
    format!("{}{cut}", place_of(hash, expires))
}

pub fn place_of(hash: &str, expires: Time) -> String {
    format!("plans/pieces/{hash}-{:016x}-", expires.0)
}

pub fn piece(place: &str, number: usize) -> String {
    format!("{place}/{number:08}")
}

pub fn due(at: Time, hash: &str) -> String {
    format!("{DUE}{:016x}-{hash}", at.0)
}

/// When a plan expires, and which one it is, by such a key.
pub fn of_due(key: &str) -> Option<(Time, &str)> {
    let (time, hash) = key.strip_prefix(DUE)?.split_once('-')?;
    Some((Time(u64::from_str_radix(time, 16).ok()?), hash))
}

pub fn encode<T: Serialize>(document: &T) -> Result<Bytes, Damage> {
    let json = serde_json::to_vec(document).map_err(|_| Damage::Form("document"))?;
    storage::seal(KIND, VERSION, &json).map(Bytes::from)
}

pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Damage> {
    let json = storage::open(KIND, VERSION, value, MAX_DOCUMENT)?;
    serde_json::from_slice(&json).map_err(|_| Damage::Form("document"))
}
