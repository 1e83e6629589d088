//! Records of executions in the server's records: how they are read.

use bytes::Bytes;
use kiln_cas::Digest;
use kiln_cas::records::{Record, RecordsError, SharedRecords};
use kiln_protos::executions::{Kept, Uses};
use prost::Message;
use zstd::bulk::{Compressor, Decompressor};

use super::keys::{self, RecordId};

/// Bytes of a record, decompressed.
const MAX_RECORD: usize = 16 << 20;
const LEVEL: i32 = 1;
/// Records that are read together.
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

/// Compresses one record after the other: what that takes in memory is set up once.
pub(super) struct Encoder(Option<Compressor<'static>>);

impl Default for Encoder {
    fn default() -> Self {
        Self(Compressor::new(LEVEL).ok())
    }
}

impl Encoder {
    pub fn encode(&mut self, kept: &Kept) -> Bytes {
        let plain = kept.encode_to_vec();
        // Nothing but a lack of memory fails; what is not compressed is told by its first byte.
        let compressed = self.0.as_mut().and_then(|it| it.compress(&plain).ok());
        compressed.unwrap_or(plain).into()
    }
}

/// Reads one record after the other.
#[derive(Default)]
struct Decoder(Option<Decompressor<'static>>);

impl Decoder {
    fn decode(&mut self, data: &[u8]) -> Option<Kept> {
        const MAGIC: &[u8] = &[0x28, 0xb5, 0x2f, 0xfd];
        if !data.starts_with(MAGIC) {
            return Kept::decode(data).ok();
        }
        // What is set aside is what the record says that it takes up, where it says so.
        let says = zstd::zstd_safe::get_frame_content_size(data).ok().flatten();
        let size = says.map_or(Some(MAX_RECORD), |it| usize::try_from(it).ok());
        let size = size.filter(|it| *it <= MAX_RECORD)?;
        if self.0.is_none() {
            self.0 = Decompressor::new().ok();
        }
        let plain = self.0.as_mut()?.decompress(data, size).ok()?;
        Kept::decode(plain.as_slice()).ok()
    }
}

pub(super) fn decode(data: &[u8]) -> Option<Kept> {
    Decoder::default().decode(data)
}

/// How many executions were not recorded, and when that was noticed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Loss {
    /// When executions were lost, in nanoseconds since the Unix epoch.
    pub at: i64,
    pub executions: u64,
}

impl ExecutionStore {
    pub fn new(records: SharedRecords) -> Self {
        Self { records }
    }

    /// A record by its id; `None`: it is not there, or it is no record.
    pub async fn get(&self, id: RecordId) -> Result<Option<Kept>, RecordsError> {
        let found = self.records.get(&keys::record(id)).await?;
        Ok(found.and_then(|it| decode(&it.value)))
    }

    /// Many records, in the order of their names.
    pub async fn get_each(&self, ids: &[RecordId]) -> Result<Vec<Option<Kept>>, RecordsError> {
        let keys: Vec<_> = ids.iter().map(|it| keys::record(*it)).collect();
        let found = self.records.get_each(&keys).await?;
        let mut decoder = Decoder::default();
        Ok(found.into_iter().map(|it| it.and_then(|it| decoder.decode(&it.value))).collect())
    }

    /// Records of executions in this instance that left each content.
    pub async fn makers_each(
        &self,
        instance: &str,
        contents: &[Digest],
    ) -> Result<Vec<Vec<RecordId>>, RecordsError> {
        let prefix = |it: &Digest| keys::makers(instance, &(it.function, it.hash));
        let prefixes: Vec<_> = contents.iter().map(prefix).collect();
        let found = self.records.list_each(&prefixes, MAX_MAKERS).await?;
        let ids = |of: Vec<Record>| of.iter().filter_map(|it| keys::maker(&it.key)).collect();
        Ok(found.into_iter().map(ids).collect())
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
