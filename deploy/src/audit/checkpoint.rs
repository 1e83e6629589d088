//! A checkpoint: an entry and its hash, signed.

use kiln_cas::stores::audit::AuditEntry;
use serde::{Deserialize, Serialize};

use crate::encoding::{from_hex, hex};
use crate::json::{self, JsonError};
use crate::signing::{Envelope, EnvelopeError, KeyRefused, KeyRing, Signer};
use crate::timestamp::Timestamp;

/// The payload's type in its DSSE envelope.
pub const CHECKPOINT_TYPE: &str = "application/vnd.kiln.audit-checkpoint.v1+json";
const VERSION: u32 = 1;
/// Bytes of the payload.
const MAX_BYTES: usize = 4 << 10;

/// All entries up to this one are as they were when it was signed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Checkpoint {
    version: u32,
    /// URI of the server whose log it is: a checkpoint of another says nothing.
    pub log: String,
    pub sequence: u64,
    /// The hash of the entry `sequence`, in hexadecimal digits.
    hash: String,
    pub at: Timestamp,
}

/// Why a checkpoint says nothing.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    #[error("the checkpoint cannot be read")]
    Json(#[from] JsonError),
    #[error("a checkpoint of version {0}; {VERSION} is known")]
    Version(u32),
    #[error("the hash in the checkpoint is none")]
    Hash,
    #[error("the checkpoint is signed by a key that does not count")]
    Key(#[from] KeyRefused),
}

impl Checkpoint {
    pub fn of(log: &str, entry: &AuditEntry, at: Timestamp) -> Self {
        let (log, hash) = (log.to_owned(), hex(&entry.hash));
        Self { version: VERSION, log, sequence: entry.sequence, hash, at }
    }

    pub fn hash(&self) -> Option<[u8; 32]> {
        from_hex(&self.hash)?.try_into().ok()
    }

    pub fn sign(&self, signer: &dyn Signer) -> Result<Envelope, CheckpointError> {
        Ok(Envelope::sign(CHECKPOINT_TYPE, json::write(self)?, signer)?)
    }

    /// What a trusted key has signed.
    pub fn verify(
        envelope: &Envelope,
        keys: &KeyRing,
        now: Timestamp,
    ) -> Result<Self, CheckpointError> {
        let (payload, key) = envelope.verify(CHECKPOINT_TYPE, keys)?;
        let read: Self = json::read(payload, MAX_BYTES)?;
        if read.version != VERSION {
            return Err(CheckpointError::Version(read.version));
        }
        read.hash().ok_or(CheckpointError::Hash)?;
        key.accepts(crate::signing::Evidence::Claimed(read.at), now)?;
        Ok(read)
    }
}
