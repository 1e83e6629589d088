//! The store, for what reads and writes step by step on a thread of its own.

use std::io::{self, Read, Write};

use bytes::Bytes;
use futures_util::StreamExt as _;
use kiln_cas::{
    BlobStream, BlobWriter, Digest, DigestFunction, Hasher, SharedBlobStore, StoreError,
};
use tokio::runtime::Handle;

use crate::oci::{ContentDigest, Descriptor};

/// Bytes that are handed to the store at once.
const CHUNK: usize = 256 << 10;

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

/// Writes a blob of which the digest is known.
struct BlobSink {
    runtime: Handle,
    writer: Box<dyn BlobWriter>,
    chunk: Vec<u8>,
}

/// Counts and hashes what is written.
struct Measure(Hasher);

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

    /// Whether it is there, and promised from now on.
    pub fn has(&self, digest: &Digest) -> Result<bool, StoreError> {
        Ok(self.runtime.block_on(self.blobs.find_missing(&[*digest]))?.is_empty())
    }

    /// Stores what `write` writes, which is the same each time: first it is measured, then written where the store lacks it.
    /// So nothing is kept twice, and nothing beside the store.
    pub fn put_written<E: From<StoreError>>(
        &self,
        media_type: &str,
        write: &mut dyn FnMut(&mut dyn Write) -> Result<(), E>,
    ) -> Result<Descriptor, E> {
        let mut measure = Measure(DigestFunction::Sha256.hasher());
        write(&mut measure)?;
        let digest = measure.0.finish();
        if !self.has(&digest)? {
            let writer = self.runtime.block_on(self.blobs.writer(&digest))?;
            let chunk = Vec::with_capacity(CHUNK);
            let mut sink = BlobSink { runtime: self.runtime.clone(), writer, chunk };
            write(&mut sink)?;
            sink.hand_on()?;
            self.runtime.block_on(sink.writer.commit())?;
        }
        Ok(Descriptor::new(media_type, content_digest(&digest), digest.size))
    }

    /// Stores content under its SHA-256, whatever it is called by now.
    pub fn put_copy(&self, media_type: &str, from: &Digest) -> Result<Descriptor, StoreError> {
        if from.function == DigestFunction::Sha256 {
            return Ok(Descriptor::new(media_type, content_digest(from), from.size));
        }
        self.put_written(media_type, &mut |out| {
            let mut reader = self.open(from)?;
            io::copy(&mut reader, out).map(drop).map_err(|it| StoreError::io("copy a blob", it))
        })
    }
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

impl BlobSink {
    fn hand_on(&mut self) -> Result<(), StoreError> {
        let chunk = std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK));
        match chunk.is_empty() {
            true => Ok(()),
            false => self.runtime.block_on(self.writer.write(chunk.into())),
        }
    }
}

impl Write for BlobSink {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.chunk.extend_from_slice(data);
        if self.chunk.len() >= CHUNK {
            self.hand_on().map_err(io::Error::other)?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Measure {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.0.update(data);
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
