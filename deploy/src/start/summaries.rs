//! Who signs what is said of promotions.

use std::sync::Arc;

use async_trait::async_trait;

use crate::promotion::{PartError, SignSummary};
use crate::signing::{Envelope, IN_TOTO_TYPE, Signer, Statement};

/// The server's key signs.
pub struct Summaries {
    pub key: Arc<dyn Signer>,
    pub verifier: String,
}

#[async_trait]
impl SignSummary for Summaries {
    fn verifier(&self) -> String {
        self.verifier.clone()
    }

    async fn sign(&self, statement: Statement) -> Result<Vec<u8>, PartError> {
        let key = self.key.clone();
        let signing = move || -> Result<Vec<u8>, PartError> {
            let envelope = Envelope::sign(IN_TOTO_TYPE, statement.write()?, &*key)?;
            Ok(envelope.write()?)
        };
        tokio::task::spawn_blocking(signing).await?
    }
}
