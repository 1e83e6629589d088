//! What a server says of pieces: each blob is read and cut once, when somebody asks first, and remembered.

use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::TryStreamExt as _;
use kiln_cas::{Digest, DigestFunction, SharedBlobStore, StoreError};
use lru::LruCache;
use tokio::sync::{Mutex as AsyncMutex, OnceCell, Semaphore};

use super::cut::Cutter;
use super::list::{BlobPieces, ListProblem, Piece, PieceList};
use crate::oci::{Algorithm, ContentDigest};

/// Blobs whose pieces are remembered, and pieces in all: some 36 MB.
const MAX_BLOBS: NonZeroUsize = NonZeroUsize::new(4_096).expect("it is not 0");
const MAX_PIECES: usize = 1_000_000;
/// Blobs that are read at once.
const AT_ONCE: usize = 2;
/// Lists that are remembered as they are written: whoever asks gets the same bytes.
const MAX_LISTS: NonZeroUsize = NonZeroUsize::new(8).expect("it is not 0");
/// Bytes up to which a blob is one piece, which its digest names already.
const SMALL: u64 = 128 << 10;

/// Locked by the one who cuts the blob.
type Known = Arc<AsyncMutex<Option<Arc<[Piece]>>>>;
type Written = Arc<OnceCell<Bytes>>;

#[derive(Debug, thiserror::Error)]
pub enum CuttingError {
    #[error("a blob of the release cannot be read")]
    Store(#[from] StoreError),
    #[error("the release cannot be cut")]
    List(#[from] ListProblem),
    #[error("the blob {0} is named by a hash that is not stored here")]
    Digest(ContentDigest),
}

/// Clones share what is known.
#[derive(Clone)]
pub struct Cutting {
    blobs: SharedBlobStore,
    known: Arc<Mutex<LruCache<Digest, Known>>>,
    /// Lists of pieces, by the digest of what they are of.
    lists: Arc<Mutex<LruCache<ContentDigest, Written>>>,
    turns: Arc<Semaphore>,
}

impl Cutting {
    pub fn new(blobs: SharedBlobStore) -> Self {
        let known = Arc::new(Mutex::new(LruCache::new(MAX_BLOBS)));
        let lists = Arc::new(Mutex::new(LruCache::new(MAX_LISTS)));
        Self { blobs, known, lists, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// The list of the pieces of these blobs as it is written. Each blob comes with its bytes.
    pub async fn written(&self, blobs: &[(ContentDigest, u64)]) -> Result<Bytes, CuttingError> {
        let of: String = blobs.iter().map(|(digest, size)| format!("{digest} {size}\n")).collect();
        let written = {
            let mut lists = self.lists.lock().unwrap_or_else(PoisonError::into_inner);
            lists.get_or_insert(ContentDigest::of(of.as_bytes()), Written::default).clone()
        };
        let list = || async { Ok::<_, CuttingError>(Bytes::from(self.list(blobs).await?.write())) };
        written.get_or_try_init(list).await.cloned()
    }

    async fn list(&self, blobs: &[(ContentDigest, u64)]) -> Result<PieceList, CuttingError> {
        let mut all = Vec::new();
        for (digest, size) in blobs {
            let pieces = self.pieces(digest, *size).await?;
            let pieces = pieces.to_vec();
            all.push(BlobPieces { digest: digest.clone(), size: *size, pieces });
        }
        Ok(PieceList::new(all)?)
    }

    async fn pieces(
        &self,
        digest: &ContentDigest,
        size: u64,
    ) -> Result<Arc<[Piece]>, CuttingError> {
        let strange = || CuttingError::Digest(digest.clone());
        if digest.algorithm() != Algorithm::Sha256 {
            return Err(strange());
        }
        let hex = digest.hex().as_bytes();
        let stored = Digest::from_hex(hex, size, DigestFunction::Sha256).map_err(|_| strange())?;
        if size == 0 {
            return Ok(Arc::default());
        }
        if size <= SMALL {
            let size = u32::try_from(size).unwrap_or(u32::MAX);
            return Ok(Arc::new([Piece { sha256: stored.hash, size }]));
        }
        let known = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.get_or_insert(stored, Known::default).clone()
        };
        // Whoever asks meanwhile waits for the one who cuts.
        let mut known = known.lock_owned().await;
        if let Some(pieces) = &*known {
            return Ok(pieces.clone());
        }
        // It goes on when he who asked waits no more: of a large blob nobody would wait until the end.
        let cutting = self.clone();
        let cuts = async move {
            let pieces = known.insert(cutting.cut(&stored).await?).clone();
            drop(known);
            cutting.forget_some();
            Ok(pieces)
        };
        let cut = tokio::spawn(cuts).await;
        cut.map_err(|error| StoreError::unavailable(error.to_string()))?
    }

    async fn cut(&self, blob: &Digest) -> Result<Arc<[Piece]>, CuttingError> {
        let turn = self.turns.acquire().await;
        let _turn = turn.map_err(|error| StoreError::unavailable(error.to_string()))?;
        let mut source = self.blobs.read(blob, 0, None).await?.into_stream();
        let mut cutter = Cutter::new(blob.size);
        while let Some(data) = source.try_next().await? {
            if cutter.push(&data) {
                cutter = elsewhere(move || {
                    cutter.cut();
                    cutter
                })
                .await?;
            }
        }
        Ok(elsewhere(move || cutter.finish()).await?.into())
    }

    fn forget_some(&self) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        // What is being cut counts when it is there.
        let pieces = |it: &Known| it.try_lock().ok()?.as_ref().map(|it| it.len());
        let count = |known: &LruCache<Digest, Known>| {
            known.iter().filter_map(|(_, it)| pieces(it)).sum::<usize>()
        };
        while known.len() > 1 && count(&known) > MAX_PIECES {
            known.pop_lru();
        }
    }
}

/// Hashing holds up nobody else.
async fn elsewhere<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, StoreError> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|error| StoreError::unavailable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures_util::FutureExt as _;
    use kiln_cas::stores::MemoryBlobStore;

    use super::*;

    #[tokio::test]
    async fn a_blob_is_cut_to_its_end_though_whoever_asked_waits_no_more() {
        let content = Bytes::from(vec![7; 1 << 20]);
        let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
        let stored = DigestFunction::Sha256.digest(&content);
        blobs.write(&stored, content.clone()).await.unwrap();
        let cutting = Cutting::new(blobs);
        let asked = [(ContentDigest::of(&content), stored.size)];
        assert!(cutting.written(&asked).now_or_never().is_none(), "it is not cut yet");
        let is_cut = |it: &Known| it.try_lock().is_ok_and(|it| it.is_some());
        let known = || cutting.known.lock().unwrap().iter().any(|(_, it)| is_cut(it));
        let cut = async {
            while !known() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), cut).await.unwrap();
        assert!(!cutting.written(&asked).await.unwrap().is_empty());
    }
}
