//! Opens the storage that the configuration names.

use super::config::StorageConfig;
use super::storage::Storage;
use super::{embedded, shared};
use crate::error::StoreError;
use crate::stores::directory::DirectoryLock;
use crate::stores::group::blocking;

impl Storage {
    /// Opens the storage that `config` names. Errors: the directory is in use by another process, cannot
    /// be read or written, or holds data of another format; Redis or S3 cannot be used.
    pub async fn open(config: StorageConfig) -> Result<Self, StoreError> {
        let dir = config.data_dir.clone();
        let lock = blocking(move || DirectoryLock::acquire(&dir)).await?;
        let lock = Some(lock).into();
        match config.shared.clone() {
            None => embedded::open(&config, lock).await,
            Some(shared) => shared::open(&config, shared, lock).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use bytes::Bytes;

    use super::*;
    use crate::action_cache::ActionKey;
    use crate::records::{Expect, Write};
    use crate::stores::contract::blob;

    fn config(dir: &Path) -> StorageConfig {
        StorageConfig { data_dir: dir.join("data"), ..StorageConfig::default() }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everything_is_there_again_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let small = blob(1, 3000);
        let large = blob(2, 3 << 20);
        let key = ActionKey { instance: "".into(), action: blob(3, 10).0 };
        let storage = Storage::open(config(dir.path())).await.unwrap();
        for (digest, data) in [&small, &large] {
            storage.blobs.write(digest, data.clone()).await.unwrap();
        }
        storage.actions.put(&key, Bytes::new()).await.unwrap();
        let value = Some(Bytes::from_static(b"v"));
        let write = Write { key: "k".to_owned(), expect: Expect::Absent, value };
        storage.records.write(vec![write]).await.unwrap();
        let before = storage.stats.snapshot();
        assert_eq!((before.blobs, before.actions), (2, 1));
        assert!(before.promised_bytes > 3 << 20 && before.used_bytes > before.promised_bytes);
        storage.close().await.unwrap();
        drop(storage);

        let storage = Storage::open(config(dir.path())).await.unwrap();
        for (digest, data) in [&small, &large] {
            let found = storage.blobs.read(digest, 0, None).await.unwrap();
            assert_eq!(found.collect(u64::MAX).await.unwrap(), data);
        }
        assert_eq!(storage.actions.get(&key).await.unwrap(), Some(Bytes::new()));
        assert_eq!(storage.records.get("k").await.unwrap().unwrap().value, "v");
        assert_eq!(storage.stats.snapshot().promised_bytes, before.promised_bytes);
        storage.close().await.unwrap();
    }

    #[tokio::test]
    async fn a_second_process_is_refused_by_name_until_the_first_has_closed() {
        let dir = tempfile::tempdir().unwrap();
        let first = Storage::open(config(dir.path())).await.unwrap();
        let Err(error) = Storage::open(config(dir.path())).await else { panic!("it was opened") };
        let message = error.to_string();
        assert!(message.contains(&format!("process {}", std::process::id())), "{message}");
        assert!(message.contains("--data-dir"), "{message}");
        first.close().await.unwrap();
        drop(first);
        Storage::open(config(dir.path())).await.unwrap();
    }
}
