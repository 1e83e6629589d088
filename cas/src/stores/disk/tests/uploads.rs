//! Large blobs that arrive in pieces: whole, too short, too long, wrong, and given up on their way.

use super::*;
use crate::blob::BlobWriter;
use crate::digest::DigestFunction;
use crate::stores::Verified;

async fn write_pieces(
    writer: &mut Box<dyn BlobWriter>,
    data: &Bytes,
    size: usize,
) -> Result<(), StoreError> {
    for start in (0..data.len()).step_by(size) {
        writer.write(data.slice(start..data.len().min(start + size))).await?;
    }
    Ok(())
}

/// Waits until no file of an unfinished blob is left; no room is set aside for one.
async fn await_nothing_unfinished(store: &DiskBlobStore, dir: &Path) {
    let removed = async {
        while !files(&dir.join("tmp")).is_empty() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), removed).await.expect("the file is removed");
    assert_eq!(store.snapshot().reserved_bytes, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pieces_of_any_size_make_the_blob() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let sizes = [300_001, 3 << 20, 17 << 20, (17 << 20) + 4095];
    for (size, piece) in sizes.into_iter().zip([7001, 65_536, 65_541, 4 << 20]) {
        let (digest, data) = blob(size as u64, size);
        let mut writer = store.writer(&digest).await.unwrap();
        write_pieces(&mut writer, &data, piece).await.unwrap();
        assert_eq!(store.absent(&[digest]).await.unwrap(), [digest], "it is not committed");
        writer.commit().await.unwrap();
        assert!(read(&store, &digest).await.unwrap() == data, "{size} bytes");
        await_nothing_unfinished(&store, dir.path()).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_given_up_on_its_way_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let (digest, data) = blob(1, 17 << 20);
    for sent in [1, 1 << 20, 5_000_000, 17 << 20] {
        let mut writer = store.writer(&digest).await.unwrap();
        write_pieces(&mut writer, &data.slice(..sent), 65_536).await.unwrap();
        drop(writer);
        await_nothing_unfinished(&store, dir.path()).await;
        assert_eq!(store.absent(&[digest]).await.unwrap(), [digest], "{sent} bytes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_bytes_than_the_digest_says_are_never_seen() {
    let dir = tempfile::tempdir().unwrap();
    let disk = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let store = Verified::new(disk.clone());
    let (digest, data) = blob(1, 17 << 20);
    for place in [0, 5 << 20, (17 << 20) - 1] {
        let mut wrong = data.to_vec();
        wrong[place] ^= 1;
        let mut writer = store.writer(&digest).await.unwrap();
        write_pieces(&mut writer, &wrong.into(), 65_536).await.unwrap();
        let refused = writer.commit().await;
        assert!(matches!(refused, Err(StoreError::DigestMismatch { .. })), "{refused:?}");
        await_nothing_unfinished(&disk, dir.path()).await;
    }
    let mut writer = store.writer(&digest).await.unwrap();
    write_pieces(&mut writer, &data.slice(1..), 65_536).await.unwrap();
    let short = writer.commit().await;
    assert!(matches!(short, Err(StoreError::SizeMismatch { .. })), "{short:?}");
    let mut writer = store.writer(&digest).await.unwrap();
    write_pieces(&mut writer, &data, 65_536).await.unwrap();
    let long = writer.write(data.slice(..1)).await;
    assert!(matches!(long, Err(StoreError::SizeMismatch { .. })), "{long:?}");
    drop(writer);
    await_nothing_unfinished(&disk, dir.path()).await;
    assert_eq!(disk.absent(&[digest]).await.unwrap(), [digest]);
}

/// Without room the bytes are hashed all the same: the blob may be there already.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_itself_without_room_is_hashed_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let clock = Clock::manual(1000);
    let store = open(dir.path(), 12 * MIB, &clock).await;
    let (held, held_data) = blob(1, 6 << 20);
    store.write(&held, held_data.clone()).await.unwrap();
    let name = async |data: &Bytes, most: u64| {
        let writer = store.naming_writer(DigestFunction::Sha256, most).await.unwrap();
        let mut writer = writer.expect("a disk offers it");
        for piece in data.chunks(65_536) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        writer.finish().await.unwrap()
    };
    let (digest, data) = blob(2, 8 << 20);
    for (what, most) in [("the other one is promised", 8 * MIB), ("it never fits", 80 * MIB)] {
        assert_eq!(name(&data, most).await, (digest, false), "{what}");
        await_nothing_unfinished(&store, dir.path()).await;
        assert_eq!(store.absent(&[digest, held]).await.unwrap(), [digest], "{what}");
    }
    clock.advance(2000);
    assert_eq!(name(&data, 8 * MIB).await, (digest, true));
    assert!(read(&store, &digest).await.unwrap() == data);
    await_nothing_unfinished(&store, dir.path()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_names_itself_and_is_given_up_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let (digest, data) = blob(3, 17 << 20);
    for sent in [1, 300_000, 5_000_000] {
        let writer = store.naming_writer(DigestFunction::Sha256, 18 << 20).await.unwrap();
        let mut writer = writer.expect("a disk offers it");
        for piece in data[..sent].chunks(65_536) {
            writer.write(Bytes::copy_from_slice(piece)).await.unwrap();
        }
        drop(writer);
        await_nothing_unfinished(&store, dir.path()).await;
        assert_eq!(store.absent(&[digest]).await.unwrap(), [digest], "{sent} bytes");
    }
}
