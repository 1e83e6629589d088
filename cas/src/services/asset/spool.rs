//! Content whose digest is not known yet: it lies in a nameless file, and all such files together
//! take no more than there is room for.

use std::io::SeekFrom;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use tokio::fs::File;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};

use crate::blob::SharedBlobStore;
use crate::digest::{Digest, DigestFunction, Hasher};
use crate::error::StoreError;

/// Bytes moved at a time into the store.
const CHUNK: usize = 1 << 20;

/// What files under way may take together, in bytes.
#[derive(Debug)]
pub struct Room {
    limit: u64,
    used: AtomicU64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("downloads under way take all the room that they have ({limit} bytes, fetch.max_size)")]
pub struct NoRoom {
    limit: u64,
}

impl Room {
    pub fn new(limit: u64) -> Self {
        Self { limit, used: AtomicU64::new(0) }
    }

    fn take(&self, bytes: u64) -> Result<(), NoRoom> {
        let more = |used: u64| used.checked_add(bytes).filter(|used| *used <= self.limit);
        let order = Ordering::Relaxed;
        self.used
            .fetch_update(order, order, more)
            .map(drop)
            .map_err(|_| NoRoom { limit: self.limit })
    }
}

pub struct Spool {
    file: File,
    hasher: Hasher,
    size: u64,
    room: Arc<Room>,
}

#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Spool {
    /// `directory` is made if it is absent. Room is taken by what comes, not by what is announced.
    pub fn new(
        directory: &Path,
        room: Arc<Room>,
        function: DigestFunction,
    ) -> Result<Self, StoreError> {
        let file = std::fs::create_dir_all(directory)
            .and_then(|()| tempfile::tempfile_in(directory))
            .map_err(io)?;
        Ok(Self { file: file.into(), hasher: function.hasher(), size: 0, room })
    }

    pub fn size(&self) -> u64 {
        self.size
    }

    pub async fn write(&mut self, data: &[u8]) -> Result<(), SpoolError> {
        self.room.take(data.len() as u64)?;
        self.size += data.len() as u64;
        self.hasher.update(data);
        self.file.write_all(data).await.map_err(io)?;
        Ok(())
    }

    /// Puts all of it into the store.
    pub async fn store(mut self, blobs: &SharedBlobStore) -> Result<Digest, StoreError> {
        let hasher = std::mem::replace(&mut self.hasher, DigestFunction::Sha256.hasher());
        let digest = hasher.finish();
        if digest.is_empty_blob() {
            return Ok(digest);
        }
        self.file.flush().await.map_err(io)?;
        self.file.seek(SeekFrom::Start(0)).await.map_err(io)?;
        let mut writer = blobs.writer(&digest).await?;
        loop {
            let mut chunk = BytesMut::with_capacity(CHUNK);
            if self.file.read_buf(&mut chunk).await.map_err(io)? == 0 {
                break;
            }
            writer.write(chunk.freeze()).await?;
        }
        writer.commit().await?;
        Ok(digest)
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.room.used.fetch_sub(self.size, Ordering::Relaxed);
    }
}

fn io(error: std::io::Error) -> StoreError {
    StoreError::io("temporary file of a download", error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn files_under_way_share_the_room_and_give_it_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, room) = (dir.path().join("made"), Arc::new(Room::new(10)));
        let new = || Spool::new(&path, room.clone(), DigestFunction::Sha256).unwrap();
        let mut first = new();
        first.write(b"123456").await.unwrap();
        let mut second = new();
        assert!(matches!(second.write(b"12345").await, Err(SpoolError::NoRoom(_))));
        second.write(b"1234").await.unwrap();
        assert!(matches!(second.write(b"5").await, Err(SpoolError::NoRoom(_))));
        assert_eq!(room.used.load(Ordering::Relaxed), 10);
        drop((first, second));
        assert_eq!(room.used.load(Ordering::Relaxed), 0);
        new().write(b"1234567890").await.unwrap();
        assert_eq!(std::fs::read_dir(&path).unwrap().count(), 0, "files have no names");
    }
}
