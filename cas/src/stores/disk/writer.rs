//! Blobs that arrive in pieces.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};

use super::contents::Contents;
use super::large::Temporary;
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::capacity::Reservation;
use crate::stores::group::blocking;
use crate::stores::stage::{Stage, Task};

const WRITING: &str = "write a blob";
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

/// A large blob on its way: a file that is written next to the receipt of its bytes, and room that is set aside as they
/// come.
pub struct LargeFile {
    contents: Arc<Contents>,
    /// Bytes that it may have.
    most: u64,
    reservation: Reservation,
    received: u64,
    writing: Stage<Unfinished>,
}

impl LargeFile {
    /// A file for at most so many bytes. Errors: `TooLarge` when they could never fit.
    pub fn begin(contents: Arc<Contents>, most: u64) -> Result<Self, StoreError> {
        let reservation = contents.capacity.begin(most)?;
        let unfinished = Unfinished { contents: contents.clone(), size: most, file: None };
        let task = Task { name: WRITING, batch: BATCH, work: Unfinished::append };
        let writing = Stage::new(unfinished, task);
        Ok(Self { contents, most, reservation, received: 0, writing })
    }

    /// Makes room for `received` bytes, and some ahead of those that come next.
    async fn set_aside(&mut self, received: u64) -> Result<(), StoreError> {
        let held = self.reservation.bytes();
        if received <= held {
            return Ok(());
        }
        let missing = (received - held).max(BATCH as u64).min(self.most - held);
        let more = self.contents.reserve(missing).await?;
        self.reservation.absorb(more);
        Ok(())
    }

    /// Appends. The caller sees to it that no more than `most` bytes come.
    pub async fn push(&mut self, data: Bytes) -> Result<(), StoreError> {
        let received = self.received + data.len() as u64;
        self.set_aside(received).await?;
        self.received = received;
        let pushed = self.writing.push(data).await;
        pushed.inspect_err(|error| self.contents.relieve_if_full(error))
    }

    /// Writes what is left to write, and makes the blob visible under the digest of what came.
    pub async fn publish(self, digest: Digest) -> Result<(), StoreError> {
        let Self { contents, reservation, writing, .. } = self;
        let published = publish(writing, digest, reservation).await;
        published.inspect_err(|error| contents.relieve_if_full(error))
    }
}

/// A large blob of a digest that is known.
pub struct LargeWriter {
    digest: Digest,
    file: LargeFile,
}

impl LargeWriter {
    pub fn begin(contents: Arc<Contents>, digest: Digest) -> Result<Self, StoreError> {
        Ok(Self { digest, file: LargeFile::begin(contents, digest.size)? })
    }
}

/// The file of a blob that is still arriving.
struct Unfinished {
    contents: Arc<Contents>,
    /// Bytes that the whole blob may have.
    size: u64,
    /// `None`: nothing was written yet.
    file: Option<Temporary>,
}

impl Unfinished {
    /// The file, which is created if need be. Blocks.
    fn take(&mut self) -> Result<Temporary, StoreError> {
        match self.file.take() {
            Some(file) => Ok(file),
            None => self.contents.large.temporary(self.size),
        }
    }

    /// Blocks.
    fn append(&mut self, pieces: &[Bytes]) -> Result<(), StoreError> {
        let file = self.take()?;
        let appender = &mut self.file.insert(file).file;
        appender.append(pieces).map_err(|error| StoreError::io(WRITING, error))
    }
}

/// Writes what is left to write, and makes the blob visible.
async fn publish(
    writing: Stage<Unfinished>,
    digest: Digest,
    reservation: Reservation,
) -> Result<(), StoreError> {
    let (mut unfinished, rest) = writing.end().await?;
    // Of this task: the thread that writes works for nobody.
    let promised = unfinished.contents.promised_now();
    blocking(move || {
        unfinished.append(&rest)?;
        let file = unfinished.take()?;
        unfinished.contents.large.publish(&digest, file, promised)?;
        drop(reservation);
        Ok(())
    })
    .await
}

#[async_trait]
impl BlobWriter for LargeWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        let received = self.file.received + data.len() as u64;
        if received > self.digest.size {
            return Err(mismatch(&self.digest, received));
        }
        self.file.push(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        if self.file.received != self.digest.size {
            return Err(mismatch(&self.digest, self.file.received));
        }
        self.file.publish(self.digest).await
    }
}
