//! Completeness: what a hit promises, and what makes one a miss.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_protos::reapi;
use prost::Message;

use super::*;
use crate::action_cache::{ActionCache, ActionKey};
use crate::blob::BlobStore;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::stores::{Clock, Faults, Faulty, MemoryBlobStore, Operation};

const LEASE: u32 = 1000;

struct House {
    blobs: Arc<Faulty<MemoryBlobStore>>,
    faults: Faults,
    actions: Arc<MemoryActionCache>,
    checked: CompletenessChecking,
    clock: Clock,
}

fn house(memory: usize) -> House {
    let clock = Clock::manual(5000);
    let lease = Duration::from_secs(LEASE.into());
    let faults = Faults::default();
    let blobs = MemoryBlobStore::new(100_000, lease, clock.clone());
    let blobs = Arc::new(Faulty::new(blobs, faults.clone()));
    let actions = Arc::new(MemoryActionCache::default());
    let checked = CompletenessChecking::new(actions.clone(), blobs.clone(), memory, clock.clone());
    House { blobs, faults, actions, checked, clock }
}

async fn store(house: &House, data: &[u8]) -> Digest {
    let digest = DigestFunction::Sha256.digest(data);
    house.blobs.write(&digest, Bytes::copy_from_slice(data)).await.unwrap();
    digest
}

fn key() -> ActionKey {
    ActionKey { instance: "a/b".into(), action: DigestFunction::Sha256.digest(b"action") }
}

fn file(name: &str, digest: &Digest) -> reapi::FileNode {
    let (name, digest) = (name.to_owned(), Some(digest.to_wire()));
    reapi::FileNode { name, digest, ..Default::default() }
}

/// A result with a file, standard output, a tree with a nested file, and separately stored
/// directories.
async fn rich_result(house: &House) -> (reapi::ActionResult, Vec<Digest>) {
    let output = store(house, b"output").await;
    let stdout = store(house, b"stdout").await;
    let in_root = store(house, b"in the root").await;
    let in_child = store(house, b"in the child").await;
    let child = reapi::Directory { files: vec![file("c", &in_child)], ..Default::default() };
    let child_digest = store(house, &child.encode_to_vec()).await;
    let root = reapi::Directory {
        files: vec![file("r", &in_root)],
        directories: vec![reapi::DirectoryNode {
            name: "child".to_owned(),
            digest: Some(child_digest.to_wire()),
        }],
        ..Default::default()
    };
    let root_digest = store(house, &root.encode_to_vec()).await;
    let tree = reapi::Tree { root: Some(root), children: vec![child] };
    let tree_digest = store(house, &tree.encode_to_vec()).await;
    let result = reapi::ActionResult {
        output_files: vec![reapi::OutputFile {
            path: "out".to_owned(),
            digest: Some(output.to_wire()),
            ..Default::default()
        }],
        output_directories: vec![reapi::OutputDirectory {
            path: "dir".to_owned(),
            tree_digest: Some(tree_digest.to_wire()),
            root_directory_digest: Some(root_digest.to_wire()),
            ..Default::default()
        }],
        stdout_digest: Some(stdout.to_wire()),
        ..Default::default()
    };
    let all = vec![output, stdout, in_root, in_child, tree_digest, root_digest, child_digest];
    (result, all)
}

#[tokio::test]
async fn the_closure_names_every_blob_once() {
    let house = house(0);
    let (result, mut expected) = rich_result(&house).await;
    let mut found = closure(&result, DigestFunction::Sha256, &*house.blobs).await.unwrap();
    found.sort_unstable();
    expected.sort_unstable();
    assert_eq!(found, expected);
}

#[tokio::test]
async fn a_hit_promises_everything_and_one_absent_blob_makes_it_a_miss() {
    for memory in [0, 1 << 20] {
        for absent in 0..7 {
            let house = house(memory);
            let (result, all) = rich_result(&house).await;
            let encoded = Bytes::from(result.encode_to_vec());
            house.checked.put(&key(), encoded.clone()).await.unwrap();
            assert_eq!(house.checked.get(&key()).await.unwrap(), Some(encoded.clone()));

            // After the hit, the store keeps the result's blobs through pressure for a whole lease.
            house.clock.advance(LEASE - 1);
            assert_eq!(house.checked.get(&key()).await.unwrap(), Some(encoded));
            house.clock.advance(LEASE - 1);
            let filler = vec![7; 99_900];
            let digest = DigestFunction::Sha256.digest(&filler);
            let full = house.blobs.write(&digest, filler.into()).await;
            assert!(matches!(full, Err(StoreError::Full { .. })));
            assert_eq!(house.blobs.find_missing(&all).await.unwrap(), []);

            // The test asks for all blobs but one, so only that one is evicted.
            house.clock.advance(LEASE / 2);
            let mut kept = all.clone();
            let gone = kept.remove(absent);
            house.blobs.find_missing(&kept).await.unwrap();
            house.clock.advance(LEASE / 2);
            let bytes: u64 = all.iter().map(|digest| digest.size).sum();
            let filler = vec![8; (100_000 - bytes + 1) as usize];
            house
                .blobs
                .write(&DigestFunction::Sha256.digest(&filler), filler.into())
                .await
                .unwrap();
            assert_eq!(house.checked.get(&key()).await.unwrap(), None, "without {gone}");
            assert_eq!(house.checked.get(&key()).await.unwrap(), None, "without {gone}");
        }
    }
}

#[tokio::test]
async fn a_repeated_hit_reads_nothing_and_an_overwrite_is_seen_at_once() {
    let house = house(1 << 20);
    let (result, _) = rich_result(&house).await;
    house.checked.put(&key(), result.encode_to_vec().into()).await.unwrap();
    house.checked.get(&key()).await.unwrap();
    let (reads, asked) =
        (house.faults.count(Operation::Read), house.faults.count(Operation::FindMissing));
    house.checked.get(&key()).await.unwrap();
    assert_eq!(house.faults.count(Operation::Read), reads);
    assert_eq!(house.faults.count(Operation::FindMissing), asked + 1);

    house.checked.put(&key(), Bytes::new()).await.unwrap();
    assert_eq!(house.checked.get(&key()).await.unwrap(), Some(Bytes::new()));
    // An overwrite behind its back is seen after a while.
    house.actions.put(&key(), result.encode_to_vec().into()).await.unwrap();
    house.clock.advance(301);
    assert_eq!(house.checked.get(&key()).await.unwrap(), Some(result.encode_to_vec().into()));
}

#[tokio::test]
async fn a_hit_that_the_cache_has_lost_is_given_back_to_it() {
    let house = house(1 << 20);
    let (result, _) = rich_result(&house).await;
    let encoded = Bytes::from(result.encode_to_vec());
    house.checked.put(&key(), encoded.clone()).await.unwrap();
    assert!(house.checked.get(&key()).await.unwrap().is_some());
    house.actions.fail_over(&[key()]);
    assert_eq!(house.actions.get(&key()).await.unwrap(), None, "no other process knows it");
    assert_eq!(house.checked.get(&key()).await.unwrap(), Some(encoded.clone()));
    assert_eq!(house.actions.get(&key()).await.unwrap(), Some(encoded));

    // If another process has written a result meanwhile, the earlier one does not replace it.
    house.actions.fail_over(&[key()]);
    house.actions.put(&key(), Bytes::new()).await.unwrap();
    house.checked.get(&key()).await.unwrap();
    assert_eq!(house.checked.get(&key()).await.unwrap(), Some(Bytes::new()));
}

#[tokio::test]
async fn unusable_results_are_misses_and_a_failing_store_is_an_error() {
    let house = house(1 << 20);
    house.actions.put(&key(), Bytes::from_static(b"\xff\xff")).await.unwrap();
    assert_eq!(house.checked.get(&key()).await.unwrap(), None);

    let (mut result, _) = rich_result(&house).await;
    let garbage = store(&house, b"\xff no tree").await;
    result.output_directories[0].tree_digest = Some(garbage.to_wire());
    house.actions.put(&key(), result.encode_to_vec().into()).await.unwrap();
    assert_eq!(house.checked.get(&key()).await.unwrap(), None);

    result.output_directories.clear();
    result.output_files[0].digest = Some(reapi::Digest { hash: "x".to_owned(), size_bytes: 1 });
    house.actions.put(&key(), result.encode_to_vec().into()).await.unwrap();
    assert_eq!(house.checked.get(&key()).await.unwrap(), None);

    let (result, _) = rich_result(&house).await;
    house.actions.put(&key(), result.encode_to_vec().into()).await.unwrap();
    let down = StoreError::unavailable("down");
    house.faults.fail_next(Operation::FindMissing, down);
    assert!(matches!(house.checked.get(&key()).await, Err(StoreError::Unavailable(_))));
    assert!(house.checked.get(&key()).await.unwrap().is_some());
}
