//! A layer is one and the same however it comes into a store, and the same files are packed once.

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::clock::Clock;
use kiln_cas::stores::{DiskBlobStore, DiskOptions, Verified};

use super::super::{CatalogError, sized};
use super::rig::House;
use super::store::Failing;
use crate::executions::tests::rig::content;

#[tokio::test]
async fn the_same_files_under_another_name_are_not_read_again() {
    let house = House::start().await;
    house.build("one", "1").await;
    let blobs = Arc::new(Failing::over(house.rig.blobs.clone()));
    let server = house.over_blobs(blobs.clone());
    let first = server.create("team/app:1.0", "one").await.unwrap();
    blobs.lose(content("program 1"));
    let second = server.create("team/app:1.1", "one").await.unwrap();
    assert_eq!(first.release.subject, second.release.subject);
    // A layer that is gone is packed anew, which needs the files.
    let (layer, size) = first.content.iter().max_by_key(|it| it.1).unwrap();
    blobs.lose(sized(layer, *size).unwrap());
    let third = server.create("team/app:1.2", "one").await;
    assert!(matches!(third, Err(CatalogError::Evicted(_))), "{third:?}");
}

/// A store on disk learns the digest at the end of the layer, the one in memory has to know it first.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_names_layers_and_one_that_does_not_keep_the_same_release() {
    let house = House::start().await;
    house.build("one", "1").await;
    let measured = house.create("team/app:1.0", "one").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let options = DiskOptions {
        dir: dir.path().to_owned(),
        max_size: 1 << 30,
        lease: Duration::from_secs(1000),
        invocations: None,
        clock: Clock::system(),
    };
    let disk = Verified::new(DiskBlobStore::open(options).await.unwrap());
    let other = House::start().await.over_blobs(Arc::new(disk));
    other.build("one", "1").await;
    let named = other.create("team/app:1.0", "one").await.unwrap();
    assert_eq!(named.release.subject, measured.release.subject);
    let parts: Vec<_> = named.content.iter().filter_map(|it| sized(&it.0, it.1)).collect();
    assert_eq!(parts.len(), named.content.len());
    assert_eq!(other.rig.blobs.find_missing(&parts).await.unwrap(), []);
}
