//! Records of executions in the server's records: how they are read.

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_cas::records::{RecordsError, SharedRecords};
use kiln_protos::executions::{Kept, Uses};
use prost::Message;

use super::keys::{self, RecordId};

/// Bytes of a record, decompressed.
const MAX_RECORD: usize = 16 << 20;
const LEVEL: i32 = 1;
/// Records read together.
const PAGE: usize = 500;
/// Records of one content that are looked at: which of them is meant is decided by what an invocation used.
const MAX_MAKERS: usize = 64;
/// Parts of one invocation: each is of half a second at most.
const MAX_PARTS: usize = 100_000;

/// Clones read the same records.
#[derive(Clone)]
pub struct ExecutionStore {
    records: SharedRecords,
}

pub(super) fn encode(kept: &Kept) -> Bytes {
    let plain = kept.encode_to_vec();
    // Nothing but a lack of memory fails; what is not compressed is told by its first byte.
    zstd::bulk::compress(&plain, LEVEL).unwrap_or(plain).into()
}

pub(super) fn decode(data: &[u8]) -> Option<Kept> {
    const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
    if !data.starts_with(MAGIC) {
        return Kept::decode(data).ok();
    }
    let plain = zstd::bulk::decompress(data, MAX_RECORD).ok()?;
    Kept::decode(plain.as_slice()).ok()
}

/// How many executions were not recorded, and when that was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// Nanoseconds since the Unix epoch.
    pub at: i64,
    pub executions: u64,
}

impl ExecutionStore {
    pub fn new(records: SharedRecords) -> Self {
        Self { records }
    }

    /// One record; `None`: it is not there, or it is no record.
    pub async fn get(&self, id: RecordId) -> Result<Option<Kept>, RecordsError> {
        let found = self.records.get(&keys::record(id)).await?;
        Ok(found.and_then(|it| decode(&it.value)))
    }

    /// Records of executions in this instance that left this content.
    pub async fn makers(
        &self,
        instance: &str,
        content: &Digest,
    ) -> Result<Vec<RecordId>, RecordsError> {
        let prefix = keys::makers(instance, &(content.function, content.hash));
        let found = self.records.list(&prefix, None, false, MAX_MAKERS).await?;
        Ok(found.iter().filter_map(|it| keys::maker(&it.key)).collect())
    }

    /// What an invocation used, part by part.
    pub async fn uses(
        &self,
        instance: &str,
        invocation: &str,
        each: &mut (dyn FnMut(Uses) + Send),
    ) -> Result<(), RecordsError> {
        let prefix = keys::parts(instance, invocation);
        let mut after = None::<String>;
        for _ in 0..MAX_PARTS / PAGE {
            let page = self.records.list(&prefix, after.as_deref(), false, PAGE).await?;
            for record in &page {
                if let Ok(uses) = Uses::decode(record.value.clone()) {
                    each(uses);
                }
            }
            let Some(last) = page.last().filter(|_| page.len() == PAGE) else { break };
            after = Some(last.key.clone());
        }
        Ok(())
    }

    /// Losses between two times, the first of them.
    pub async fn losses(&self, from: i64, to: i64) -> Result<Vec<Loss>, RecordsError> {
        let after = keys::lost(from.max(1) - 1, "");
        let found = self.records.list(keys::LOST, Some(&after), false, PAGE).await?;
        let losses = found.iter().filter_map(|it| {
            let at = it.key.strip_prefix(keys::LOST)?.split('/').next()?;
            let at = i64::from_str_radix(at, 16).ok()?;
            let executions = std::str::from_utf8(&it.value).ok()?.parse().ok()?;
            Some(Loss { at, executions })
        });
        Ok(losses.filter(|it| it.at <= to).collect())
    }
}
