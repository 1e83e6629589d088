//! Blobs whose digest shows at their end.

use bytes::Bytes;

use super::blob;
use crate::blob::BlobStore;
use crate::digest::DigestFunction;
use crate::error::StoreError;

const MIB: usize = 1 << 20;

/// A store need not offer it; what does names and stores what came, and nothing before its end.
pub async fn what_names_itself_is_read(store: &dyn BlobStore) {
    let naming = |most: usize| store.naming_writer(DigestFunction::Sha256, most as u64);
    for (seed, size) in [0, 1000, 256 * 1024, 256 * 1024 + 1, 3 * MIB].into_iter().enumerate() {
        let (digest, data) = blob(500 + seed as u64, size);
        let Some(mut writer) = naming(size + 1000).await.unwrap() else { return };
        for piece in data.chunks(70_000) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        if size > 0 {
            assert_eq!(store.absent(&[digest]).await.unwrap(), [digest], "{size} bytes");
        }
        assert_eq!(writer.finish().await.unwrap(), (digest, true));
        let found = store.read(&digest, 0, None).await.unwrap();
        assert_eq!(found.collect(u64::MAX).await.unwrap(), data, "{size} bytes");
        // Again: what is there already stays as it is.
        let mut again = naming(size).await.unwrap().expect("it was offered before");
        again.write(data).await.unwrap();
        assert_eq!(again.finish().await.unwrap(), (digest, true));
    }
    let mut writer = naming(MIB).await.unwrap().expect("it was offered before");
    writer.write(Bytes::from(vec![0; MIB])).await.unwrap();
    let more = writer.write(Bytes::from_static(b"x")).await;
    assert!(matches!(more, Err(StoreError::TooLarge { .. })), "{more:?}");
}
