//! Blobs that arrive in pieces.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use tokio::task::JoinHandle;

use super::contents::Contents;
use super::large::Temporary;
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::capacity::Reservation;
use crate::stores::group::blocking;

/// Bytes gathered before they go to the file in one piece of blocking work. At most twice as
/// many are held: one batch is gathered while another is written.
const BATCH: usize = 1 << 20;

/// Gathers a blob for the log.
pub struct SmallWriter {
    contents: Arc<Contents>,
    digest: Digest,
    /// The first piece is kept as it came: most small blobs have only one.
    first: Bytes,
    gathered: BytesMut,
}

impl SmallWriter {
    pub fn new(contents: Arc<Contents>, digest: Digest) -> Self {
        Self { contents, digest, first: Bytes::new(), gathered: BytesMut::new() }
    }

    fn received(&self) -> usize {
        if self.gathered.is_empty() { self.first.len() } else { self.gathered.len() }
    }
}

fn mismatch(digest: &Digest, actual: u64) -> StoreError {
    StoreError::SizeMismatch { expected: *digest, actual }
}

#[async_trait]
impl BlobWriter for SmallWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let total = (self.received() + data.len()) as u64;
        if total > self.digest.size {
            return Err(mismatch(&self.digest, total));
        }
        if self.received() == 0 {
            self.first = data;
            return Ok(());
        }
        if self.gathered.is_empty() {
            self.gathered.reserve(self.digest.size as usize);
            self.gathered.extend_from_slice(&self.first);
        }
        self.gathered.extend_from_slice(&data);
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        if self.received() as u64 != self.digest.size {
            return Err(mismatch(&self.digest, self.received() as u64));
        }
        let data = if self.gathered.is_empty() { &self.first[..] } else { &self.gathered[..] };
        self.contents.put_small(&self.digest, data).await
    }
}

/// Writes a file next to the receipt of its bytes, and sets room aside as they come.
pub struct LargeWriter {
    contents: Arc<Contents>,
    digest: Digest,
    reservation: Reservation,
    received: u64,
    batch: Vec<Bytes>,
    batched: usize,
    file: FileState,
}

enum FileState {
    NotCreated,
    Writing(JoinHandle<Result<Temporary, StoreError>>),
    Failed(StoreError),
}

impl LargeWriter {
    pub fn new(contents: Arc<Contents>, digest: Digest, reservation: Reservation) -> Self {
        let (batch, file) = (Vec::new(), FileState::NotCreated);
        Self { contents, digest, reservation, received: 0, batch, batched: 0, file }
    }

    /// Makes room for `received` bytes, and some ahead of those that come next.
    async fn set_aside(&mut self, received: u64) -> Result<(), StoreError> {
        let held = self.reservation.bytes();
        if received <= held {
            return Ok(());
        }
        let missing = (received - held).max(BATCH as u64).min(self.digest.size - held);
        let more = self.contents.reserve(missing).await?;
        self.reservation.absorb(more);
        Ok(())
    }

    /// The file, once what was handed to it before is written. `None`: it is not created yet.
    async fn settled(&mut self) -> Result<Option<Temporary>, StoreError> {
        let result = match &mut self.file {
            FileState::NotCreated => return Ok(None),
            FileState::Failed(error) => return Err(error.clone()),
            FileState::Writing(task) => {
                task.await.unwrap_or_else(|error| Err(StoreError::failed("write a blob", error)))
            }
        };
        self.file = match &result {
            Ok(_) => FileState::NotCreated,
            Err(error) => {
                self.contents.relieve_if_full(error);
                FileState::Failed(error.clone())
            }
        };
        result.map(Some)
    }

    /// Begins to write the batch.
    async fn flush(&mut self) -> Result<(), StoreError> {
        let file = self.settled().await?;
        let (contents, size) = (self.contents.clone(), self.digest.size);
        let batch = std::mem::take(&mut self.batch);
        self.batched = 0;
        let task = tokio::task::spawn_blocking(move || append(&contents, size, file, &batch));
        self.file = FileState::Writing(task);
        Ok(())
    }
}

/// Creates the file if need be and appends `batch`.
fn append(
    contents: &Contents,
    size: u64,
    file: Option<Temporary>,
    batch: &[Bytes],
) -> Result<Temporary, StoreError> {
    let mut file = match file {
        Some(file) => file,
        None => contents.large.temporary(size)?,
    };
    file.file.append(batch).map_err(|error| StoreError::io("write a blob", error))?;
    Ok(file)
}

#[async_trait]
impl BlobWriter for LargeWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let received = self.received + data.len() as u64;
        if received > self.digest.size {
            return Err(mismatch(&self.digest, received));
        }
        self.set_aside(received).await?;
        self.received = received;
        self.batched += data.len();
        self.batch.push(data);
        if self.batched >= BATCH {
            self.flush().await?;
        }
        Ok(())
    }

    async fn commit(mut self: Box<Self>) -> Result<(), StoreError> {
        if self.received != self.digest.size {
            return Err(mismatch(&self.digest, self.received));
        }
        let file = self.settled().await?;
        let Self { contents, digest, reservation, batch, .. } = *self;
        let store = contents.clone();
        // Of this task: the thread that writes works for nobody.
        let promised = contents.promised_now();
        let published = blocking(move || {
            let file = append(&store, digest.size, file, &batch)?;
            store.large.publish(&digest, file, promised)?;
            drop(reservation);
            Ok(())
        })
        .await;
        published.inspect_err(|error| contents.relieve_if_full(error))
    }
}
