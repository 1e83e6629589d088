//! The history at one moment, though others write.

use std::future::Future;

use super::catalogue::{CATALOGUE, Catalogue, FRESH, Fresh, decode};
use super::{History, HistoryError};
use crate::storage::{Damage, StorageError};

/// Fresh segments that are listed at once, and how often a snapshot is tried.
const PAGE: usize = 500;
const TRIES: u32 = 8;

/// Most fresh segments that are looked at: beyond that maintenance has not run for hours.
const MAX_FRESH: usize = 20_000;

#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    pub catalogue: Catalogue,
    /// 0 while there is none.
    pub version: u64,
    /// Segments that are fresh, with the versions of their records.
    pub fresh: Vec<(Fresh, u64)>,
    /// Names of fresh segments whose records cannot be read. They are not looked into, and stay.
    pub unread: Vec<String>,
}

impl History {
    /// Fresh segments move into the catalogue: what is read between two looks at one version of it is of one
    /// moment.
    pub(super) async fn snapshot(&self) -> Result<Snapshot, HistoryError> {
        let mut before = self.catalogue().await?;
        for _ in 0..TRIES {
            let listed = self.list_fresh().await?;
            let after = self.catalogue().await?;
            if before.1 == after.1 {
                return Ok(Snapshot { catalogue: after.0, version: after.1, ..listed });
            }
            before = after;
        }
        Err(HistoryError::Restless)
    }

    async fn catalogue(&self) -> Result<(Catalogue, u64), HistoryError> {
        let Some(record) = self.records.get(CATALOGUE).await? else {
            return Ok((Catalogue::default(), 0));
        };
        let catalogue = decode(&record.value).ok_or_else(|| damaged(CATALOGUE))?;
        Ok((catalogue, record.version))
    }

    /// A snapshot of what is fresh alone.
    async fn list_fresh(&self) -> Result<Snapshot, HistoryError> {
        let mut listed = Snapshot::default();
        let mut after: Option<String> = None;
        while listed.fresh.len() < MAX_FRESH {
            let page = self.records.list(FRESH, after.as_deref(), false, PAGE).await?;
            for record in &page {
                match decode(&record.value) {
                    Some(it) => listed.fresh.push((it, record.version)),
                    None => {
                        self.unread.pass_by(&record.key, &damaged(&record.key));
                        let name = record.key.strip_prefix(FRESH).unwrap_or_default();
                        listed.unread.push(name.to_owned());
                    }
                }
            }
            match page.into_iter().last() {
                Some(record) => after = Some(record.key),
                None => break,
            }
        }
        Ok(listed)
    }

    /// Asks again when a segment was removed while it was read.
    pub(super) async fn with_snapshot<T, F>(
        &self,
        ask: impl Fn(Snapshot) -> F,
    ) -> Result<T, HistoryError>
    where
        F: Future<Output = Result<T, HistoryError>>,
    {
        for _ in 0..TRIES {
            match ask(self.snapshot().await?).await {
                Err(HistoryError::Storage(StorageError::NotFound(_))) => {}
                answer => return answer,
            }
        }
        Err(HistoryError::Restless)
    }
}

fn damaged(key: &str) -> HistoryError {
    HistoryError::Damaged { segment: key.to_owned(), source: Damage::Form("record") }
}
