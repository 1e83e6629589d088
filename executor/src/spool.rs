//! stdout or stderr of one action: in memory while it is small, in a file when it grows.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use kiln_cas::{Digest, DigestFunction, Hasher};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::outputs::Content;

/// Bytes kept in memory.
pub const MEMORY_BYTES: usize = 1 << 20;

pub struct Spool {
    directory: PathBuf,
    hasher: Hasher,
    size: u64,
    memory: BytesMut,
    file: Option<tokio::fs::File>,
}

/// A whole stream.
pub struct Spooled {
    pub digest: Digest,
    pub content: Content,
}

impl Spool {
    /// `directory`: for the file, which has no name there and is gone when this is dropped.
    pub fn new(directory: &Path, function: DigestFunction) -> Self {
        Self {
            directory: directory.to_owned(),
            hasher: function.hasher(),
            size: 0,
            memory: BytesMut::new(),
            file: None,
        }
    }

    /// Bytes so far.
    pub fn size(&self) -> u64 {
        self.size
    }

    pub async fn append(&mut self, data: &Bytes) -> io::Result<()> {
        self.hasher.update(data);
        self.size += data.len() as u64;
        if let Some(file) = &mut self.file {
            return file.write_all(data).await;
        }
        if self.memory.len() + data.len() <= MEMORY_BYTES {
            self.memory.extend_from_slice(data);
            return Ok(());
        }
        let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(&self.directory)?);
        file.write_all(&self.memory).await?;
        file.write_all(data).await?;
        self.memory = BytesMut::new();
        self.file = Some(file);
        Ok(())
    }

    /// Up to `limit` bytes from `offset` on; fewer where the stream ends.
    pub async fn read(&mut self, offset: u64, limit: usize) -> io::Result<Bytes> {
        let length = self.size.saturating_sub(offset).min(limit as u64) as usize;
        let Some(file) = &mut self.file else {
            let start = (offset as usize).min(self.memory.len());
            let end = (start + length).min(self.memory.len());
            return Ok(Bytes::copy_from_slice(&self.memory[start..end]));
        };
        let mut data = BytesMut::zeroed(length);
        file.seek(SeekFrom::Start(offset)).await?;
        file.read_exact(&mut data).await?;
        file.seek(SeekFrom::End(0)).await?;
        Ok(data.freeze())
    }

    pub async fn finish(self) -> io::Result<Spooled> {
        let content = match self.file {
            None => Content::Memory(self.memory.freeze()),
            Some(mut file) => {
                file.flush().await?;
                Content::File(file.into_std().await)
            }
        };
        Ok(Spooled { digest: self.hasher.finish(), content })
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Seek as _};

    use super::*;

    #[tokio::test]
    async fn small_streams_stay_in_memory_and_large_ones_lose_nothing() {
        let directory = tempfile::tempdir().unwrap();
        for pieces in [3, 40] {
            let mut spool = Spool::new(directory.path(), DigestFunction::Sha256);
            let piece = Bytes::from(vec![b'x'; 64 << 10]);
            for _ in 0..pieces {
                spool.append(&piece).await.unwrap();
            }
            assert_eq!(spool.size(), pieces * (64 << 10));
            let end = spool.size();
            assert_eq!(spool.read(end - 3, 10).await.unwrap(), "xxx");
            assert!(spool.read(end + 3, 10).await.unwrap().is_empty());
            spool.append(&Bytes::from_static(b"yz")).await.unwrap();
            assert_eq!(spool.read(end - 1, 10).await.unwrap(), "xyz");
            let spooled = spool.finish().await.unwrap();
            let mut all = vec![b'x'; pieces as usize * (64 << 10)];
            all.extend(b"yz");
            assert_eq!(spooled.digest, DigestFunction::Sha256.digest(&all));
            match spooled.content {
                Content::Memory(data) => assert_eq!((data.len(), pieces), (all.len(), 3)),
                Content::File(mut file) => {
                    let mut read = Vec::new();
                    file.rewind().unwrap();
                    file.read_to_end(&mut read).unwrap();
                    assert_eq!((read == all, pieces), (true, 40));
                }
                Content::Beneath(_) => panic!("a spool is not beneath a root"),
            }
        }
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
