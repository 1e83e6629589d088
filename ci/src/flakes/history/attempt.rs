//! A run of a subject, as the subject's history takes it.

use serde::{Deserialize, Serialize};

use crate::flakes::{Identity, Signature};
use crate::model::{Outcome, Time};

/// A run that was executed: not cached, and not of the tool that writes XML.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    pub identity: Identity,
    pub seed: Option<&'a str>,
    /// The content hash of the target, where change impact knows it.
    pub target: Option<&'a str>,
    pub commit: Option<&'a str>,
    pub at: Time,
    pub outcome: Outcome,
    pub signature: Option<Signature>,
    /// A re-run weighs what the failure weighs that it repeats, whatever is said here.
    pub piece: Piece,
}

/// What a failure weighs, as [`crate::flakes::clusters`] finds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// The failure stands by itself.
    Own,
    /// The failure has a cause in common with others; failures of one subject in one cluster are one flip.
    Cluster(u64),
    /// The infrastructure failed: it says nothing about the test.
    Outage,
}
