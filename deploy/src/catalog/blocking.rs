//! The store, for what reads and writes step by step on a thread of its own.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kiln_cas::{BlobStream, Digest, DigestFunction, NamingWriter, SharedBlobStore, StoreError};
use tokio::runtime::Handle;

use super::behind::{Chunks, behind};
use crate::oci::{ContentDigest, Descriptor};

/// A store that is waited for.
#[derive(Clone)]
pub struct Blocking {
    pub blobs: SharedBlobStore,
    runtime: Handle,
}

/// The bytes of a blob, in order.
pub struct BlobReader {
    runtime: Handle,
    stream: BlobStream,
    current: Bytes,
}

impl Blocking {
    /// Must be called within a Tokio runtime.
    pub fn new(blobs: SharedBlobStore) -> Self {
        Self { blobs, runtime: Handle::current() }
    }

    pub fn open(&self, digest: &Digest) -> Result<BlobReader, StoreError> {
        let blob = self.runtime.block_on(self.blobs.read(digest, 0, None))?;
        let runtime = self.runtime.clone();
        Ok(BlobReader { runtime, stream: blob.into_stream(), current: Bytes::new() })
    }

    /// A whole blob of at most `limit` bytes.
    pub fn read(&self, digest: &Digest, limit: u64) -> Result<Bytes, StoreError> {
        let read = async { self.blobs.read(digest, 0, None).await?.collect(limit).await };
        self.runtime.block_on(read)
    }

    /// Stores bytes under their SHA-256.
    pub fn put(&self, media_type: &str, data: Vec<u8>) -> Result<Descriptor, StoreError> {
        let digest = DigestFunction::Sha256.digest(&data);
        let descriptor = Descriptor::of(media_type, &data);
        self.runtime.block_on(self.blobs.write(&digest, data.into()))?;
        Ok(descriptor)
    }

    /// Whether the blob is there, and promised from now on.
    pub fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.runtime.block_on(self.blobs.find_missing(&[*digest]))?.is_empty())
    }

    /// Stores what `write` writes, which is the same each time and at most `most` bytes. Where the store has to know the
    /// digest first, or has no room for what may be there already, it is measured, then written where the store lacks it:
    /// so nothing is kept twice, and nothing beside the store.
    pub fn put_written<E: From<StoreError>>(
        &self,
        media_type: &str,
        most: u64,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Descriptor, E> {
        let naming = self.blobs.naming_writer(DigestFunction::Sha256, most);
        let (digest, stored) = match self.runtime.block_on(naming)? {
            Some(writer) => behind(write, |chunks| self.name(writer, chunks))?,
            None => (behind(write, measure)?, false),
        };
        if !stored && !self.has(&digest)? {
            behind(write, |chunks| self.take(&digest, chunks))?;
        }
        Ok(Descriptor::new(media_type, content_digest(&digest), digest.size))
    }

    /// Writes a blob whose digest shows at its end.
    fn name(
        &self,
        mut writer: Box<dyn NamingWriter>,
        chunks: Chunks,
    ) -> Result<Option<(Digest, bool)>, StoreError> {
        match chunks.each(|chunk| self.runtime.block_on(writer.write(chunk)))? {
            true => self.runtime.block_on(writer.finish()).map(Some),
            false => Ok(None),
        }
    }

    /// Writes a blob of which the digest is known; nothing where it comes cut short.
    fn take(&self, digest: &Digest, chunks: Chunks) -> Result<Option<()>, StoreError> {
        let mut writer = self.runtime.block_on(self.blobs.writer(digest))?;
        match chunks.each(|chunk| self.runtime.block_on(writer.write(chunk)))? {
            true => self.runtime.block_on(writer.commit()).map(Some),
            false => Ok(None),
        }
    }

    /// Stores content under its SHA-256, whatever it is called by now.
    pub fn put_copy(&self, media_type: &str, from: &Digest) -> Result<Descriptor, StoreError> {
        if from.function == DigestFunction::Sha256 {
            return Ok(Descriptor::new(media_type, content_digest(from), from.size));
        }
        self.put_written(media_type, from.size, &mut |out| {
            let mut reader = self.open(from)?;
            io::copy(&mut reader, out).map(drop).map_err(|it| StoreError::io("copy a blob", it))
        })
    }
}

/// The digest of what comes; nothing where it comes cut short.
fn measure(chunks: Chunks) -> Result<Option<Digest>, StoreError> {
    let mut hasher = DigestFunction::Sha256.hasher();
    let whole = chunks.each(|chunk| {
        hasher.update(&chunk);
        Ok(())
    })?;
    Ok(whole.then(|| hasher.finish()))
}

/// The name that registries have for content that is kept by its SHA-256.
pub fn content_digest(digest: &Digest) -> ContentDigest {
    ContentDigest::sha256(digest.hash)
}

/// The name in the store.
pub fn stored(content: &Descriptor) -> Option<Digest> {
    Digest::from_hex(content.digest.hex().as_bytes(), content.size, DigestFunction::Sha256).ok()
}

impl Read for BlobReader {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        while self.current.is_empty() {
            match self.runtime.block_on(self.stream.next()) {
                None => return Ok(0),
                Some(chunk) => self.current = chunk.map_err(io::Error::other)?,
            }
        }
        let length = into.len().min(self.current.len());
        let read = self.current.split_to(length);
        into.get_mut(..length).unwrap_or_default().copy_from_slice(&read);
        Ok(length)
    }
}
