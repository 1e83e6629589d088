//! Brings the blobs to the store that it lacks, several at a time.

use std::collections::HashSet;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use kiln_cas::{Digest, SharedBlobStore, StoreError};
use kiln_net::Backoff;
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::holes::{Piece, piece};
use super::{Content, beneath};

/// Blobs written at the same time for one action.
pub const UPLOAD_CONCURRENCY: usize = 32;
/// Up to so many blobs, of so few bytes together, are written without asking which are there
/// already.
const FEW_BLOBS: usize = 4;
const FEW_BYTES: u64 = 64 << 10;
/// Files up to this many bytes are read whole and sent together, so many bytes at a time.
const WHOLE_BYTES: u64 = 256 << 10;
const TOGETHER_BYTES: u64 = 2 << 20;
/// Bytes of a large file that are read at a time; the next constant says how many such pieces wait
/// for the store.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 2;
static ZEROS: [u8; CHUNK_BYTES] = [0; CHUNK_BYTES];
/// How often a large blob is sent at least when the store becomes unavailable in between.
const TRIES: u32 = 3;
const BACKOFF: Backoff = Backoff::new(Duration::from_millis(50), Duration::from_secs(3));

/// Stores the blobs and answers how many bytes the store lacked; every blob is in the store then.
/// `patience`: how long a large blob is sent again and again while the store is unavailable.
pub async fn upload(
    store: &SharedBlobStore,
    root: &Arc<OwnedFd>,
    blobs: Vec<(Digest, Content)>,
    patience: Duration,
) -> Result<u64, StoreError> {
    let blobs = only_missing(store, blobs).await?;
    let bytes = blobs.iter().map(|(digest, _)| digest.size).sum();
    let (small, large) = blobs.into_iter().partition(|(digest, _)| digest.size <= WHOLE_BYTES);
    tokio::try_join!(write_small(store, root, small), write_all(store, root, large, patience))?;
    Ok(bytes)
}

async fn write_all(
    store: &SharedBlobStore,
    root: &Arc<OwnedFd>,
    blobs: Vec<(Digest, Content)>,
    patience: Duration,
) -> Result<(), StoreError> {
    let writes =
        blobs.into_iter().map(|(digest, content)| write(store, root, digest, content, patience));
    let mut writes = stream::iter(writes).buffer_unordered(UPLOAD_CONCURRENCY);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
}

/// Writes small blobs in groups: the store may send the blobs of a group in one message.
async fn write_small(
    store: &SharedBlobStore,
    root: &Arc<OwnedFd>,
    mut blobs: Vec<(Digest, Content)>,
) -> Result<(), StoreError> {
    while !blobs.is_empty() {
        let mut bytes = 0;
        let fits = blobs.iter().take_while(|(digest, _)| {
            bytes += digest.size;
            bytes <= TOGETHER_BYTES
        });
        let rest = blobs.split_off(fits.count().max(1));
        let group = std::mem::replace(&mut blobs, rest);
        let read = read_group(root, group).await?;
        let writes = read.iter().map(|(digest, data)| store.write(digest, data.clone()));
        futures_util::future::try_join_all(writes).await?;
    }
    Ok(())
}

/// Reads a group of small blobs. Most groups are in memory, from when their digests were found: to wake another thread for
/// these would take longer than all the rest.
async fn read_group(
    root: &Arc<OwnedFd>,
    group: Vec<(Digest, Content)>,
) -> Result<Vec<(Digest, Bytes)>, StoreError> {
    if group.iter().all(|(_, content)| matches!(content, Content::Memory(_))) {
        return read_all(root, group);
    }
    let root = root.clone();
    let read = tokio::task::spawn_blocking(move || read_all(&root, group)).await;
    read.map_err(|error| StoreError::failed("read small outputs", error))?
}

/// Reads a group of small blobs. Blocks where one of them is in a file.
fn read_all(
    root: &OwnedFd,
    blobs: Vec<(Digest, Content)>,
) -> Result<Vec<(Digest, Bytes)>, StoreError> {
    let whole = |(digest, content): (Digest, Content)| {
        let data = read_whole(root, content, digest.size);
        let failed = |error| StoreError::io(format!("read the output {digest}"), error);
        data.map(|data| (digest, data)).map_err(failed)
    };
    blobs.into_iter().map(whole).collect()
}

/// Reads no more than one byte above `size`: that is enough to see that the file has changed.
fn read_whole(root: &OwnedFd, content: Content, size: u64) -> std::io::Result<Bytes> {
    let mut file = match content {
        Content::Memory(data) => return Ok(data),
        Content::Beneath(path) => beneath::open_file(root.as_fd(), &path)?,
        Content::File(mut file) => {
            file.rewind()?;
            file
        }
    };
    let mut data = Vec::with_capacity(size as usize + 1);
    file.by_ref().take(size + 1).read_to_end(&mut data)?;
    Ok(data.into())
}

async fn only_missing(
    store: &SharedBlobStore,
    mut blobs: Vec<(Digest, Content)>,
) -> Result<Vec<(Digest, Content)>, StoreError> {
    let bytes: u64 = blobs.iter().map(|(digest, _)| digest.size).sum();
    if blobs.len() <= FEW_BLOBS && bytes <= FEW_BYTES {
        return Ok(blobs);
    }
    let digests: Vec<Digest> = blobs.iter().map(|(digest, _)| *digest).collect();
    let missing: HashSet<Digest> = store.find_missing(&digests).await?.into_iter().collect();
    blobs.retain(|(digest, _)| missing.contains(digest));
    Ok(blobs)
}

async fn write(
    store: &SharedBlobStore,
    root: &Arc<OwnedFd>,
    digest: Digest,
    content: Content,
    patience: Duration,
) -> Result<(), StoreError> {
    if let Content::Memory(data) = content {
        return store.write(&digest, data).await;
    }
    let content = Arc::new(content);
    let begun = Instant::now();
    let mut failures = 0;
    loop {
        let result = write_file(store, root, &digest, &content).await;
        failures += 1;
        let again = failures < TRIES || begun.elapsed() < patience;
        if !again || !matches!(result, Err(StoreError::Unavailable(_))) {
            return result;
        }
        tokio::time::sleep(BACKOFF.pause(failures)).await;
    }
}

async fn write_file(
    store: &SharedBlobStore,
    root: &Arc<OwnedFd>,
    digest: &Digest,
    content: &Arc<Content>,
) -> Result<(), StoreError> {
    let mut writer = store.writer(digest).await?;
    let (sender, mut chunks) = mpsc::channel(CHUNKS_AHEAD);
    let (root, content) = (root.clone(), content.clone());
    let size = digest.size;
    let reader = tokio::task::spawn_blocking(move || read(&root, &content, size, &sender));
    while let Some(chunk) = chunks.recv().await {
        writer.write(chunk).await?;
    }
    match reader.await {
        Ok(Ok(())) => writer.commit().await,
        Ok(Err(error)) => Err(StoreError::io(format!("read the output {digest}"), error)),
        Err(error) => Err(StoreError::failed(format!("read the output {digest}"), error)),
    }
}

/// Reads as many bytes as were hashed. Ends early when nobody listens any more. Blocks.
fn read(
    root: &OwnedFd,
    content: &Content,
    size: u64,
    sender: &mpsc::Sender<Bytes>,
) -> std::io::Result<()> {
    let file = match content {
        Content::Memory(data) => {
            let _ = sender.blocking_send(data.clone());
            return Ok(());
        }
        Content::Beneath(path) => beneath::open_file(root.as_fd(), path)?,
        Content::File(file) => file.try_clone()?,
    };
    let mut at = 0;
    while at < size {
        let (length, is_hole) = match piece(&file, at, size)? {
            Piece::Hole(length) => (length, true),
            Piece::Data(length) => (length, false),
        };
        let end = at + length;
        while at < end {
            let most = (end - at).min(CHUNK_BYTES as u64) as usize;
            let chunk = if is_hole {
                Bytes::from_static(&ZEROS[..most])
            } else {
                let mut buffer = BytesMut::zeroed(most);
                let read = file.read_at(&mut buffer, at)?;
                buffer.truncate(read);
                buffer.freeze()
            };
            at += chunk.len() as u64;
            // What was cut since is found by whoever checks the digest.
            if chunk.is_empty() || sender.blocking_send(chunk).is_err() {
                return Ok(());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use kiln_cas::DigestFunction;
    use kiln_cas::stores::MemoryBlobStore;

    use super::*;

    #[test]
    fn what_is_in_memory_is_stored_without_another_thread() {
        let store: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        let root: Arc<OwnedFd> = Arc::new(tempfile::tempfile().unwrap().into());
        let data = Bytes::from_static(b"small");
        let digest = DigestFunction::Sha256.digest(&data);
        let blobs = vec![(digest, Content::Memory(data))];
        // There is no runtime that could have other threads.
        let stored = upload(&store, &root, blobs, Duration::ZERO).now_or_never();
        assert_eq!(stored.unwrap().unwrap(), digest.size);
        assert!(store.find_missing(&[digest]).now_or_never().unwrap().unwrap().is_empty());
    }
}
