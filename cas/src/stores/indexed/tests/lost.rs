//! Real servers, and an index that is lost while processes serve.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_protos::reapi;
use kiln_test_servers::proxy::{Fault, Proxy};
use kiln_test_servers::redis::RedisServer;
use kiln_test_servers::s3::Weed;
use kiln_test_servers::slow::SlowProxy;
use prost::Message;

use super::in_s3::config;
use super::rig::{LEASE, Rig, read};
use crate::action_cache::{ActionCache, ActionKey};
use crate::blob::BlobStore;
use crate::clock::Clock;
use crate::digest::Digest;
use crate::redis::Redis;
use crate::redis::tests::{alone, connect};
use crate::stores::actions::CompletenessChecking;
use crate::stores::contract::blob;
use crate::stores::indexed::{Indexed, IndexedOptions};
use crate::stores::redis::{
    RedisActionCache, RedisActionCacheOptions, RedisBlobIndex, RedisBlobIndexOptions,
};
use crate::stores::s3::S3Objects;

struct Servers {
    weed: Weed,
    server: RedisServer,
    redis: Redis,
}

impl Servers {
    async fn start() -> Option<Self> {
        let weed = Weed::start()?;
        let (server, redis) = alone().await?;
        Some(Self { weed, server, redis })
    }

    /// Starts a process of the fleet that reaches S3 at `endpoint`.
    async fn process(&self, endpoint: String, interval: Duration) -> Indexed {
        let index = RedisBlobIndex::new(self.redis.clone(), RedisBlobIndexOptions::default());
        let objects = config(&self.weed, endpoint, Duration::from_secs(1));
        let objects = S3Objects::connect(&objects).await.unwrap();
        let options = IndexedOptions { lease: LEASE, interval, ..IndexedOptions::default() };
        Indexed::open(Arc::new(index), Arc::new(objects), options).await
    }

    fn results(&self, blobs: &Indexed) -> CompletenessChecking {
        let options = RedisActionCacheOptions::default();
        let results = Arc::new(RedisActionCache::new(self.redis.clone(), options));
        CompletenessChecking::new(results, Arc::new(blobs.clone()), 1 << 20, Clock::system())
    }
}

/// A result with one output.
fn result(output: &Digest) -> Bytes {
    let hash = output.hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let digest = reapi::Digest { hash, size_bytes: output.size as i64 };
    let file = reapi::OutputFile {
        path: "output".to_owned(),
        digest: Some(digest),
        ..reapi::OutputFile::default()
    };
    let result = reapi::ActionResult { output_files: vec![file], ..Default::default() };
    result.encode_to_vec().into()
}

/// Nothing tells the process that the index is gone: it answers out of its memory.
const UNNOTICED: Duration = Duration::from_secs(3600);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_reported_present_after_the_index_was_lost_can_be_read() {
    let Some(servers) = Servers::start().await else { return };
    let proxy = Proxy::start(&servers.weed.address());
    let store = servers.process(servers.weed.endpoint(), UNNOTICED).await;
    let fresh = servers.process(servers.weed.endpoint(), UNNOTICED).await;
    let other = servers.process(proxy.endpoint(), UNNOTICED).await;
    // Small ones and large ones that are in S3, each written by either process.
    let settled: Vec<_> =
        (0..40).map(|seed| blob(seed, [100, 100_000][seed as usize % 2])).collect();
    for (number, (digest, data)) in settled.iter().enumerate() {
        let writer = [&store, &other][number / 2 % 2];
        writer.write(digest, data.clone()).await.unwrap();
    }
    store.sync().await.unwrap();
    other.sync().await.unwrap();
    // Small ones that S3 does not take from now on: Redis alone has them.
    proxy.plan(|request| (request.method == "PUT").then_some(Fault::Hangup));
    let pending: Vec<_> = (100..120).map(|seed| blob(seed, 100)).collect();
    for (digest, data) in &pending {
        other.write(digest, data.clone()).await.unwrap();
    }
    let all: Vec<_> = settled.iter().chain(&pending).map(|(digest, _)| *digest).collect();
    let results = servers.results(&store);
    let function = all[0].function;
    let keys: Vec<_> = (all.iter())
        .map(|output| ActionKey { instance: "".into(), action: function.digest(&output.hash) })
        .collect();
    for (key, output) in keys.iter().zip(&all) {
        results.put(key, result(output)).await.unwrap();
        assert!(results.get(key).await.unwrap().is_some(), "a hit before the loss");
    }
    assert_eq!(store.find_missing(&all).await.unwrap(), []);
    // The process that was to carry these blobs to S3 dies, and then the index is lost.
    drop(other);
    assert_eq!(servers.server.command(&["FLUSHALL"]), "OK");

    let before = servers.redis.round_trips();
    let missing = store.find_missing(&all[..settled.len()]).await.unwrap();
    assert_eq!(missing, [], "what is in S3 is answered out of memory");
    assert_eq!(servers.redis.round_trips(), before);
    let missing = store.find_missing(&all).await.unwrap();
    for (number, digest) in all.iter().enumerate() {
        let hit = results.get(&keys[number]).await.unwrap().is_some();
        assert_eq!(hit, number < settled.len(), "{number}: a hit names what can be read");
        if missing.contains(digest) {
            continue;
        }
        // Both the process that has seen the loss and one that knows nothing yet can read the blob.
        for process in [&store, &fresh] {
            let found = read(process, digest).await;
            assert!(found.is_ok(), "blob {number} was reported present: {found:?}");
            assert_eq!(found.unwrap(), settled[number].1);
        }
    }
}

/// Redis fails over to a replica that lacks a result's blobs, between the look at the blobs and the
/// publication of the result. The process that publishes learns of that by the count of failures, and nobody
/// takes the result for a hit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_puts_a_result_at_the_next_master_learns_that_its_blobs_may_be_lost() {
    let (Some(weed), Some(server)) = (Weed::start(), RedisServer::start()) else { return };
    let port = server.port().to_string();
    let replica = RedisServer::start_with(&["--replicaof", "127.0.0.1", &port]).unwrap();
    replica.wait_until(&["INFO", "replication"], |info| info.contains("link_status:up"));
    let proxy = SlowProxy::start(server.port(), Duration::ZERO).await;
    let redis = connect(&format!("redis://127.0.0.1:{}", proxy.port())).await;
    let mut servers = Servers { weed, server, redis };
    let store = servers.process(servers.weed.endpoint(), UNNOTICED).await;
    let results = servers.results(&store);
    // From now on the replica does not hear of what the master writes.
    assert_eq!(replica.command(&["REPLICAOF", "NO", "ONE"]), "OK");
    let (digest, data) = blob(1, 100_000);
    store.write(&digest, data).await.unwrap();
    let failures = results.failures();
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
    servers.server.kill();
    proxy.turn_to(replica.port());
    let action = digest.function.digest(&digest.hash);
    let key = ActionKey { instance: "".into(), action };
    results.put(&key, result(&digest)).await.unwrap();
    assert!(results.failures() > failures, "the blob was found at the master before");
    assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest]);
    assert_eq!(results.get(&key).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_was_idle_notices_the_loss_before_it_promises() {
    let Some(servers) = Servers::start().await else { return };
    let interval = Duration::from_millis(500);
    let store = servers.process(servers.weed.endpoint(), interval).await;
    let digests: Vec<_> = [100, 100_000].map(|size| blob(size, size as usize)).to_vec();
    for (digest, data) in &digests {
        store.write(digest, data.clone()).await.unwrap();
    }
    store.sync().await.unwrap();
    let digests: Vec<_> = digests.iter().map(|(digest, _)| *digest).collect();
    assert_eq!(store.find_missing(&digests).await.unwrap(), []);
    tokio::time::sleep(4 * interval).await;
    assert_eq!(servers.server.command(&["FLUSHALL"]), "OK");
    tokio::time::sleep(interval).await;
    assert_eq!(store.find_missing(&digests).await.unwrap(), digests);
}

#[tokio::test(start_paused = true)]
async fn however_long_it_was_idle() {
    for seconds in [10, 60, 61, 119, 200, 1000] {
        let rig = Rig::new();
        let store = rig.process().await;
        let (digest, data) = blob(1, 100_000);
        store.write(&digest, data).await.unwrap();
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        rig.index.inner.wipe();
        tokio::time::sleep(Duration::from_secs(5)).await;
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), [digest], "after {seconds} s");
        // The store's upkeep notices the loss, within two rounds unless the machine is busy.
        for _ in 0..600 {
            if store.stats().index_incomplete {
                break;
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        assert!(store.stats().index_incomplete, "after {seconds} s");
    }
}

#[tokio::test(start_paused = true)]
async fn questions_that_are_answered_out_of_memory_cost_one_call_in_five_seconds() {
    let rig = Rig::new();
    let store = rig.process().await;
    let (digest, data) = blob(1, 100_000);
    store.write(&digest, data).await.unwrap();
    rig.index.calls();
    for _ in 0..600 {
        assert_eq!(store.find_missing(&[digest]).await.unwrap(), []);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let calls = rig.index.calls();
    // A minute of upkeep is 12 calls.
    assert!((12..=25).contains(&calls), "{calls} calls in a minute");
}
