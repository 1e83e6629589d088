//! Brings blobs to the store: those it lacks, several at a time.

use std::collections::HashSet;
use std::io::{Read as _, Seek as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use kiln_cas::{Digest, SharedBlobStore, StoreError};
use tokio::sync::mpsc;
use tokio::time::Instant;

use super::{Content, beneath};
use crate::remote::delay;

/// Blobs written at the same time for one action.
pub const UPLOAD_CONCURRENCY: usize = 32;
/// So few and small blobs are written without asking which are there already.
const FEW_BLOBS: usize = 4;
const FEW_BYTES: u64 = 64 << 10;
/// Bytes of a large file read at a time, and pieces that wait for the store.
const CHUNK_BYTES: usize = 256 << 10;
const CHUNKS_AHEAD: usize = 2;
/// How often a large blob is sent at least when the store becomes unavailable in between.
const TRIES: u32 = 3;

/// When this returns `Ok`, every blob is in the store. `patience`: how long a large blob is sent
/// again and again while the store is unavailable.
pub async fn upload(
    store: &SharedBlobStore,
    root: &Arc<OwnedFd>,
    blobs: Vec<(Digest, Content)>,
    patience: Duration,
) -> Result<(), StoreError> {
    let blobs = only_missing(store, blobs).await?;
    let writes =
        blobs.into_iter().map(|(digest, content)| write(store, root, digest, content, patience));
    let mut writes = stream::iter(writes).buffer_unordered(UPLOAD_CONCURRENCY);
    while let Some(written) = writes.next().await {
        written?;
    }
    Ok(())
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
        tokio::time::sleep(delay(failures)).await;
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
    let reader = tokio::task::spawn_blocking(move || read(&root, &content, &sender));
    while let Some(chunk) = chunks.recv().await {
        writer.write(chunk).await?;
    }
    match reader.await {
        Ok(Ok(())) => writer.commit().await,
        Ok(Err(error)) => Err(StoreError::io(format!("read the output {digest}"), &error)),
        Err(error) => Err(StoreError::Io {
            context: format!("read the output {digest}"),
            message: error.to_string(),
        }),
    }
}

/// Blocks. Ends early when nobody listens any more.
fn read(root: &OwnedFd, content: &Content, sender: &mpsc::Sender<Bytes>) -> std::io::Result<()> {
    let mut file = match content {
        Content::Memory(data) => {
            let _ = sender.blocking_send(data.clone());
            return Ok(());
        }
        Content::Beneath(path) => beneath::open_file(root.as_fd(), path)?,
        Content::File(file) => {
            let mut file = file.try_clone()?;
            file.rewind()?;
            file
        }
    };
    loop {
        let mut buffer = BytesMut::zeroed(CHUNK_BYTES);
        let read = file.read(&mut buffer)?;
        buffer.truncate(read);
        if read == 0 || sender.blocking_send(buffer.freeze()).is_err() {
            return Ok(());
        }
    }
}
