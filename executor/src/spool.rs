//! stdout or stderr of one action: in memory while it is small, in a file when it grows, and without its
//! middle when it is more than is kept.

use std::io::{self, SeekFrom};
use std::path::{Path, PathBuf};

use bytes::{Bytes, BytesMut};
use kiln_cas::{Digest, DigestFunction, Hasher};
use tokio::io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _};

use crate::outputs::Content;

/// Most bytes of one stream that are kept in memory; a longer one goes to a file.
pub const MEMORY_BYTES: usize = 1 << 20;
/// Bytes that are copied at a time.
const COPIED_BYTES: usize = 256 << 10;

/// Keeps one output stream, up to a limit. The first half of what is kept lies at its own offset.
/// The other half is a ring behind it: what is written there last is the end of the stream.
pub struct Spool {
    directory: PathBuf,
    function: DigestFunction,
    /// The hash of the stream so far; `None` once something was left out: what is kept is hashed at
    /// the end then.
    hasher: Option<Hasher>,
    size: u64,
    limit: u64,
    kept: Kept,
}

/// A whole stream, or its beginning and its end with a note in between.
pub struct Spooled {
    pub digest: Digest,
    pub content: Content,
}

impl Spool {
    /// An empty spool. `directory`: for the file, which has no name there and is gone when this is
    /// dropped. `limit`: bytes that are kept, the first and the last; `None`: all.
    pub fn new(directory: &Path, function: DigestFunction, limit: Option<u64>) -> Self {
        Self {
            directory: directory.to_owned(),
            function,
            hasher: Some(function.hasher()),
            size: 0,
            // At least a byte at either end.
            limit: limit.unwrap_or(u64::MAX).max(2),
            kept: Kept::default(),
        }
    }

    /// Bytes that were appended so far, with those that are not kept.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Bytes in the middle of the stream that are not kept; 0: all are.
    pub fn left_out(&self) -> u64 {
        self.size.saturating_sub(self.limit)
    }

    fn head(&self) -> u64 {
        self.limit / 2
    }

    /// The offset in what is kept at which byte `offset` of the stream lies, and how many bytes fit
    /// there in one piece, this one included.
    fn place(&self, offset: u64) -> (u64, u64) {
        let (head, ring) = (self.head(), self.limit - self.head());
        match offset.checked_sub(head) {
            None => (offset, head - offset),
            Some(behind) => (head + behind % ring, ring - behind % ring),
        }
    }

    pub async fn append(&mut self, data: &[u8]) -> io::Result<()> {
        let mut rest = data;
        while !rest.is_empty() {
            let (at, room) = self.place(self.size);
            let fits = usize::try_from(room).map_or(rest.len(), |room| rest.len().min(room));
            let (piece, behind) = rest.split_at(fits);
            self.kept.write(at, piece, &self.directory).await?;
            self.size += piece.len() as u64;
            if self.left_out() > 0 {
                self.hasher = None;
            }
            if let Some(hasher) = &mut self.hasher {
                hasher.update(piece);
            }
            rest = behind;
        }
        Ok(())
    }

    /// Reads up to `limit` bytes of the stream from `offset` on; fewer where it ends, and none of
    /// its end once something before that was left out.
    pub async fn read(&mut self, offset: u64, limit: usize) -> io::Result<Bytes> {
        let end = if self.left_out() == 0 { self.size } else { self.head() };
        let length = end.saturating_sub(offset).min(limit as u64) as usize;
        self.kept.read(offset, length).await
    }

    pub async fn finish(mut self) -> io::Result<Spooled> {
        match self.hasher.take() {
            Some(hasher) => {
                Ok(Spooled { digest: hasher.finish(), content: self.kept.finish().await? })
            }
            None => self.without_middle().await,
        }
    }

    async fn without_middle(mut self) -> io::Result<Spooled> {
        let (head, limit) = (self.head(), self.limit);
        let (oldest, _) = self.place(self.size);
        let note = format!(
            "\n[kiln: {} of {} bytes are left out here; {limit} are kept of each stream (workers.output)]\n",
            self.left_out(),
            self.size
        );
        let (mut whole, mut hasher, mut at) = (Kept::default(), self.function.hasher(), 0);
        let mut add = async |data: &[u8]| {
            hasher.update(data);
            whole.write(at, data, &self.directory).await?;
            at += data.len() as u64;
            io::Result::Ok(())
        };
        for (from, to) in [(0, head), (oldest, limit), (head, oldest)] {
            let mut offset = from;
            while offset < to {
                let length = (to - offset).min(COPIED_BYTES as u64);
                add(&self.kept.read(offset, length as usize).await?).await?;
                offset += length;
            }
            if from == 0 {
                add(note.as_bytes()).await?;
            }
        }
        Ok(Spooled { digest: hasher.finish(), content: whole.finish().await? })
    }
}

/// The bytes that a spool keeps: in memory, or in a file once there are more than `MEMORY_BYTES`.
#[derive(Default)]
struct Kept {
    memory: BytesMut,
    file: Option<tokio::fs::File>,
    /// The offset at which the file's next byte would be written.
    position: u64,
}

impl Kept {
    async fn write(&mut self, at: u64, data: &[u8], directory: &Path) -> io::Result<()> {
        let end = at + data.len() as u64;
        if self.file.is_none() && end > MEMORY_BYTES as u64 {
            let mut file = tokio::fs::File::from_std(tempfile::tempfile_in(directory)?);
            file.write_all(&self.memory).await?;
            self.position = self.memory.len() as u64;
            self.memory = BytesMut::new();
            self.file = Some(file);
        }
        let Some(file) = &mut self.file else {
            let (at, end) = (at as usize, end as usize);
            self.memory.resize(self.memory.len().max(end), 0);
            self.memory[at..end].copy_from_slice(data);
            return Ok(());
        };
        if self.position != at {
            file.seek(SeekFrom::Start(at)).await?;
        }
        file.write_all(data).await?;
        self.position = end;
        Ok(())
    }

    async fn read(&mut self, offset: u64, length: usize) -> io::Result<Bytes> {
        let Some(file) = &mut self.file else {
            let start = (offset as usize).min(self.memory.len());
            let end = (start + length).min(self.memory.len());
            return Ok(Bytes::copy_from_slice(&self.memory[start..end]));
        };
        let mut data = BytesMut::zeroed(length);
        file.seek(SeekFrom::Start(offset)).await?;
        file.read_exact(&mut data).await?;
        self.position = offset + length as u64;
        Ok(data.freeze())
    }

    async fn finish(self) -> io::Result<Content> {
        match self.file {
            None => Ok(Content::Memory(self.memory.freeze())),
            Some(mut file) => {
                file.flush().await?;
                Ok(Content::File(file.into_std().await))
            }
        }
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
            let mut spool = Spool::new(directory.path(), DigestFunction::Sha256, None);
            let piece = Bytes::from(vec![b'x'; 64 << 10]);
            for _ in 0..pieces {
                spool.append(&piece).await.unwrap();
            }
            assert_eq!(spool.size(), pieces * (64 << 10));
            let end = spool.size();
            assert_eq!(spool.read(end - 3, 10).await.unwrap(), "xxx");
            assert!(spool.read(end + 3, 10).await.unwrap().is_empty());
            spool.append(b"yz").await.unwrap();
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

    /// The bytes that a spool of `limit` bytes keeps of `printed`, appended in pieces of `pieces`
    /// bytes.
    async fn kept(printed: &[u8], pieces: usize, limit: u64) -> Vec<u8> {
        let directory = tempfile::tempdir().unwrap();
        let mut spool = Spool::new(directory.path(), DigestFunction::Blake3, Some(limit));
        for piece in printed.chunks(pieces) {
            spool.append(piece).await.unwrap();
        }
        assert_eq!(spool.size(), printed.len() as u64);
        let head = spool.read(0, usize::MAX).await.unwrap();
        assert!(printed.starts_with(&head));
        let spooled = spool.finish().await.unwrap();
        let mut all = Vec::new();
        match spooled.content {
            Content::Memory(data) => all.extend_from_slice(&data),
            Content::File(mut file) => {
                file.rewind().unwrap();
                file.read_to_end(&mut all).unwrap();
            }
            Content::Beneath(_) => panic!("a spool is not beneath a root"),
        }
        assert_eq!(spooled.digest, DigestFunction::Blake3.digest(&all));
        all
    }

    #[tokio::test]
    async fn of_what_is_too_long_the_middle_is_left_out_and_that_is_said() {
        let mebibyte = 1_usize << 20;
        for (size, pieces, limit) in [
            (10, 3, 10),
            (11, 3, 10),
            (1_000, 7, 100),
            (1_000, 1_000, 101),
            (5 * mebibyte, 64 << 10, 3 << 20),
            (3 * mebibyte, 64 << 10, 3 << 20),
        ] {
            let printed: Vec<u8> = (0..size).map(|n: usize| (n % 251) as u8).collect();
            let all = kept(&printed, pieces, limit as u64).await;
            if size <= limit {
                assert!(all == printed);
                continue;
            }
            let (head, tail) = (limit / 2, limit - limit / 2);
            assert!(all.starts_with(&printed[..head]) && all.ends_with(&printed[size - tail..]));
            let note = String::from_utf8_lossy(&all[head..all.len() - tail]).into_owned();
            let said = format!("{} of {size} bytes are left out here", size - limit);
            assert!(note.contains(&said) && note.ends_with("\n"), "{note}");
        }
    }
}
