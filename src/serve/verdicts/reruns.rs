//! Shadow runs of tests on the scheduler's workers.

use async_trait::async_trait;
use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction, SharedBlobStore};
use kiln_ci::attempts::{Attempt, BlobName};
use kiln_ci::recording::AttemptReader;
use kiln_ci::verdicts::{RerunError, Reruns, Room, Wanted};
use kiln_scheduler::again::{Again, NotRun, ShadowRuns};

/// The mnemonic by which Bazel calls the action of a test.
const MNEMONIC: &str = "TestRunner";

pub struct OnWorkers {
    pub runs: ShadowRuns,
    pub blobs: SharedBlobStore,
    pub reader: AttemptReader,
}

#[async_trait]
impl Reruns for OnWorkers {
    async fn room(&self) -> Result<Room, RerunError> {
        let room = self.runs.room().await;
        let room = room.map_err(|error| RerunError::Failed(error.to_string()))?;
        Ok(Room { idle: room.idle, all_idle: room.all_idle, waiting: room.waiting })
    }

    async fn run(&self, wanted: &Wanted) -> Result<Attempt, RerunError> {
        let again = Again {
            instance: &wanted.instance,
            action: self.digest(&wanted.action).await?,
            target: &wanted.target,
            mnemonic: MNEMONIC,
            conditions: Bytes::new(),
            avoid: wanted.avoid.as_deref().unwrap_or_default(),
        };
        let execution = self.runs.run(&again).await.map_err(failed)?;
        let attempt = self.reader.attempt(&execution).await;
        attempt.ok_or_else(|| RerunError::Failed("it was no run of a test".to_owned()))
    }
}

impl OnWorkers {
    /// The digest of a blob. The name does not say which function it is by: it is that of the blob
    /// that is there.
    async fn digest(&self, name: &BlobName) -> Result<Digest, RerunError> {
        for function in DigestFunction::ALL {
            let Ok(digest) = Digest::from_hex(name.hash.as_bytes(), name.size, function) else {
                continue;
            };
            let missing = self.blobs.find_missing(&[digest]).await;
            if missing.map_err(|error| RerunError::Failed(error.to_string()))?.is_empty() {
                return Ok(digest);
            }
        }
        Err(RerunError::Gone("its action is not in the store any more".to_owned()))
    }
}

fn failed(error: NotRun) -> RerunError {
    match error {
        NotRun::Gone(message) => RerunError::Gone(message),
        NotRun::Failed(message) => RerunError::Failed(message),
    }
}
