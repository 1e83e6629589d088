//! The catalogue of segments: records that say which ones there are.
//!
//! | key | what it says |
//! | --- | --- |
//! | `tests/catalogue` | all segments but the fresh ones, and those that may be removed soon |
//! | `tests/fresh/NAME` | a segment as it was committed, and when |

use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::segment::Written;
use crate::model::Time;

pub const CATALOGUE: &str = "tests/catalogue";
pub const FRESH: &str = "tests/fresh/";

/// What is known of a segment without opening it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SegmentMeta {
    pub name: String,
    pub bytes: u64,
    /// How many runs the segment has; 0 when it was old, and its days alone were kept.
    pub runs: u64,
    pub cases: u64,
    pub days: u64,
    pub tests: u64,
    pub from: Time,
    pub to: Time,
}

/// A segment that is not needed any more. Somebody may be reading it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dead {
    pub name: String,
    pub since: Time,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Catalogue {
    pub segments: Vec<SegmentMeta>,
    pub dead: Vec<Dead>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fresh {
    pub meta: SegmentMeta,
    pub committed: Time,
}

impl SegmentMeta {
    pub fn of(name: String, written: &Written) -> Self {
        Self {
            name,
            bytes: written.bytes.len() as u64,
            runs: written.runs,
            cases: written.cases,
            days: written.days,
            tests: written.tests,
            from: written.from,
            to: written.to,
        }
    }

    pub fn weight(&self) -> u64 {
        self.runs.saturating_add(self.cases)
    }

    /// Whether any of its attempts may have begun between these times.
    pub fn touches(&self, from: Time, to: Time) -> bool {
        self.from <= to && from <= self.to
    }
}

impl Fresh {
    pub fn key(&self) -> String {
        format!("{FRESH}{}", self.meta.name)
    }
}

pub fn encode<T: Serialize>(value: &T) -> Bytes {
    // Names, numbers and lists of them: nothing that could not be written.
    serde_json::to_vec(value).unwrap_or_default().into()
}

/// Reads a record; `None` when it is no such record.
pub fn decode<T: DeserializeOwned>(value: &Bytes) -> Option<T> {
    serde_json::from_slice(value).ok()
}
