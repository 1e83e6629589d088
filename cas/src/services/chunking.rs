//! Blobs as chunks that FastCDC 2020 cuts by content, so that two versions of a large file
//! share most of them (REAPI: SplitBlob and SpliceBlob, from 2.13 on GetChunkMapping and
//! RegisterChunkMapping).

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use fastcdc::v2020::{FastCDC, Normalization};
use futures_util::StreamExt;
use kiln_protos::reapi::{self, chunking_function};
use tonic::Status;

use super::rpc::add;
use super::status::{records_status, store_status};
use crate::blob::{MAX_WHOLE_BLOB, SharedBlobStore};
use crate::budget::Charge;
use crate::counted::ENTRY_BYTES;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::records::{Expect, MAX_VALUE, Record, SharedRecords, Write};

/// Average chunk in bytes: the value that the specification recommends. A quarter of it is the
/// smallest, four times it the largest chunk.
pub const AVERAGE_CHUNK: usize = 512 << 10;
const MIN_CHUNK: usize = AVERAGE_CHUNK / 4;
const MAX_CHUNK: usize = AVERAGE_CHUNK * 4;
/// Most chunks of one blob (half a TiB of average chunks).
pub const MAX_CHUNKS: usize = 1 << 20;
/// Digests in one message of a stream.
const PAGE: usize = 10_000;
/// Most digests in a unary answer: the message stays below 4 MiB.
const MAX_UNARY: usize = 40_000;
/// Bytes that cutting a blob holds: what waits to be cut, and a chunk that is being stored.
const CUTTING: u64 = 2 * MAX_CHUNK as u64;
/// Bytes of a chunk in a stored mapping: hash and size.
const STORED_CHUNK: usize = 40;

/// The chunks of one blob in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mapping {
    pub chunks: Vec<Digest>,
    /// `ChunkingFunction.Value`
    pub function: i32,
}

/// Splits and splices blobs, and keeps the mappings from blobs to chunks as records.
pub struct Chunking {
    pub blobs: SharedBlobStore,
    pub records: SharedRecords,
    /// Whether blobs that nobody has cut yet may be.
    pub may_store: bool,
}

impl Chunking {
    pub fn check_count(count: usize) -> Result<(), Status> {
        if count <= MAX_CHUNKS {
            return Ok(());
        }
        Err(Status::invalid_argument(format!(
            "chunk_digests: more than {MAX_CHUNKS} chunks; use larger ones"
        )))
    }

    /// The chunks of `blob`, all of them stored. `charge` is for what cutting and the mapping hold.
    /// Errors: `NOT_FOUND` without the blob; `PERMISSION_DENIED` where it would have to be cut first
    /// and may not be.
    pub async fn split(&self, blob: &Digest, charge: &mut Charge) -> Result<Mapping, Status> {
        let refuse = |error| store_status("blob_digest", &error);
        if blob.is_empty_blob() {
            return Ok(Mapping::fast_cdc(Vec::new()));
        }
        // Asking also extends the blob's lifetime, which the call promises.
        if !self.blobs.find_missing(&[*blob]).await.map_err(refuse)?.is_empty() {
            return Err(refuse(StoreError::NotFound(*blob)));
        }
        if let Some(mapping) = self.known(blob).await? {
            add(charge, mapping.memory()).await?;
            return Ok(mapping);
        }
        if !self.may_store {
            return Err(Status::permission_denied(
                "blob_digest: nobody has split the blob yet, and to do so stores its chunks: that \
                 needs a role that may upload blobs",
            ));
        }
        add(charge, blob.size.min(CUTTING)).await?;
        let mapping = Mapping::fast_cdc(self.cut(blob).await.map_err(refuse)?);
        add(charge, mapping.memory()).await?;
        self.remember(blob, &mapping).await?;
        Ok(mapping)
    }

    /// A remembered mapping whose chunks are all still there.
    async fn known(&self, blob: &Digest) -> Result<Option<Mapping>, Status> {
        let record = self.records.get(&key(blob)).await;
        let Some(record) = record.map_err(|e| records_status("chunk mapping", &e))? else {
            return Ok(None);
        };
        let Some(mapping) = Mapping::from_stored(&record.value, blob.function) else {
            return Ok(None);
        };
        let missing = self.blobs.find_missing(&mapping.chunks).await;
        let missing = missing.map_err(|error| store_status("blob_digest", &error))?;
        Ok(missing.is_empty().then_some(mapping))
    }

    async fn remember(&self, blob: &Digest, mapping: &Mapping) -> Result<(), Status> {
        let value = mapping.to_stored();
        if value.len() > MAX_VALUE {
            // Very large: it is cut anew when asked for.
            return Ok(());
        }
        let write = Write { key: key(blob), expect: Expect::Anything, value: Some(value.into()) };
        let written = self.records.write(vec![write]).await;
        written.map(drop).map_err(|error| records_status("chunk mapping", &error))
    }

    /// Cuts the blob and stores each chunk.
    async fn cut(&self, blob: &Digest) -> Result<Vec<Digest>, StoreError> {
        let mut source = self.blobs.read(blob, 0, None).await?.into_stream();
        let mut buffer = BytesMut::new();
        let mut chunks = Vec::new();
        while let Some(data) = source.next().await {
            buffer.extend_from_slice(&data?);
            while buffer.len() >= MAX_CHUNK {
                let length = first_chunk(&buffer);
                chunks.push(self.store(buffer.split_to(length).freeze(), blob.function).await?);
            }
        }
        while !buffer.is_empty() {
            let length = first_chunk(&buffer);
            chunks.push(self.store(buffer.split_to(length).freeze(), blob.function).await?);
        }
        Ok(chunks)
    }

    async fn store(&self, chunk: Bytes, function: DigestFunction) -> Result<Digest, StoreError> {
        let digest = function.digest(&chunk);
        self.blobs.write(&digest, chunk).await?;
        Ok(digest)
    }

    /// Makes `blob` out of `chunks`. It becomes visible only if its digest is right.
    pub async fn splice(
        &self,
        blob: &Digest,
        chunks: Vec<Digest>,
        function: i32,
        charge: &mut Charge,
    ) -> Result<(), Status> {
        Self::check_count(chunks.len())?;
        // One chunk is read while the one before it is written.
        add(charge, blob.size.min(2 * MAX_WHOLE_BLOB)).await?;
        let refuse = |error| store_status("blob_digest", &error);
        if self.blobs.find_missing(&[*blob]).await.map_err(refuse)?.is_empty() {
            return Ok(());
        }
        let total = chunks.iter().map(|chunk| chunk.size).fold(0, u64::saturating_add);
        if total != blob.size {
            return Err(Status::invalid_argument(format!(
                "chunk_digests: the chunks come to {total} bytes, blob_digest says {}",
                blob.size
            )));
        }
        self.check_present(&chunks).await?;
        self.join(blob, &chunks).await?;
        self.remember(blob, &Mapping { chunks, function }).await
    }

    async fn check_present(&self, chunks: &[Digest]) -> Result<(), Status> {
        let distinct: HashSet<Digest> = chunks.iter().copied().collect();
        let distinct: Vec<Digest> = distinct.into_iter().collect();
        let missing = self.blobs.find_missing(&distinct).await;
        let missing = missing.map_err(|error| store_status("chunk_digests", &error))?;
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(Status::not_found(format!(
                "chunk_digests: {} of them are not in the store, among them {first}; \
                 upload the chunks first",
                missing.len()
            ))),
        }
    }

    async fn join(&self, blob: &Digest, chunks: &[Digest]) -> Result<(), Status> {
        let refuse = |error| store_status("blob_digest", &error);
        let mut writer = self.blobs.writer(blob).await.map_err(refuse)?;
        for (i, chunk) in chunks.iter().enumerate() {
            let field = || format!("chunk_digests[{i}]");
            let read = self.blobs.read(chunk, 0, None).await;
            let mut source = read.map_err(|e| store_status(&field(), &e))?.into_stream();
            while let Some(data) = source.next().await {
                let data = data.map_err(|e| store_status(&field(), &e))?;
                writer.write(data).await.map_err(refuse)?;
            }
        }
        writer.commit().await.map_err(refuse)
    }
}

/// Length of the first chunk of `data`, which is [`MAX_CHUNK`] bytes or all that is left.
fn first_chunk(data: &[u8]) -> usize {
    FastCDC::with_level(data, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK, Normalization::Level2)
        .cut(0, data.len())
        .1
}

/// What the keys of remembered mappings begin with.
pub const MAPPINGS: &str = "chunks/";

fn key(blob: &Digest) -> String {
    format!("{MAPPINGS}{}/{}/{}", blob.function, blob.hex(), blob.size)
}

/// The blob that a mapping is of.
pub fn owner(record: &Record) -> Option<Digest> {
    let mut parts = record.key.strip_prefix(MAPPINGS)?.split('/');
    let function = parts.next()?;
    let function = DigestFunction::ALL.into_iter().find(|known| known.to_string() == function)?;
    let hash = parts.next()?;
    Digest::from_hex(hash.as_bytes(), parts.next()?.parse().ok()?, function).ok()
}

#[cfg(test)]
pub fn remembered(blob: &Digest, chunks: &[Digest]) -> (String, Vec<u8>) {
    (key(blob), Mapping::fast_cdc(chunks.to_vec()).to_stored())
}

impl Mapping {
    fn fast_cdc(chunks: Vec<Digest>) -> Self {
        Self { chunks, function: chunking_function::Value::FastCdc2020.into() }
    }

    /// Bytes that the mapping takes in memory and in an answer.
    fn memory(&self) -> u64 {
        self.chunks.len() as u64 * ENTRY_BYTES
    }

    fn to_stored(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(4 + self.chunks.len() * STORED_CHUNK);
        value.extend(self.function.to_le_bytes());
        for chunk in &self.chunks {
            value.extend(chunk.hash);
            value.extend(chunk.size.to_le_bytes());
        }
        value
    }

    fn from_stored(value: &[u8], function: DigestFunction) -> Option<Self> {
        let (number, chunks) = value.split_first_chunk::<4>()?;
        let chunk = |stored: &[u8]| {
            let (hash, size) = stored.split_first_chunk::<32>()?;
            let size = u64::from_le_bytes(size.try_into().ok()?);
            Some(Digest { hash: *hash, size, function })
        };
        let chunks: Option<Vec<_>> = chunks.chunks(STORED_CHUNK).map(chunk).collect();
        Some(Self { chunks: chunks?, function: i32::from_le_bytes(*number) })
    }

    pub fn into_split_response(self) -> Result<reapi::SplitBlobResponse, Status> {
        if self.chunks.len() > MAX_UNARY {
            return Err(Status::resource_exhausted(format!(
                "blob_digest: {} chunks do not fit into one message; use GetChunkMapping",
                self.chunks.len()
            )));
        }
        Ok(reapi::SplitBlobResponse {
            chunk_digests: self.chunks.iter().map(Digest::to_wire).collect(),
            chunking_function: self.function,
        })
    }

    /// Splits the mapping into pages; there is at least one, so that the function is always said.
    pub fn into_pages(self) -> impl Iterator<Item = reapi::GetChunkMappingResponse> + Send {
        let pages = self.chunks.len().div_ceil(PAGE).max(1);
        (0..pages).map(move |i| {
            let end = self.chunks.len().min((i + 1) * PAGE);
            reapi::GetChunkMappingResponse {
                chunk_digests: self.chunks[i * PAGE..end].iter().map(Digest::to_wire).collect(),
                chunking_function: if i == 0 { self.function } else { 0 },
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use http::Extensions;
    use proptest::prelude::*;

    use super::*;
    use crate::budget::{Budget, MIN_BUDGET};
    use crate::stores::{MemoryBlobStore, MemoryRecords};

    #[test]
    fn cutting_piece_by_piece_is_cutting_the_whole() {
        let mut state = 1_u64;
        let data: Vec<u8> = (0..9 << 20)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        let whole: Vec<usize> =
            FastCDC::with_level(&data, MIN_CHUNK, AVERAGE_CHUNK, MAX_CHUNK, Normalization::Level2)
                .map(|chunk| chunk.length)
                .collect();
        let (mut pieces, mut rest) = (Vec::new(), data.as_slice());
        while !rest.is_empty() {
            let length = first_chunk(&rest[..rest.len().min(MAX_CHUNK)]);
            pieces.push(length);
            rest = &rest[length..];
        }
        assert_eq!(pieces, whole);
        assert!(pieces.len() > 4, "{pieces:?}");
    }

    #[tokio::test]
    async fn what_cutting_holds_is_charged_to_the_request() {
        let budget = Budget::new(MIN_BUDGET);
        let mut caller = Extensions::new();
        caller.insert(budget.share(None));
        let data = Bytes::from(vec![7; 5 << 20]);
        let blob = DigestFunction::Sha256.digest(&data);
        let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        blobs.write(&blob, data).await.unwrap();
        let records: SharedRecords = Arc::new(MemoryRecords::default());
        let chunking = Chunking { blobs, records, may_store: true };
        let mut charge = Charge::of(&caller);
        let cut = chunking.split(&blob, &mut charge).await.unwrap();
        assert!(budget.snapshot().used_bytes >= CUTTING + cut.memory());
        drop(charge);
        let mut charge = Charge::of(&caller);
        assert_eq!(chunking.split(&blob, &mut charge).await.unwrap(), cut);
        let known = budget.snapshot().used_bytes;
        assert!(known < CUTTING, "{known} bytes are charged for a mapping that is known");
    }

    proptest! {
        #[test]
        fn stored_mappings_round_trip(hashes: Vec<([u8; 32], u64)>, function: i32) {
            let chunks = hashes
                .into_iter()
                .map(|(hash, size)| Digest { hash, size, function: DigestFunction::Blake3 })
                .collect();
            let mapping = Mapping { chunks, function };
            let stored = mapping.to_stored();
            prop_assert_eq!(Mapping::from_stored(&stored, DigestFunction::Blake3), Some(mapping));
        }

        #[test]
        fn damaged_mappings_never_panic(data: Vec<u8>) {
            let _ = Mapping::from_stored(&data, DigestFunction::Sha256);
        }
    }
}
