//! Environments in records: each is written before anything is done about it.

use std::sync::Arc;

use kiln_net::Unread;

use super::machine::Preview;
use super::turns;
use crate::storage::{Expect, Records, StorageError, Write};

const PREVIEWS: &str = "preview/name/";
const OWNER: &str = "preview/owner";
const PAGE: usize = 500;
/// Environments that are kept, those among them that are gone.
pub const MAX_KEPT: usize = 20_000;
/// How often a record is tried to be changed while others change it, too.
pub(super) const TRIES: usize = 16;

/// Clones share the same records.
#[derive(Clone)]
pub struct Kept {
    records: Arc<dyn Records>,
    unread: Arc<Unread>,
}

fn key(name: &str) -> String {
    format!("{PREVIEWS}{name}")
}

fn unwritable(error: &serde_json::Error) -> StorageError {
    StorageError::Unavailable(format!("a record cannot be written: {error}"))
}

impl Kept {
    pub fn new(records: Arc<dyn Records>) -> Self {
        Self { records, unread: Arc::default() }
    }

    /// The text by which the environments of these records are told from those of others. `new`: the one that counts if
    /// nobody asked before.
    pub async fn owner(&self, new: &str) -> Result<String, StorageError> {
        for _ in 0..TRIES {
            if let Some(found) = self.records.get(OWNER).await? {
                return Ok(String::from_utf8_lossy(&found.value).into_owned());
            }
            let value = Some(new.to_owned().into());
            let write = Write { key: OWNER.to_owned(), expect: Expect::Absent, value };
            match self.records.write(vec![write]).await {
                Ok(()) | Err(StorageError::Conflict(_)) => {}
                Err(error) => return Err(error),
            }
        }
        Err(StorageError::Conflict(OWNER.to_owned()))
    }

    pub async fn get(&self, name: &str) -> Result<Option<Preview>, StorageError> {
        Ok(self.read(name).await?.map(|(preview, _)| preview))
    }

    /// All of them, by their names, but those that cannot be read.
    pub async fn all(&self) -> Result<Vec<Preview>, StorageError> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let page = self.records.list(PREVIEWS, after.as_deref(), false, PAGE).await?;
            after = page.last().map(|it| it.key.clone());
            for stored in &page {
                let read = serde_json::from_slice::<Preview>(&stored.value);
                all.extend(self.unread.readable(&stored.key, read));
            }
            if page.len() < PAGE || all.len() >= MAX_KEPT {
                return Ok(all);
            }
        }
    }

    /// `false`: there is one of this name.
    pub async fn add(&self, preview: &Preview) -> Result<bool, StorageError> {
        self.put(preview, Expect::Absent).await
    }

    /// Changes an environment in one step, again where somebody else was faster, and answers with it and with what
    /// `step` answered. `None`: there is no such environment.
    pub async fn change<T>(
        &self,
        name: &str,
        step: impl Fn(&mut Preview) -> T,
    ) -> Result<Option<(Preview, T)>, StorageError> {
        for _ in 0..TRIES {
            let Some((before, version)) = self.read(name).await? else { return Ok(None) };
            let mut after = before.clone();
            let answer = step(&mut after);
            if after == before || self.swap(&after, version).await? {
                return Ok(Some((after, answer)));
            }
        }
        Err(StorageError::Conflict(key(name)))
    }

    /// One of them, with the version of its record.
    pub async fn read(&self, name: &str) -> Result<Option<(Preview, u64)>, StorageError> {
        let Some(record) = self.records.get(&key(name)).await? else { return Ok(None) };
        let read = serde_json::from_slice::<Preview>(&record.value).ok();
        Ok(read.map(|preview| (preview, record.version)))
    }

    /// Writes one whose record has this version. `false`: somebody was faster.
    pub async fn swap(&self, preview: &Preview, version: u64) -> Result<bool, StorageError> {
        self.put(preview, Expect::Version(version)).await
    }

    async fn put(&self, preview: &Preview, expect: Expect) -> Result<bool, StorageError> {
        let value = serde_json::to_vec(preview).map_err(|error| unwritable(&error))?;
        let (key, value) = (key(&preview.name), Some(value.into()));
        match self.records.write(vec![Write { key, expect, value }]).await {
            Ok(()) => Ok(true),
            Err(StorageError::Conflict(_)) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Forgets one, and who works on it, where `may` still holds of what is kept.
    pub async fn forget(
        &self,
        name: &str,
        may: impl Fn(&Preview) -> bool,
    ) -> Result<(), StorageError> {
        let Some((_, version)) = self.read(name).await?.filter(|(it, _)| may(it)) else {
            return Ok(());
        };
        let gone = |key, expect| Write { key, expect, value: None };
        let (kept, turn) = (Expect::Version(version), Expect::Anything);
        let writes = vec![gone(key(name), kept), gone(turns::key(name), turn)];
        match self.records.write(writes).await {
            // It was seen again meanwhile.
            Ok(()) | Err(StorageError::Conflict(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::ephemeral::machine::Phase;
    use crate::storage::memory::Memory;

    #[tokio::test]
    async fn what_was_seen_again_is_not_forgotten() {
        let memory = Memory::default();
        let kept = Kept::new(Arc::new(memory.clone()));
        let going = json!({
            "name": "a", "kind": "web", "instance": "", "pipeline": "", "run": "", "by": "",
            "made": 0, "expires": 0, "phase": "going", "changed": 0,
        });
        let mut preview: Preview = serde_json::from_value(going).unwrap();
        assert!(kept.add(&preview).await.unwrap());
        let turn =
            Write { key: turns::key("a"), expect: Expect::Absent, value: Some("somebody".into()) };
        memory.write(vec![turn]).await.unwrap();
        let is_gone = |it: &Preview| it.phase == Phase::Gone;
        kept.forget("a", is_gone).await.unwrap();
        assert_eq!(memory.records(), 2, "it is there, and somebody works on it");
        preview.phase = Phase::Gone;
        kept.change("a", |it| *it = preview.clone()).await.unwrap();
        kept.forget("a", is_gone).await.unwrap();
        assert_eq!(memory.records(), 0);
    }
}
