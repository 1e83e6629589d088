//! Whose turn it is among servers that could all do one thing: one at a time does, and says so in a record.

use std::sync::Arc;

use tokio::time::Instant;

use super::leader::{Standing, Watch};
use crate::storage::{Expect, Records, StorageError, Write};

/// One server's part in it.
pub struct Turn {
    records: Arc<dyn Records>,
    key: &'static str,
    watch: Watch,
    began: Instant,
}

impl Turn {
    /// `name` is this server's alone, also among those that it was before.
    pub fn new(records: Arc<dyn Records>, key: &'static str, name: String) -> Self {
        Self { records, key, watch: Watch::new(name), began: Instant::now() }
    }

    /// Whether it is this server's turn, which then lasts until nothing was heard of it for [`super::TERM`]. To be asked
    /// before each single thing that only one may do; what is to be done is to be looked up after it was said the first time.
    pub async fn is_mine(&mut self) -> Result<bool, StorageError> {
        let record = self.records.get(self.key).await?;
        let expect = match self.watch.look(record.as_ref(), self.began.elapsed()) {
            Standing::Follow => return Ok(false),
            Standing::Free(expect) => expect,
            Standing::Lead(version) => Expect::Version(version),
        };
        let (key, value) = (self.key.to_owned(), Some(self.watch.claim()));
        self.write(Write { key, expect, value }).await
    }

    /// Lets whoever asks next have it. To be called where everything is done.
    pub async fn give_up(&mut self) -> Result<(), StorageError> {
        let record = self.records.get(self.key).await?;
        if let Standing::Lead(version) = self.watch.look(record.as_ref(), self.began.elapsed()) {
            let (key, value) = (self.key.to_owned(), Some(Watch::resignation()));
            self.write(Write { key, expect: Expect::Version(version), value }).await?;
        }
        Ok(())
    }

    /// Whether nobody was faster.
    async fn write(&self, write: Write) -> Result<bool, StorageError> {
        match self.records.write(vec![write]).await {
            Ok(()) => Ok(true),
            Err(StorageError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::leader::TERM;
    use super::*;
    use crate::storage::memory::Memory;

    #[tokio::test(start_paused = true)]
    async fn one_server_at_a_time_has_it_and_silence_alone_passes_it_on() {
        let memory = Memory::default();
        let turn = |name: &str| Turn::new(Arc::new(memory.clone()), "turn", name.to_owned());
        let (mut one, mut two) = (turn("a"), turn("b"));
        assert!(one.is_mine().await.unwrap());
        assert!(!two.is_mine().await.unwrap());
        tokio::time::advance(TERM / 2).await;
        assert!(one.is_mine().await.unwrap());
        tokio::time::advance(TERM * 3 / 4).await;
        assert!(!two.is_mine().await.unwrap(), "it has said so in between");
        tokio::time::advance(TERM).await;
        assert!(two.is_mine().await.unwrap());
        assert!(!one.is_mine().await.unwrap(), "it was away for too long");
        one.give_up().await.unwrap();
        assert!(!one.is_mine().await.unwrap(), "it had nothing to give up");
        two.give_up().await.unwrap();
        assert!(one.is_mine().await.unwrap());
    }
}
