//! Keeps a lane in records.
//!
//! | key | what it says |
//! | --- | --- |
//! | `queue/NAME/lane` | all of its state; each write expects the version that was read |
//! | `queue/NAME/inbox/NUMBER` | what somebody asked for, until the lane has it |
//! | `queue/NAME/ended/NUMBER` | a change that has left, the newest ones |

use std::sync::Arc;

use bytes::Bytes;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::error::QueueError;
use crate::queue::{Ended, Lane};
use crate::storage::{Damage, Expect, MAX_BATCH, Records, StorageError, Write, open, seal};

const KIND: [u8; 4] = *b"KMQL";
const VERSION: u32 = 1;
/// Bytes of a document before it is compressed.
const MAX_DOCUMENT: usize = 64 << 20;
/// Changes that have left, of which is known how.
pub const MAX_ENDED: usize = 500;

/// Names a lane in keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LaneName(String);

impl LaneName {
    pub fn new(name: &str) -> Result<Self, QueueError> {
        let fine = |it: char| it.is_ascii_alphanumeric() || "-_.".contains(it);
        // It names a directory, and is a segment of addresses: neither may be `..`.
        let plain = !name.is_empty() && !name.starts_with('.');
        match plain && name.len() <= 60 && name.chars().all(fine) {
            true => Ok(Self(name.to_owned())),
            false => Err(QueueError::Name(name.chars().take(80).collect())),
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// What is kept of this lane under a name.
    pub fn key(&self, rest: &str) -> String {
        format!("queue/{}/{rest}", self.0)
    }

    pub fn inbox(&self) -> String {
        self.key("inbox/")
    }
}

/// Reads and writes of one lane.
#[derive(Clone)]
pub struct Kept {
    pub records: Arc<dyn Records>,
    pub name: LaneName,
}

pub fn encode<T: Serialize>(document: &T) -> Result<Bytes, Damage> {
    let json = serde_json::to_vec(document).map_err(|_| Damage::Form("document"))?;
    seal(KIND, VERSION, &json).map(Bytes::from)
}

pub fn decode<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, QueueError> {
    let read = || {
        let json = open(KIND, VERSION, value, MAX_DOCUMENT)?;
        serde_json::from_slice(&json).map_err(|_| Damage::Form("document"))
    };
    read().map_err(|source| QueueError::Damaged { key: key.to_owned(), source })
}

impl Kept {
    /// The lane, and what the next write of it expects.
    pub async fn lane(&self) -> Result<(Option<Lane>, Expect), QueueError> {
        let key = self.name.key("lane");
        match self.records.get(&key).await? {
            Some(it) => Ok((Some(decode(&key, &it.value)?), Expect::Version(it.version))),
            None => Ok((None, Expect::Absent)),
        }
    }

    /// Writes a lane with what has left it, in one step with `others`. Answers what the next write expects.
    pub async fn write(
        &self,
        lane: &Lane,
        expect: Expect,
        ended: &[Ended],
        others: Vec<Write>,
    ) -> Result<Expect, QueueError> {
        let key = self.name.key("lane");
        let writes = self.writes(lane, expect, ended, others).await?;
        let lane = writes.first().and_then(|it| it.value.clone());
        self.records.write(writes).await?;
        // The version of what somebody else wrote in between would let the next write undo it.
        match self.records.get(&key).await?.filter(|it| Some(&it.value) == lane.as_ref()) {
            Some(it) => Ok(Expect::Version(it.version)),
            None => Err(StorageError::Conflict(key).into()),
        }
    }

    /// What writes a lane, which comes first, with what has left it and with `others`.
    pub async fn writes(
        &self,
        lane: &Lane,
        expect: Expect,
        ended: &[Ended],
        others: Vec<Write>,
    ) -> Result<Vec<Write>, QueueError> {
        let key = self.name.key("lane");
        let damaged = |source| QueueError::Damaged { key: key.clone(), source };
        let lane = encode(lane).map_err(damaged)?;
        let mut writes = vec![Write { key: key.clone(), expect, value: Some(lane) }];
        for it in ended {
            let value = Some(encode(it).map_err(damaged)?);
            let key = self.name.key(&format!("ended/{:016}-{:016}", it.at.0, it.id.0));
            writes.push(Write { key, expect: Expect::Anything, value });
        }
        if !ended.is_empty() {
            // One is left for whoever writes more with it.
            let room = MAX_BATCH.saturating_sub(writes.len() + others.len() + 1);
            writes.extend(self.old(room).await?);
        }
        writes.extend(others);
        Ok(writes)
    }

    /// Deletes ended changes beyond those that are kept, so many of them.
    async fn old(&self, most: usize) -> Result<Vec<Write>, QueueError> {
        let newest =
            self.records.list(&self.name.key("ended/"), None, true, MAX_ENDED + most).await?;
        let old = newest.into_iter().skip(MAX_ENDED);
        Ok(old.map(|it| Write { key: it.key, expect: Expect::Anything, value: None }).collect())
    }

    /// The newest changes that have left, newest first. Of one that cannot be read `pass_by` hears its key and why.
    pub async fn ended(
        &self,
        limit: usize,
        pass_by: &(dyn Fn(&str, &QueueError) + Sync),
    ) -> Result<Vec<Ended>, QueueError> {
        let found =
            self.records.list(&self.name.key("ended/"), None, true, limit.min(MAX_ENDED)).await?;
        let mut ended = Vec::with_capacity(found.len());
        for it in &found {
            match decode(&it.key, &it.value) {
                Ok(change) => ended.push(change),
                Err(error) => pass_by(&it.key, &error),
            }
        }
        Ok(ended)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_out_of_no_directory() {
        for fine in ["app", "a.b", "A-1_x", "a..b"] {
            assert!(LaneName::new(fine).is_ok(), "{fine}");
        }
        for odd in ["", ".", "..", ".a", "a/b", "a b", &"a".repeat(61)] {
            assert!(LaneName::new(odd).is_err(), "{odd}");
        }
    }
}
