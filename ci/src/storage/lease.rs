//! A lease that lies in records: whose turn it is among servers that share these.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::lease::{Slot, Turn};

use super::{Expect, Records, StorageError, Write};

/// The record of a lease.
pub struct LeaseRecord {
    records: Arc<dyn Records>,
    key: String,
}

/// Says by a record which of several processes has its turn.
pub type RecordTurn = Turn<LeaseRecord>;

impl LeaseRecord {
    pub fn new(records: Arc<dyn Records>, key: impl Into<String>) -> Self {
        Self { records, key: key.into() }
    }

    /// `holder` is this process's alone, and not empty. After `term` without a word of the holder another one's turn comes.
    pub fn turn(self, holder: impl Into<String>, term: Duration) -> RecordTurn {
        Turn::new(self, holder.into(), term)
    }
}

impl Slot for LeaseRecord {
    type Error = StorageError;

    async fn read(&self) -> Result<Option<(u64, Vec<u8>)>, StorageError> {
        let found = self.records.get(&self.key).await?;
        Ok(found.map(|it| (it.version, it.value.to_vec())))
    }

    async fn swap(
        &self,
        expected: Option<u64>,
        value: Vec<u8>,
    ) -> Result<Option<u64>, StorageError> {
        let expect = expected.map_or(Expect::Absent, Expect::Version);
        let write = Write { key: self.key.clone(), expect, value: Some(value.into()) };
        match self.records.apply(vec![write]).await {
            Ok(versions) => Ok(versions.first().copied()),
            Err(StorageError::Conflict(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use kiln_net::lease::Standing;

    use super::*;
    use crate::storage::FileRecords;
    use crate::storage::memory::Memory;

    /// Longer than any of these tests takes.
    const TERM: Duration = Duration::from_secs(600);

    /// What holds for a lease in all records.
    async fn suite(records: Arc<dyn Records>) {
        let slot = LeaseRecord::new(records.clone(), "slot");
        assert_eq!(slot.read().await.unwrap(), None);
        assert_eq!(slot.swap(Some(1), b"0".to_vec()).await.unwrap(), None);
        let first = slot.swap(None, b"1".to_vec()).await.unwrap().expect("there is none");
        assert_eq!(slot.swap(None, b"2".to_vec()).await.unwrap(), None);
        let second = slot.swap(Some(first), b"2".to_vec()).await.unwrap().expect("it is known");
        assert!(second > first);
        assert_eq!(slot.swap(Some(first), b"3".to_vec()).await.unwrap(), None);
        assert_eq!(slot.read().await.unwrap(), Some((second, b"2".to_vec())));

        let turn = |name: &str| LeaseRecord::new(records.clone(), "turn").turn(name, TERM);
        let (one, two) = (turn("one"), turn("two"));
        assert_eq!(one.take().await.unwrap(), Standing::Held(1));
        assert!(!two.is_mine().await.unwrap());
        one.give_up().await.unwrap();
        // A process that has not looked before need not wait for a lease that was given up.
        assert_eq!(turn("three").take().await.unwrap(), Standing::Held(2));
        assert!(!one.is_mine().await.unwrap());

        // Before leases were of one form, a name was all that one said.
        let old = Write { key: "old".into(), expect: Expect::Absent, value: Some("a".into()) };
        let version = records.apply(vec![old]).await.unwrap()[0];
        let old = LeaseRecord::new(records, "old").turn("one", TERM);
        assert_eq!(old.take().await.unwrap(), Standing::Held(version + 1));
    }

    #[tokio::test]
    async fn memory_keeps_the_contract() {
        suite(Arc::new(Memory::default())).await;
    }

    #[tokio::test]
    async fn a_file_keeps_the_contract() {
        let directory = tempfile::tempdir().unwrap();
        suite(Arc::new(FileRecords::new(directory.path().join("records")))).await;
    }

    #[tokio::test]
    async fn versions_are_those_of_the_records() {
        let memory = Memory::default();
        let put = |key: &str, value: Option<&'static str>| {
            let value = value.map(Into::into);
            Write { key: key.to_owned(), expect: Expect::Anything, value }
        };
        let versions = memory.apply(vec![put("a", Some("1")), put("b", Some("2"))]).await.unwrap();
        let found = [memory.get("a").await.unwrap(), memory.get("b").await.unwrap()];
        assert_eq!(found.map(|it| it.unwrap().version).to_vec(), versions);
        assert_eq!(memory.apply(vec![put("a", None)]).await.unwrap(), [0]);
    }
}
