//! Reads and writes of whoever decides. Each write expects that it still does.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_net::lease::Fence;
use lru::LruCache;
use serde::de::DeserializeOwned;

use super::builds::BuildRecord;
use super::census::Census;
use super::error::VerdictError;
use super::evidence::TestEvidence;
use super::keys;
use super::mind::CaseRecord;
use crate::flakes::Case;
use crate::model::{TestKey, Time};
use crate::storage::{Expect, MAX_VALUE, Records, Write};

/// The time without a write of whoever decides after which another server does.
pub const TERM: Duration = Duration::from_secs(60);
/// Tests whose evidence is at hand.
const CACHED: usize = 2_048;
/// Records that are read at once.
const PAGE: usize = 200;

pub struct Store {
    records: Arc<dyn Records>,
    /// What nobody else changes while this one decides.
    tests: LruCache<TestKey, TestEvidence>,
    claim: Bytes,
    resignation: Bytes,
    version: u64,
}

impl Store {
    /// `fence` of the lease on [`keys::LEADER`].
    pub fn new(records: Arc<dyn Records>, fence: Fence) -> Self {
        let room = NonZeroUsize::new(CACHED).unwrap_or(NonZeroUsize::MIN);
        let Fence { version, claim, resignation } = fence;
        let (claim, resignation) = (claim.into(), resignation.into());
        Self { records, tests: LruCache::new(room), claim, resignation, version }
    }

    /// The write by which another server may decide at once.
    pub fn resignation(&self) -> Write {
        Write { value: Some(self.resignation.clone()), ..self.fence() }
    }

    /// Goes into each write: it fails where another one decides by now.
    pub fn fence(&self) -> Write {
        Write {
            key: keys::LEADER.to_owned(),
            expect: Expect::Version(self.version),
            value: Some(self.claim.clone()),
        }
    }

    /// Has to be called after each write with a fence that is made elsewhere.
    pub async fn fenced(&mut self) -> Result<(), VerdictError> {
        let record = self.records.get(keys::LEADER).await?;
        let own = record.filter(|it| it.value == self.claim);
        self.version = own.map(|it| it.version).ok_or_else(another)?;
        Ok(())
    }

    pub async fn write(&mut self, mut writes: Vec<Write>) -> Result<(), VerdictError> {
        writes.push(self.fence());
        let versions = self.records.apply(writes).await?;
        self.version = versions.last().copied().ok_or_else(another)?;
        Ok(())
    }

    /// The evidence about a test, and whether it was there.
    pub async fn test(&mut self, test: &TestKey) -> Result<(TestEvidence, bool), VerdictError> {
        if let Some(known) = self.tests.get(test) {
            return Ok((known.clone(), true));
        }
        let kept: Option<TestEvidence> = read(&*self.records, &keys::test(test)).await?;
        let is_known = kept.is_some();
        Ok((kept.unwrap_or_else(|| TestEvidence::new(test.clone())), is_known))
    }

    /// The write by which a test is kept, until the next window in which it runs.
    pub fn keep_test(&mut self, mut evidence: TestEvidence) -> Result<Write, VerdictError> {
        let mut value = keys::encode_quickly(&evidence)?;
        // Nearly all fit as they are, and need not be encoded to be measured.
        if value.len() > MAX_VALUE {
            evidence.fit(MAX_VALUE, |it| keys::encode_quickly(it).map_or(0, |it| it.len()));
            value = keys::encode_quickly(&evidence)?;
        }
        let key = keys::test(&evidence.test);
        self.tests.put(evidence.test.clone(), evidence);
        Ok(Write { key, expect: Expect::Anything, value: Some(value) })
    }

    pub async fn build(
        &self,
        instance: &str,
        invocation: &str,
    ) -> Result<Option<BuildRecord>, VerdictError> {
        read(&*self.records, &keys::build(instance, invocation)).await
    }

    pub async fn document<T: DeserializeOwned>(
        &self,
        key: &str,
    ) -> Result<Option<T>, VerdictError> {
        read(&*self.records, key).await
    }

    /// Cases that began since, at most so many.
    pub async fn cases(&self, since: Time, most: usize) -> Result<Vec<Case>, VerdictError> {
        let mut cases = Vec::new();
        let mut after: Option<String> = None;
        while cases.len() < most {
            let page = self.records.list(keys::CASES, after.as_deref(), false, PAGE).await?;
            let Some(last) = page.last() else { break };
            after = Some(last.key.clone());
            let read = |it: &crate::storage::Record| keys::decode::<CaseRecord>(&it.value).ok();
            let recent = page.iter().filter_map(read).filter(|it| it.at >= since);
            cases.extend(recent.map(|it| it.case));
        }
        cases.truncate(most);
        Ok(cases)
    }

    /// How many tests each instance has. It reads all of them.
    pub async fn count(&self) -> Result<Census, VerdictError> {
        let mut census = Census::default();
        let mut after: Option<String> = None;
        loop {
            let page = self.page(keys::TESTS, after.as_deref()).await?;
            for record in &page {
                if let Ok(evidence) = keys::decode::<TestEvidence>(&record.value) {
                    census.add(&evidence.test.instance);
                }
            }
            match page.into_iter().last() {
                Some(last) => after = Some(last.key),
                None => return Ok(census),
            }
        }
    }

    /// The next records with this prefix, after one of them.
    pub async fn page(
        &self,
        prefix: &str,
        after: Option<&str>,
    ) -> Result<Vec<crate::storage::Record>, VerdictError> {
        Ok(self.records.list(prefix, after, false, PAGE).await?)
    }
}

fn another() -> VerdictError {
    VerdictError::Storage(crate::storage::StorageError::Conflict(keys::LEADER.to_owned()))
}

/// A document; nothing where there is none.
pub async fn read<T: DeserializeOwned>(
    records: &dyn Records,
    key: &str,
) -> Result<Option<T>, VerdictError> {
    let Some(record) = records.get(key).await? else { return Ok(None) };
    let document = keys::decode(&record.value);
    document.map(Some).map_err(|source| VerdictError::Damaged { key: key.to_owned(), source })
}

pub fn put<T: serde::Serialize>(key: String, document: &T) -> Result<Write, VerdictError> {
    Ok(Write { key, expect: Expect::Anything, value: Some(keys::encode(document)?) })
}

pub fn delete(key: String) -> Write {
    Write { key, expect: Expect::Anything, value: None }
}
