//! What checks what it stores takes nothing else under a digest.

use bytes::Bytes;

use super::blob;
use super::blobs::subject;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;

const MIB: usize = 1 << 20;

#[tokio::test]
async fn wrong_bytes_never_land() {
    for kind in ["verified memory", "verified disk"] {
        let subject = subject(kind, 1 << 30).await;
        let store = &*subject.store;
        for size in [10, 300_000, 3 * MIB] {
            let (digest, data) = blob(4, size);
            let (_, wrong) = blob(5, size);
            let error = store.write(&digest, wrong.clone()).await;
            assert!(matches!(error, Err(StoreError::DigestMismatch { .. })), "{error:?}");
            let short = store.write(&digest, data.slice(1..)).await;
            assert!(matches!(short, Err(StoreError::SizeMismatch { .. })), "{short:?}");
            let mut writer = store.writer(&digest).await.unwrap();
            writer.write(wrong).await.unwrap();
            let error = writer.commit().await;
            assert!(matches!(error, Err(StoreError::DigestMismatch { .. })), "{error:?}");
            assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
        }
        let no_such_empty = Digest { size: 0, ..DigestFunction::Sha256.digest(b"x") };
        let error = store.write(&no_such_empty, Bytes::new()).await;
        assert!(matches!(error, Err(StoreError::DigestMismatch { .. })), "{error:?}");
    }
}
