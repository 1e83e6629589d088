//! A store that is too small for what clients write keeps all blobs that it promised, refuses those that it cannot
//! keep, and gives out only whole ones.

use crate::support;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_protos::reapi::{self, batch_update_blobs_request};
use support::reapi::{Client, Connection};
use support::server::{Server, get_json};
use tonic::Code;

const CLIENTS: u64 = 4;
/// How many blobs each client writes. Together they are some four times what the store holds.
const BLOBS: u64 = 600;
/// How many of its blobs, old and new ones, a client asks about at a time.
const ASKED: usize = 20;

#[derive(Default)]
struct Seen {
    written: AtomicU64,
    refused: AtomicU64,
    missing: AtomicU64,
    read: AtomicU64,
}

/// Returns bytes that only this client and number have: mostly few, sometimes more than a megabyte.
fn blob(client: u64, number: u64) -> Vec<u8> {
    let size = match number % 25 {
        24 => 3_000_000,
        few => 2_000 + few as usize * 1_500,
    };
    let seed = format!("{client}/{number}/").into_bytes();
    let mut data = seed.repeat(size / seed.len() + 1);
    data.truncate(size);
    data
}

struct Writer {
    number: u64,
    client: Client,
    cas: ContentAddressableStorageClient<Connection>,
    mine: Vec<(u64, reapi::Digest)>,
    seen: Arc<Seen>,
}

impl Writer {
    async fn work(mut self) {
        for number in 0..BLOBS {
            self.write(number).await;
            if number % 10 == 9 {
                self.what_is_reported_can_be_read().await;
            }
        }
    }

    async fn write(&mut self, number: u64) {
        let data = blob(self.number, number);
        let digest = kiln_cas::DigestFunction::Sha256.digest(&data).to_wire();
        let request = batch_update_blobs_request::Request {
            digest: Some(digest.clone()),
            data,
            ..Default::default()
        };
        let request = reapi::BatchUpdateBlobsRequest {
            instance_name: self.client.instance.clone(),
            requests: vec![request],
            ..Default::default()
        };
        let answer = self.cas.batch_update_blobs(request).await.expect("an answer").into_inner();
        let status = answer.responses[0].status.clone().unwrap_or_default();
        if status.code == 0 {
            self.seen.written.fetch_add(1, Ordering::Relaxed);
            self.mine.push((number, digest));
        } else {
            let code = Code::from_i32(status.code);
            assert_eq!(code, Code::ResourceExhausted, "{}", status.message);
            self.seen.refused.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Asserts that the client can read each blob, whole, right after the server did not report it as missing.
    async fn what_is_reported_can_be_read(&mut self) {
        let step = (self.mine.len() / ASKED).max(1);
        let asked: Vec<_> = self.mine.iter().rev().step_by(step).cloned().collect();
        let request = reapi::FindMissingBlobsRequest {
            instance_name: self.client.instance.clone(),
            blob_digests: asked.iter().map(|(_, digest)| digest.clone()).collect(),
            ..Default::default()
        };
        let missing = self.cas.find_missing_blobs(request).await.expect("an answer").into_inner();
        let missing = missing.missing_blob_digests;
        self.seen.missing.fetch_add(missing.len() as u64, Ordering::Relaxed);
        for (number, digest) in asked.iter().filter(|(_, digest)| !missing.contains(digest)) {
            let data = self.client.read(digest).await;
            assert!(data == blob(self.number, *number), "blob {number} has other bytes");
            self.seen.read.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_promise_is_kept_while_space_runs_out() {
    let directory = tempfile::tempdir().expect("a temporary directory");
    let data = directory.path().join("kiln");
    let mut command =
        support::server::command("127.0.0.1:0", &data, &["--workers", "0", "--max-size", "96MiB"]);
    command.env("KILN_STORAGE_LEASE", "2s");
    let server = Server::spawn(command, &data);
    let seen = Arc::new(Seen::default());
    let mut writers = tokio::task::JoinSet::new();
    for number in 0..CLIENTS {
        let client = Client::connect(&server.url()).await;
        let cas = ContentAddressableStorageClient::new(client.channel.clone())
            .max_decoding_message_size(16 << 20);
        let (mine, seen) = (Vec::new(), seen.clone());
        writers.spawn(Writer { number, client, cas, mine, seen }.work());
    }
    while let Some(ended) = writers.join_next().await {
        ended.expect("no promise was broken");
    }
    let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
    println!(
        "written {}, refused {}, found missing {}, read {}",
        count(&seen.written),
        count(&seen.refused),
        count(&seen.missing),
        count(&seen.read)
    );
    let storage = get_json(&server.address, "/api/v1/status")["storage"].clone();
    assert!(count(&seen.read) > 0 && count(&seen.missing) > 0, "space never ran out: {storage}");
    assert!(storage["evicted_blobs_total"].as_u64() > Some(0), "{storage}");
    assert!(storage["used_bytes"].as_u64() <= storage["max_bytes"].as_u64(), "{storage}");
}
