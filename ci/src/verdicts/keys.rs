//! Keys of the records that hold what is known of tests.
//!
//! | key | what it says |
//! | --- | --- |
//! | `flakes/leader` | which server decides |
//! | `flakes/state` | events, holds and how many tests there are |
//! | `flakes/inbox/…` | attempts that were committed and not looked at yet |
//! | `flakes/tests/HASH` | what the runs of one test have shown |
//! | `flakes/cases/HASH` | a failure, and what its shadow runs said |
//! | `flakes/builds/HASH` | what failed in one invocation |
//! | `flakes/imports/HASH` | how a run ended that was brought in as a report |
//! | `flakes/quarantine` | which tests the gate need not wait for |
//! | `flakes/notices/NUMBER` | a change that nobody outside was told yet |
//! | `flakes/telling` | which server tells changes |
//! | `flakes/masked` | what gates masked last |

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::flakes::Identity;
use crate::model::{Subject, TestKey};
use crate::storage::{self, Damage};

pub const LEADER: &str = "flakes/leader";
pub const STATE: &str = "flakes/state";
pub const INBOX: &str = "flakes/inbox/";
pub const TESTS: &str = "flakes/tests/";
pub const CASES: &str = "flakes/cases/";
pub const BUILDS: &str = "flakes/builds/";
pub const IMPORTS: &str = "flakes/imports/";
pub const QUARANTINE: &str = "flakes/quarantine";
pub const NOTICES: &str = "flakes/notices/";
pub const TELLING: &str = "flakes/telling";
pub const MASKED: &str = "flakes/masked";

const KIND: [u8; 4] = *b"KFLK";
const VERSION: u32 = 1;

/// Bytes of a document before it is compressed.
const MAX_DOCUMENT: usize = 64 << 20;

pub fn test(test: &TestKey) -> String {
    format!("{TESTS}{}", hash(&[&test.instance, &test.label, &test.configuration]))
}

pub fn case(subject: &Subject, identity: Identity) -> String {
    let case = subject.case.clone().unwrap_or_default();
    let test = &subject.test;
    let identity = identity.to_string();
    let parts =
        [&test.instance, &test.label, &test.configuration, &case.class, &case.name, &identity];
    format!("{CASES}{}", hash(&parts.map(String::as_str)))
}

pub fn build(instance: &str, invocation: &str) -> String {
    format!("{BUILDS}{}", hash(&[instance, invocation]))
}

pub fn import(instance: &str, invocation: &str) -> String {
    format!("{IMPORTS}{}", hash(&[instance, invocation]))
}

pub fn notice(number: u64) -> String {
    format!("{NOTICES}{number:016x}")
}

/// Names of clients are hashed: they may be long, and hold anything.
fn hash(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new_derive_key("kiln 2026 name of a record about a test");
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}

/// A document as it is kept.
pub fn encode<T: Serialize>(document: &T) -> Result<Bytes, Damage> {
    storage::seal(KIND, VERSION, &json(document)?).map(Bytes::from)
}

/// A document that is removed or written anew soon.
pub fn encode_quickly<T: Serialize>(document: &T) -> Result<Bytes, Damage> {
    storage::seal_quickly(KIND, VERSION, &json(document)?).map(Bytes::from)
}

fn json<T: Serialize>(document: &T) -> Result<Vec<u8>, Damage> {
    serde_json::to_vec(document).map_err(|_| Damage::Form("document"))
}

pub fn decode<T: DeserializeOwned>(value: &[u8]) -> Result<T, Damage> {
    let json = storage::open(KIND, VERSION, value, MAX_DOCUMENT)?;
    serde_json::from_slice(&json).map_err(|_| Damage::Form("document"))
}
