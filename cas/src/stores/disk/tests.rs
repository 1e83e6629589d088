use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::*;
use crate::blob::BlobStore;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::promises::Ruling;
use crate::stores::contract::blob;

mod streams;
mod uploads;

const LEASE: Duration = Duration::from_secs(1000);
const MIB: u64 = 1 << 20;

async fn open(dir: &Path, max_size: u64, clock: &Clock) -> DiskBlobStore {
    let (dir, clock) = (dir.to_owned(), clock.clone());
    let invocations = None;
    let options = DiskOptions { dir, max_size, lease: LEASE, invocations, clock };
    DiskBlobStore::open(options).await.unwrap()
}

async fn read(store: &DiskBlobStore, digest: &Digest) -> Result<Bytes, StoreError> {
    store.read(digest, 0, None).await?.collect(u64::MAX).await
}

fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

fn bytes_on_disk(dir: &Path) -> u64 {
    files(dir).iter().map(|path| path.metadata().unwrap().len()).sum()
}

fn flip(path: &Path, place: u64) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, place).unwrap();
    file.write_all_at(&[byte[0] ^ 4], place).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_accounts_match_the_files_under_concurrent_pressure() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let max = 24 * MIB;
    let store = open(dir.path(), max, &clock).await;
    let tasks: Vec<_> = (0..6u64)
        .map(|task| {
            let (store, clock) = (store.clone(), clock.clone());
            tokio::spawn(async move {
                for round in 0..120u64 {
                    let size = [100, 5000, 200_000, 300_000, 1_500_000][(round % 5) as usize];
                    let (digest, data) = blob(task * 1000 + round / 2, size);
                    match store.write(&digest, data.clone()).await {
                        Ok(()) => assert_eq!(read(&store, &digest).await.unwrap(), data),
                        Err(StoreError::Full { .. }) => clock.advance(400),
                        Err(error) => panic!("{error}"),
                    }
                    assert!(store.snapshot().used_bytes <= max);
                    if round % 30 == 0 {
                        store.sync().await.unwrap();
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    let snapshot = store.snapshot();
    assert!(snapshot.evicted_blobs > 0 && snapshot.corrupt_blobs == 0, "{snapshot:?}");
    assert_eq!(snapshot.reserved_bytes, 0);
    store.abandon().await;
    assert_eq!(store.snapshot().used_bytes, bytes_on_disk(dir.path()));
    drop(store);
    let store = open(dir.path(), max, &clock).await;
    assert_eq!(store.snapshot().used_bytes, bytes_on_disk(dir.path()));
    store.close().await.unwrap();
}

#[tokio::test]
async fn a_flipped_bit_is_found_and_the_blob_can_be_stored_again() {
    for (size, restart) in
        [(5000, false), (5000, true), (400_000, true), (3 << 20, false), (3 << 20, true)]
    {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1000);
        let mut store = open(dir.path(), 1 << 30, &clock).await;
        let (digest, data) = blob(1, size);
        store.write(&digest, data.clone()).await.unwrap();
        if restart {
            store.close().await.unwrap();
            drop(store);
        } else {
            store.sync().await.unwrap();
            drop(store);
            store = open(dir.path(), 1 << 30, &clock).await;
            assert_eq!(read(&store, &digest).await.unwrap(), data);
            let file = files(dir.path()).into_iter().max_by_key(|p| p.metadata().unwrap().len());
            flip(&file.unwrap(), 3000);
            let error = read(&store, &digest).await.unwrap_err();
            assert!(matches!(error, StoreError::NotFound(_)), "{size}: {error}");
            check_dropped(&store, digest, &data).await;
            continue;
        }
        let file = files(dir.path()).into_iter().max_by_key(|p| p.metadata().unwrap().len());
        flip(&file.unwrap(), 3000);
        let store = open(dir.path(), 1 << 30, &clock).await;
        let error = read(&store, &digest).await.unwrap_err();
        assert!(matches!(error, StoreError::NotFound(_)), "{size}: {error}");
        check_dropped(&store, digest, &data).await;
    }
}

async fn check_dropped(store: &DiskBlobStore, digest: Digest, data: &Bytes) {
    assert_eq!(store.snapshot().corrupt_blobs, 1);
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    store.write(&digest, data.clone()).await.unwrap();
    assert_eq!(read(store, &digest).await.unwrap(), data);
}

#[tokio::test]
async fn leases_and_access_times_of_large_blobs_survive_a_clean_restart() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(dir.path(), 8 * MIB, &clock).await;
    let (early, early_data) = blob(1, 3 << 20);
    let (late, late_data) = blob(2, 3 << 20);
    store.write(&early, early_data).await.unwrap();
    clock.advance(600);
    store.write(&late, late_data).await.unwrap();
    store.close().await.unwrap();
    drop(store);
    clock.advance(600);
    let store = open(dir.path(), 8 * MIB, &clock).await;
    let (new, new_data) = blob(3, 3 << 20);
    store.write(&new, new_data.clone()).await.unwrap();
    assert_eq!(store.find_missing(&[early, late, new]).await.unwrap(), [early]);
    store.abandon().await;
    drop(store);
    // After a crash everything is promised for one lease.
    clock.advance(5000);
    let store = open(dir.path(), 8 * MIB, &clock).await;
    let (next, next_data) = blob(4, 3 << 20);
    let full = store.write(&next, next_data.clone()).await;
    assert!(matches!(full, Err(StoreError::Full { .. })), "{full:?}");
    clock.advance(1000);
    store.write(&next, next_data).await.unwrap();
}

#[tokio::test]
async fn a_start_removes_what_was_unfinished() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(dir.path(), 1 << 30, &clock).await;
    let (digest, data) = blob(1, 3 << 20);
    store.write(&digest, data.clone()).await.unwrap();
    store.abandon().await;
    let large = store.contents.large.path(&digest);
    drop(store);
    std::fs::write(dir.path().join("tmp/77"), b"half a blob").unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&large);
    // The file's mode 0555 lets only root open it for writing.
    match file {
        Ok(file) => file.set_len(1000).unwrap(),
        Err(_) => {
            std::fs::remove_file(&large).unwrap();
            std::fs::write(&large, &data[..1000]).unwrap();
        }
    }
    let store = open(dir.path(), 1 << 30, &clock).await;
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(files(&dir.path().join("tmp")), Vec::<PathBuf>::new());
    assert!(!large.exists());
    assert_eq!(store.snapshot().used_bytes, bytes_on_disk(dir.path()));
}

#[tokio::test]
async fn links_share_the_file_and_cannot_be_written() {
    use std::os::unix::fs::MetadataExt;
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(&dir.path().join("store"), 1 << 30, &clock).await;
    let (large, data) = blob(1, 3 << 20);
    let (small, small_data) = blob(2, 3000);
    store.write(&large, data.clone()).await.unwrap();
    store.write(&small, small_data).await.unwrap();
    let destination = dir.path().join("link");
    assert!(store.link(&large, &destination).await.unwrap());
    let metadata = destination.metadata().unwrap();
    assert_eq!((metadata.nlink(), metadata.mode() & 0o7777), (2, 0o555));
    assert_eq!(std::fs::read(&destination).unwrap(), data);
    assert!(!store.link(&small, &dir.path().join("other")).await.unwrap());
    let (absent, _) = blob(3, 3 << 20);
    for digest in [absent, blob(4, 10).0] {
        let result = store.link(&digest, &dir.path().join("absent")).await;
        assert!(matches!(result, Err(StoreError::NotFound(_))));
    }
}

#[tokio::test]
async fn a_write_in_progress_holds_its_room() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(dir.path(), 8 * MIB, &clock).await;
    let (one, one_data) = blob(1, 5 << 20);
    let (two, two_data) = blob(2, 5 << 20);
    let mut writer = store.writer(&one).await.unwrap();
    assert_eq!(store.snapshot().reserved_bytes, 0, "nothing has come yet");
    writer.write(one_data).await.unwrap();
    assert_eq!(store.snapshot().reserved_bytes, 5 << 20);
    let refused = store.write(&two, two_data.clone()).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
    drop(writer);
    store.write(&two, two_data).await.unwrap();
    let (huge, _) = blob(3, 9 << 20);
    let refused = store.writer(&huge).await.map(drop);
    assert!(matches!(refused, Err(StoreError::TooLarge { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_a_blob_claims_to_be_evicts_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(dir.path(), 16 * MIB, &clock).await;
    let kept: Vec<_> = (1..=4).map(|i| blob(i, 2 << 20)).collect();
    for (digest, data) in &kept {
        store.write(digest, data.clone()).await.unwrap();
    }
    clock.advance(LEASE.as_secs() as u32 + 1);
    let (claimed, data) = blob(9, 14 << 20);
    let mut writer = store.writer(&claimed).await.unwrap();
    writer.write(data.slice(..1)).await.unwrap();
    let here = async || {
        let mut here = 0;
        for (digest, _) in &kept {
            here += usize::from(read(&store, digest).await.is_ok());
        }
        here
    };
    assert_eq!(here().await, 4);
    // Only bytes that were written make the store evict others.
    writer.write(data.slice(1..)).await.unwrap();
    writer.commit().await.unwrap();
    assert!(here().await < 4);
}

#[tokio::test]
async fn unfinished_writes_are_given_up_for_whoever_comes() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(dir.path(), 8 * MIB, &clock).await;
    let (broken, data) = blob(1, 5 << 20);
    let mut writer = store.writer(&broken).await.unwrap();
    writer.write(data).await.unwrap();
    let unfinished = std::sync::Mutex::new(Some(writer));
    store.on_full(move || unfinished.lock().unwrap().take().is_some());
    let (whole, data) = blob(2, 5 << 20);
    store.write(&whole, data).await.unwrap();
    let (more, data) = blob(3, 5 << 20);
    let refused = store.write(&more, data).await;
    assert!(matches!(refused, Err(StoreError::Full { .. })), "{refused:?}");
}

#[tokio::test]
async fn what_cannot_be_removed_stays_known_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let (digest, data) = blob(1, 3 << 20);
    store.write(&digest, data.clone()).await.unwrap();
    let used = store.snapshot().used_bytes;
    let ruling = Ruling::strict(1000 + 2 * LEASE.as_secs() as u32);
    let evict = || store.contents.large.evict(&ruling, |_, _| true);
    // No file can be moved to where a directory was.
    let temporary = dir.path().join("tmp");
    std::fs::remove_dir(&temporary).unwrap();
    std::fs::write(&temporary, "").unwrap();
    assert_eq!(evict(), 0);
    assert_eq!(store.snapshot().used_bytes, used);
    assert_eq!(read(&store, &digest).await.unwrap(), data);
    std::fs::remove_file(&temporary).unwrap();
    std::fs::create_dir(&temporary).unwrap();
    assert_eq!(evict(), 1);
    assert_eq!(store.snapshot().used_bytes, used - (3 << 20));
    assert_eq!(files(&temporary), Vec::<PathBuf>::new());
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
}

#[tokio::test]
async fn a_file_that_is_gone_already_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let (digest, data) = blob(1, 3 << 20);
    let used = store.snapshot().used_bytes;
    store.write(&digest, data).await.unwrap();
    std::fs::remove_file(store.contents.large.path(&digest)).unwrap();
    let ruling = Ruling::strict(1000 + 2 * LEASE.as_secs() as u32);
    assert_eq!(store.contents.large.evict(&ruling, |_, _| true), 1);
    assert_eq!(store.snapshot().used_bytes, used);
}

const FULL_DISK: &str = "KILN_TEST_FULL_DISK";

/// Runs in a mount namespace of its own, on a file system of 12 MiB.
#[tokio::test]
async fn on_a_full_disk() {
    let Some(dir) = std::env::var_os(FULL_DISK).map(PathBuf::from) else { return };
    let clock = Clock::manual(1000);
    let store = open(&dir, 1 << 30, &clock).await;
    for size in [3000, 200_000, 700_000, 2_500_000] {
        let mut stored = Vec::new();
        let error = loop {
            let seed = size as u64 * 1_000_000 + stored.len() as u64;
            let (digest, data) = blob(seed, size);
            match store.write(&digest, data).await {
                Ok(()) => stored.push(digest),
                Err(error) => {
                    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
                    break error;
                }
            }
        };
        assert!(matches!(error, StoreError::DiskFull { .. }), "{size}: {error}");
        assert_eq!(files(&dir.join("tmp")), Vec::<PathBuf>::new());
        assert_eq!(store.snapshot().used_bytes, bytes_on_disk(&dir));
        for digest in &stored {
            let data = read(&store, digest).await.unwrap();
            assert_eq!(digest.function.digest(&data), *digest);
        }
        // When there is room again, the store takes blobs as before.
        clock.advance(5000);
        store.contents.capacity.free(&store.contents, 0).await.unwrap();
        assert_eq!(store.snapshot().blobs, 0);
        let (digest, data) = blob(7, size);
        store.write(&digest, data).await.unwrap();
    }
    println!("the disk was full and the store went on");
}

#[test]
fn a_full_disk_is_named_and_leaves_nothing_partial() {
    let dir = tempfile::tempdir().unwrap();
    let script =
        "mount -t tmpfs -o size=12m kiln-test \"$KILN_TEST_FULL_DISK\" && exec \"$0\" \"$@\"";
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", "stores::disk::tests::on_a_full_disk", "--nocapture"])
        .env(FULL_DISK, dir.path())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return eprintln!("SKIPPED: unshare (util-linux) cannot be run: {error}"),
    };
    let (out, err) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if err.contains("unshare failed") {
        return eprintln!("SKIPPED: no user namespaces here: {err}");
    }
    assert!(out.contains("the store went on"), "{out}\n{err}");
}

#[tokio::test]
async fn what_is_durable_already_is_not_synced_again() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 64 * MIB, &Clock::manual(1000)).await;
    // A sync that has nothing to do ends before it has to wait for another thread.
    let is_over = || store.sync().now_or_never().is_some_and(|synced| synced.is_ok());
    store.sync().await.unwrap();
    assert!(is_over());
    for size in [100, 2_000_000] {
        let (digest, data) = blob(1, size);
        store.write(&digest, data.clone()).await.unwrap();
        assert!(!is_over(), "{size} bytes are new");
        store.sync().await.unwrap();
        assert!(is_over());
        store.write(&digest, data).await.unwrap();
        assert!(is_over(), "{size} bytes were there");
    }
    store.close().await.unwrap();
}
