use futures_util::StreamExt as _;
use rustix::fs::{Advice, fadvise};

use super::*;
use crate::blob::Blob;

#[tokio::test]
async fn a_stream_is_the_same_out_of_the_page_cache_and_from_the_disk() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let (digest, data) = blob(1, (3 << 20) + 7);
    store.write(&digest, data.clone()).await.unwrap();
    store.sync().await.unwrap();
    let path = files(dir.path()).into_iter().max_by_key(|it| it.metadata().unwrap().len()).unwrap();
    let file = std::fs::File::open(path).unwrap();
    for round in 0..4 {
        assert_eq!(read(&store, &digest).await.unwrap(), data, "round {round}");
        // In the next round the kernel has none of the file in memory, or half of it.
        let from = (round % 2) << 20;
        fadvise(&file, from, None, Advice::DontNeed).unwrap();
        let part = store.read(&digest, 300_001, Some(2 << 20)).await.unwrap();
        let wanted = data.slice(300_001..300_001 + (2 << 20));
        assert_eq!(part.collect(u64::MAX).await.unwrap(), wanted, "round {round}");
    }
}

#[tokio::test]
async fn a_file_that_is_cut_while_it_is_streamed_ends_the_stream_with_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    let (digest, data) = blob(1, 3 << 20);
    store.write(&digest, data.clone()).await.unwrap();
    let Blob::Stream(mut pieces) = store.read(&digest, 0, None).await.unwrap() else {
        panic!("it is large");
    };
    assert!(pieces.next().await.unwrap().is_ok());
    let path = files(dir.path()).into_iter().max_by_key(|it| it.metadata().unwrap().len()).unwrap();
    std::fs::OpenOptions::new().write(true).open(path).unwrap().set_len(1 << 20).unwrap();
    let rest: Vec<_> = pieces.collect().await;
    assert!(matches!(rest.last(), Some(Err(StoreError::NotFound(_)))), "{rest:?}");
    check_dropped(&store, digest, &data).await;
}

#[tokio::test]
async fn whoever_reads_a_large_blob_out_of_the_page_cache_leaves_others_their_turn() {
    let dir = tempfile::tempdir().unwrap();
    let store = open(dir.path(), 1 << 30, &Clock::manual(1000)).await;
    // More pieces than a task may have without a pause.
    let (digest, data) = blob(1, 40 << 20);
    store.write(&digest, data).await.unwrap();
    let Blob::Stream(mut pieces) = store.read(&digest, 0, None).await.unwrap() else {
        panic!("it is large");
    };
    let other = tokio::spawn(async {});
    while let Some(piece) = pieces.next().await {
        piece.unwrap();
    }
    assert!(other.is_finished());
}
