//! Reports of tests that stages left, as part of the history.

use std::io::Cursor;

use async_trait::async_trait;
use kiln_cas::{Digest, DigestFunction, SharedBlobStore, StoreError};
use kiln_ci::CiServices;
use kiln_ci::attempts::BlobName;
use kiln_ci::imports::Import;
use kiln_ci::pipelines::Task;
use kiln_ci::stages::TakeReports;
use kiln_ci::verdicts::Answers;
use kiln_net::causes::chain;
use kiln_net::counts::counted;

/// Bytes of one report.
const MAX_REPORT: u64 = 64 << 20;

pub struct History {
    pub blobs: SharedBlobStore,
    pub tests: CiServices,
    pub answers: Answers,
}

#[async_trait]
impl TakeReports for History {
    async fn take(&self, task: &Task, _path: &str, report: &BlobName) -> String {
        if !self.tests.records {
            return "this server keeps no history of tests".to_owned();
        }
        match self.taken(task, report).await {
            Ok(said) | Err(said) => said,
        }
    }
}

impl History {
    async fn taken(&self, task: &Task, report: &BlobName) -> Result<String, String> {
        let bytes = self.read(report).await?;
        let now = self.tests.clock.now();
        let import = Import {
            instance: task.instance.clone(),
            suite: None,
            // Without one a run of the pipeline stands for itself.
            commit: task.source.commit.clone().unwrap_or_else(|| task.key.run.clone()),
            branch: task.source.branch.clone(),
            at: now,
        };
        let reading = tokio::task::spawn_blocking(move || import.read(Cursor::new(bytes))).await;
        let imported = reading.map_err(|error| chain(&error))?;
        let imported = imported.map_err(|refused| format!("it is no report: {refused}"))?;
        let attempts = std::slice::from_ref(&imported.attempt);
        let written = self.tests.history.commit(now, attempts).await;
        written.map_err(|error| format!("it could not be kept: {}", chain(&error)))?;
        let noted = self.answers.note_import(&imported.attempt, now).await;
        noted.map_err(|error| format!("it could not be noted: {}", chain(&error)))?;
        let receipt = imported.receipt();
        Ok(format!("{}, {} failed", counted(receipt.cases, "case"), receipt.failed))
    }

    async fn read(&self, report: &BlobName) -> Result<Vec<u8>, String> {
        let mut why = "it is not in the store any more".to_owned();
        for function in DigestFunction::ALL {
            let digest = Digest::from_hex(report.hash.as_bytes(), report.size, function);
            let Ok(digest) = digest else { continue };
            match self.blobs.read(&digest, 0, None).await {
                Ok(blob) => {
                    let bytes = blob.collect(MAX_REPORT).await.map_err(|error| chain(&error))?;
                    return Ok(bytes.to_vec());
                }
                Err(StoreError::NotFound(_)) => {}
                Err(error) => why = format!("it cannot be read: {}", chain(&error)),
            }
        }
        Err(why)
    }
}
