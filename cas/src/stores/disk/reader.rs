//! Reads of large blobs, checked against their digests when they are whole.

use std::collections::VecDeque;
use std::fs::File;
use std::io::IoSliceMut;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use rustix::io::{ReadWriteFlags, preadv2};
use tokio::task::JoinHandle;
use tokio::task::coop::consume_budget;

use super::contents::Contents;
use super::names::failed;
use crate::blob::BlobStream;
use crate::digest::{Digest, Hasher};
use crate::error::StoreError;
use crate::stores::group::blocking;

/// Bytes of one piece of a stream.
const CHUNK: u64 = 256 * 1024;
/// Buffers that a stream keeps for reuse.
const SPARE_BUFFERS: usize = 4;

struct Source {
    contents: Arc<Contents>,
    digest: Digest,
    file: File,
    /// `Some`: hash what is read, and compare at the end.
    hasher: Option<Hasher>,
}

impl Source {
    /// Opens the blob. Reads of all of it are checked, if a check is due.
    fn open(contents: &Arc<Contents>, digest: Digest, whole: bool) -> Result<Self, StoreError> {
        let file = contents.large.open_blob(&digest)?;
        let check = whole && contents.large.check_due(&digest, &file, contents.clock.now());
        let hasher = check.then(|| digest.function.hasher());
        Ok(Self { contents: contents.clone(), digest, file, hasher })
    }

    fn read(&mut self, buffer: &mut [u8], offset: u64) -> Result<(), StoreError> {
        match self.file.read_exact_at(buffer, offset) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                self.contents.large.drop_damaged(&self.digest);
                return Err(StoreError::NotFound(self.digest));
            }
            Err(error) => {
                return Err(failed("read", &self.contents.large.path(&self.digest), error));
            }
        }
        if let Some(hasher) = &mut self.hasher {
            hasher.update(buffer);
        }
        if offset + buffer.len() as u64 == self.digest.size {
            self.compare()?;
        }
        Ok(())
    }

    /// Fills the buffer where all of it is in the page cache, without waiting for the disk. `false`: something of it is not,
    /// or the file system cannot tell, or what is read is to be hashed as well.
    fn read_cached(&self, buffer: &mut [u8], offset: u64) -> bool {
        let size = buffer.len();
        let into = &mut [IoSliceMut::new(buffer)];
        self.hasher.is_none()
            && preadv2(&self.file, into, offset, ReadWriteFlags::NOWAIT) == Ok(size)
    }

    /// Reads all of the blob, if a check is due: whoever gets its bytes gets the right ones.
    fn check(&mut self) -> Result<(), StoreError> {
        if self.hasher.is_none() {
            return Ok(());
        }
        let mut buffer = vec![0; CHUNK as usize];
        let mut next = 0;
        while next < self.digest.size {
            let size = CHUNK.min(self.digest.size - next);
            self.read(&mut buffer[..size as usize], next)?;
            next += size;
        }
        Ok(())
    }

    /// Compares the digest at the end: the bytes were right, or the blob is dropped.
    fn compare(&mut self) -> Result<(), StoreError> {
        let Some(hasher) = self.hasher.take() else { return Ok(()) };
        if hasher.finish() != self.digest {
            self.contents.large.drop_damaged(&self.digest);
            return Err(StoreError::NotFound(self.digest));
        }
        self.contents.large.mark_checked(&self.digest, &self.file, self.contents.clock.now());
        Ok(())
    }
}

/// Reads a range that fits in memory.
pub async fn read_whole(
    contents: &Arc<Contents>,
    digest: Digest,
    range: Range<u64>,
) -> Result<Bytes, StoreError> {
    let contents = contents.clone();
    blocking(move || {
        let size = range.end - range.start;
        let mut source = Source::open(&contents, digest, size == digest.size)?;
        let mut buffer = vec![0; size as usize];
        source.read(&mut buffer, range.start)?;
        Ok(Bytes::from(buffer))
    })
    .await
}

/// Streams a range. What is in the page cache is copied where it is asked for: changing threads twice for a piece takes longer
/// than that. From the first piece on that is not, one is read by a thread of its own while the one before it is sent. A check
/// that is due comes before the first piece: of a damaged blob nothing is sent, and it can be had from elsewhere.
pub async fn stream(
    contents: &Arc<Contents>,
    digest: Digest,
    range: Range<u64>,
) -> Result<BlobStream, StoreError> {
    let (contents, whole) = (contents.clone(), range.end - range.start == digest.size);
    let open = move || {
        let mut source = Source::open(&contents, digest, whole)?;
        source.check()?;
        Ok(source)
    };
    let source = blocking(open).await?;
    let reading = Reading { source, spare: Spare::default(), next: range.start, end: range.end };
    let first = Box::new(reading).cached();
    Ok(Box::pin(futures_util::stream::unfold(first, |upcoming| async move {
        match upcoming?.piece().await {
            Ok((bytes, upcoming)) => Some((Ok(bytes), upcoming)),
            Err(error) => Some((Err(error), None)),
        }
    })))
}

/// A piece, and how far its stream has come with it.
type Read = (Bytes, Box<Reading>);

/// A piece that a stream was not asked for yet.
enum Upcoming {
    /// Those before it were in the page cache: so may this one be.
    Cached(Box<Reading>),
    /// A thread reads it.
    Ahead(JoinHandle<Result<Read, StoreError>>),
}

impl Upcoming {
    /// The piece, and the one after it.
    async fn piece(self) -> Result<(Bytes, Option<Self>), StoreError> {
        // Nothing else here waits while all is in the page cache, and whoever reads a large blob must leave others their turn.
        consume_budget().await;
        let ahead = match self {
            Self::Cached(reading) => match reading.read_cached() {
                Ok((bytes, reading)) => return Ok((bytes, reading.cached())),
                Err(reading) => reading.read(),
            },
            Self::Ahead(piece) => piece,
        };
        let read = ahead.await.map_err(|error| StoreError::failed("read a blob", error))?;
        let (bytes, reading) = read?;
        let upcoming = (!reading.is_done()).then(|| Self::Ahead(reading.read()));
        Ok((bytes, upcoming))
    }
}

/// How far a stream has come.
struct Reading {
    source: Source,
    spare: Spare,
    next: u64,
    end: u64,
}

impl Reading {
    fn is_done(&self) -> bool {
        self.next >= self.end
    }

    /// `None`: that was all.
    fn cached(self: Box<Self>) -> Option<Upcoming> {
        (!self.is_done()).then(|| Upcoming::Cached(self))
    }

    /// Bytes of the next piece.
    fn size(&self) -> usize {
        CHUNK.min(self.end - self.next) as usize
    }

    fn read_cached(self: Box<Self>) -> Result<Read, Box<Self>> {
        let mut buffer = self.spare.take();
        let size = self.size();
        match self.source.read_cached(&mut buffer[..size], self.next) {
            true => Ok(self.hand_on(buffer, size)),
            false => {
                self.spare.give(buffer);
                Err(self)
            }
        }
    }

    fn read(mut self: Box<Self>) -> JoinHandle<Result<Read, StoreError>> {
        tokio::task::spawn_blocking(move || {
            let mut buffer = self.spare.take();
            let size = self.size();
            self.source.read(&mut buffer[..size], self.next)?;
            Ok(self.hand_on(buffer, size))
        })
    }

    fn hand_on(mut self: Box<Self>, buffer: Vec<u8>, size: usize) -> Read {
        let bytes = Bytes::from_owner(Loan { spare: self.spare.clone(), buffer }).slice(..size);
        self.next += size as u64;
        (bytes, self)
    }
}

/// Buffers of a stream that come back when their bytes were sent: warm, and not cleared again.
#[derive(Clone, Default)]
struct Spare(Arc<Mutex<VecDeque<Vec<u8>>>>);

impl Spare {
    fn take(&self) -> Vec<u8> {
        let spare = self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_back();
        spare.unwrap_or_else(|| vec![0; CHUNK as usize])
    }

    fn give(&self, buffer: Vec<u8>) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < SPARE_BUFFERS {
            spare.push_back(buffer);
        }
    }
}

struct Loan {
    spare: Spare,
    buffer: Vec<u8>,
}

impl AsRef<[u8]> for Loan {
    fn as_ref(&self) -> &[u8] {
        &self.buffer
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        self.spare.give(std::mem::take(&mut self.buffer));
    }
}

/// Links the blob to `destination`, after a check if one is due. Blocks.
pub fn link(
    contents: &Arc<Contents>,
    digest: &Digest,
    destination: &Path,
) -> Result<bool, StoreError> {
    Source::open(contents, *digest, true)?.check()?;
    let path = contents.large.path(digest);
    match std::fs::hard_link(&path, destination) {
        Ok(()) => Ok(true),
        // Another file system, or the inode has no links left: the caller copies.
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::CrossesDevices | std::io::ErrorKind::TooManyLinks
            ) || error.raw_os_error() == Some(nix::libc::EPERM) =>
        {
            Ok(false)
        }
        Err(error) => Err(failed("link to", destination, error)),
    }
}
