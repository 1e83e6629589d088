//! With a real object store that goes wrong.

use std::sync::Arc;
use std::time::Duration;

use kiln_test_servers::proxy::{Fault, Proxy};
use kiln_test_servers::s3::Weed;

use super::rig::{LEASE, read};
use crate::blob::BlobStore;
use crate::clock::Clock;
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::indexed::{Indexed, IndexedOptions, MemoryIndex, rebuild};
use crate::stores::s3::{S3Config, S3Credentials, S3Objects};

pub fn config(weed: &Weed, endpoint: String, timeout: Duration) -> S3Config {
    let keys = weed.credentials();
    S3Config {
        endpoint: Some(endpoint),
        timeout,
        credentials: Some(S3Credentials {
            access_key: keys.access_key.to_owned(),
            secret_key: keys.secret_key.to_owned(),
        }),
        ..format!("s3://{}", weed.bucket()).parse().unwrap()
    }
}

async fn indexed(index: &Arc<MemoryIndex>, objects: S3Objects) -> Indexed {
    let patience = Duration::from_secs(4);
    let options = IndexedOptions { lease: LEASE, patience, ..IndexedOptions::default() };
    Indexed::open(index.clone(), Arc::new(objects), options).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn blobs_are_written_synced_read_and_rebuilt_through_bursts_of_errors() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::start(&weed.address());
    let config = config(&weed, proxy.endpoint(), Duration::from_secs(1));
    let objects = S3Objects::open(&config).await.unwrap();
    let index = Arc::new(MemoryIndex::new(Clock::system()));
    let store = indexed(&index, objects.clone()).await;
    // A third of all requests goes wrong, each in the next way.
    let faults = [
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Hangup,
        Fault::LoseAnswer,
        Fault::Truncate(10),
        Fault::Delay(Duration::from_millis(50)),
    ];
    proxy.plan(move |request| {
        let number = request.number as usize;
        (number % 3 == 1).then(|| faults[number / 3 % faults.len()])
    });
    let sizes = |seed: u64| match seed {
        5 => 17 << 20,
        10 | 20 => 5 << 20,
        _ if seed.is_multiple_of(3) => 100_000,
        _ => 100,
    };
    let blobs: Vec<_> = (0..60).map(|seed| blob(seed, sizes(seed))).collect();
    for (digest, data) in &blobs {
        store.write(digest, data.clone()).await.unwrap();
    }
    store.sync().await.unwrap();
    let digests: Vec<_> = blobs.iter().map(|(digest, _)| *digest).collect();
    let other = indexed(&index, objects.clone()).await;
    assert_eq!(other.find_missing(&digests).await.unwrap(), []);
    for (digest, data) in &blobs {
        assert_eq!(read(&other, digest).await.unwrap(), data);
    }
    index.wipe();
    let rebuilt = rebuild(&*index, &objects, LEASE, &mut |_| {}).await.unwrap();
    assert_eq!(rebuilt.blobs, 60);
    let fresh = indexed(&index, objects).await;
    assert!(!fresh.stats().index_incomplete);
    for (digest, data) in &blobs {
        assert_eq!(read(&fresh, digest).await.unwrap(), data);
    }
    for store in [store, other, fresh] {
        store.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_store_that_is_down_at_the_start_is_waited_for() {
    let Some(mut weed) = Weed::start() else { return };
    weed.kill();
    // An answer that a busy machine delays is none that is missing.
    let config = config(&weed, weed.endpoint(), Duration::from_secs(2));
    let objects = S3Objects::connect(&config).await.unwrap();
    let index = Arc::new(MemoryIndex::new(Clock::system()));
    let store = indexed(&index, objects).await;
    let (small, small_data) = blob(1, 100);
    let (large, large_data) = blob(2, 100_000);
    store.write(&small, small_data.clone()).await.unwrap();
    assert_eq!(read(&store, &small).await.unwrap(), small_data);
    for result in [store.sync().await, store.write(&large, large_data.clone()).await] {
        assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    }
    weed.restart();
    store.write(&large, large_data.clone()).await.unwrap();
    store.sync().await.unwrap();
    assert_eq!(read(&store, &large).await.unwrap(), large_data);
    // The store behaves alike when S3 dies in the middle of its operation.
    weed.kill();
    let result = read(&store, &large).await;
    assert!(matches!(result, Err(StoreError::Unavailable(_))), "{result:?}");
    weed.restart();
    assert_eq!(read(&store, &large).await.unwrap(), large_data);
    store.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_missing_or_forbidden_fails_syncs_with_the_reason() {
    let Some(weed) = Weed::start() else { return };
    let good = config(&weed, weed.endpoint(), Duration::from_secs(1));
    let stranger = weed.stranger();
    let forbidden = S3Config {
        credentials: Some(S3Credentials {
            access_key: stranger.access_key.to_owned(),
            secret_key: stranger.secret_key.to_owned(),
        }),
        ..good.clone()
    };
    let missing = S3Config { bucket: "no-such-bucket".to_owned(), ..good };
    for (config, reason) in [(forbidden, "PutObject"), (missing, "create the bucket")] {
        let index = Arc::new(MemoryIndex::new(Clock::system()));
        let store = indexed(&index, S3Objects::connect(&config).await.unwrap()).await;
        let (digest, data) = blob(1, 100);
        store.write(&digest, data).await.unwrap();
        let error = store.sync().await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
        assert!(error.to_string().contains(reason), "{error}");
        let (digest, data) = blob(2, 100_000);
        let error = store.write(&digest, data).await.unwrap_err();
        assert!(error.to_string().contains(reason), "{error}");
    }
}
