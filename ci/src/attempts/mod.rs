//! What a run of a test was, whichever way it became known: from the action that Kiln executed, from the
//! build events of the client, or from a report that was brought in.
//!
//! Each way knows a part. Executed actions know worker, digest and identity; build events know attempts,
//! strategies and tests that ran elsewhere. [`join`] makes one attempt of what both know.

mod account;
mod executed;
mod join;
mod known;
mod outputs;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use account::{Account, Gist};
pub use executed::{Ending, Execution, NotATest, OutputFile, Part, derive};
pub use join::{distinct, join, join_place, settle};
pub use known::Known;
pub use outputs::{MAX_CASES, ReadCases, Report, add_cases, read_cases};

use crate::flakes::{Identity, Signature};
use crate::model::{CaseName, Outcome, TestKey, Time};

/// What strategies and invocations of shadow runs begin with.
pub const SHADOW: &str = "shadow-";
/// What the invocations of reports that were brought in begin with.
pub const IMPORT: &str = "import-";

/// Bytes of a failure's message that stay with an attempt.
pub const MAX_EXCERPT: usize = 240;

/// Bytes of labels and the like; what is longer is cut and stays distinct by a hash.
pub const MAX_NAME: usize = 16 << 10;

/// A blob in the CAS, by hash and size.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct BlobName {
    /// The hash in hexadecimal.
    pub hash: String,
    pub size: u64,
}

/// Which of several runs of a test in one invocation an attempt belongs to. All are counted from 1, as build events do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Slot {
    /// The number of the run, of those that `--runs_per_test` asks for.
    pub run: u32,
    /// 1 as well where a test is not sharded.
    pub shard: u32,
    /// 0 while nobody has said it, and no other attempts are known.
    pub attempt: u32,
}

/// What failed, in short; the log has the rest.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Failure {
    pub signature: Option<Signature>,
    /// The beginning of the message, of at most [`MAX_EXCERPT`] bytes.
    pub excerpt: String,
}

/// What one case did in an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseRun {
    pub case: CaseName,
    /// 1 unless the runner repeated the case by itself.
    pub attempt: u32,
    pub outcome: Outcome,
    pub duration: Option<Duration>,
    pub failure: Option<Failure>,
}

/// One run of a test, or of one shard of it, that really happened: an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    pub test: TestKey,
    /// What the client calls its build; for an import, what the import is called.
    pub invocation: String,
    pub slot: Slot,
    /// How many shards there are; 0 where that is not known, 1 where the test is not sharded.
    pub shards: u32,
    pub known: Known,
    /// Tells executions of one slot apart before their attempts are numbered; 0 where none is known.
    pub execution: u64,
    pub outcome: Outcome,
    pub started: Time,
    /// What the test itself took.
    pub duration: Option<Duration>,
    /// The time that it took before the test began: inputs and the sandbox; `None`: that is not known.
    pub set_up: Option<Duration>,
    pub worker: String,
    /// What Bazel calls the way it ran: `remote`, `linux-sandbox`, ...
    pub strategy: String,
    pub action: Option<BlobName>,
    pub identity: Option<Identity>,
    pub seed: Option<String>,
    /// Kept of failures alone: the log of a pass is of no use to anybody later.
    pub log: Option<BlobName>,
    pub failure: Option<Failure>,
    pub commit: Option<String>,
    pub branch: Option<String>,
    pub cases: Vec<CaseRun>,
}

impl Attempt {
    /// An attempt of which nothing is known yet but what it was a run of.
    pub fn new(test: TestKey, invocation: &str, slot: Slot, known: Known) -> Self {
        Self {
            test,
            invocation: name(invocation),
            slot,
            shards: 0,
            known,
            execution: 0,
            outcome: Outcome::Infrastructure,
            started: Time::default(),
            duration: None,
            set_up: None,
            worker: String::new(),
            strategy: String::new(),
            action: None,
            identity: None,
            seed: None,
            log: None,
            failure: None,
            commit: None,
            branch: None,
            cases: Vec::new(),
        }
    }

    /// Whether it was one of the parts in which the server ran a test: shard and number of shards say which.
    pub fn is_part(&self) -> bool {
        self.known.has(Known::PART)
    }
}

impl Failure {
    /// The failure that a message with its trace describes; `None` where there is nothing in it.
    pub fn of(message: &str) -> Option<Self> {
        let signature = Signature::of(message);
        let excerpt = cut(message.trim(), MAX_EXCERPT).to_owned();
        (signature.is_some() || !excerpt.is_empty()).then_some(Self { signature, excerpt })
    }
}

/// Keeps names distinct and bounded.
pub fn name(text: &str) -> String {
    if text.len() <= MAX_NAME {
        return text.to_owned();
    }
    let hash = blake3::hash(text.as_bytes()).to_hex();
    format!("{}#{}", cut(text, MAX_NAME - 33), &hash[..32])
}

/// Does what [`name`] does, without a copy of what is short enough.
fn own_name(text: String) -> String {
    if text.len() <= MAX_NAME { text } else { name(&text) }
}

/// The beginning of a text, up to so many bytes.
pub fn cut(text: &str, most: usize) -> &str {
    &text[..text.floor_char_boundary(most)]
}

#[cfg(test)]
pub(crate) mod samples;
