//! What the JSON API says, for the server that writes it and the commands that read it. Times are
//! RFC 3339 in UTC, `null` where a step did not happen (here nanoseconds since the Unix epoch,
//! and 0); durations say their unit in their names.

mod action;
mod build;
mod execution;
mod hermeticity;
mod status;
mod time;

use kiln_protos::{events, reapi};
use serde::{Deserialize, Serialize};

pub use action::{Action, Explanation, Found, Log};
pub use build::{Build, BuildCounts, Builds, Running};
pub use execution::{ActionResult, Execution, Executions};
pub use hermeticity::{Checked, Checks, Difference};
pub use status::{JournalStatus, Shared, Status, Storage, Unserved};

#[derive(Debug, Serialize, Deserialize)]
pub struct Digest {
    pub hash: String,
    pub size_bytes: i64,
}

impl From<&events::Digest> for Digest {
    fn from(digest: &events::Digest) -> Self {
        Self { hash: digest.hash.clone(), size_bytes: digest.size_bytes }
    }
}

impl From<&reapi::Digest> for Digest {
    fn from(digest: &reapi::Digest) -> Self {
        Self { hash: digest.hash.clone(), size_bytes: digest.size_bytes }
    }
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Property {
    pub name: String,
    pub value: String,
}

impl From<&events::Property> for Property {
    fn from(property: &events::Property) -> Self {
        Self { name: property.name.clone(), value: property.value.clone() }
    }
}

impl From<&reapi::platform::Property> for Property {
    fn from(property: &reapi::platform::Property) -> Self {
        Self { name: property.name.clone(), value: property.value.clone() }
    }
}

/// What every error answer holds.
#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct ErrorDetail {
    pub message: String,
    pub hint: String,
}

/// A place in the journal: text, because it does not fit into a JavaScript number.
pub fn cursor(seq: u64) -> String {
    format!("{seq:016x}")
}

pub fn parse_cursor(text: &str) -> Option<u64> {
    u64::from_str_radix(text, 16).ok()
}
