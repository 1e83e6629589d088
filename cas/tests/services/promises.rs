//! Whose promises are kept where a store is too small for all of them.

use std::sync::Arc;
use std::time::Duration;

use kiln_cas::promises::Invocations;
use kiln_cas::services::REQUEST_METADATA;
use kiln_cas::stores::{Clock, DiskBlobStore, DiskOptions, Verified};
use kiln_cas::{Digest, SharedBlobStore};
use kiln_protos::reapi::{FindMissingBlobsRequest, RequestMetadata};
use prost::Message;
use tonic::metadata::MetadataValue;
use tonic::{Code, Request, Status};

use crate::harness::{SHA256, Server, noise, start_with, write_request};

const MIN_LEASE: Duration = Duration::from_secs(1800);
const MIB: usize = 1 << 20;

fn named<T>(build: &str, message: T) -> Request<T> {
    let metadata = RequestMetadata { tool_invocation_id: build.into(), ..Default::default() };
    let metadata = MetadataValue::from_bytes(&metadata.encode_to_vec());
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(REQUEST_METADATA, metadata);
    request
}

async fn upload(server: &Server, build: &str, data: Vec<u8>) -> Result<Digest, Status> {
    let digest = SHA256.digest(&data);
    let name = format!("uploads/{build}/blobs/{digest}");
    let request = futures_util::stream::iter([write_request(&name, 0, &data, true)]);
    server.byte_stream().write(named(build, request)).await?;
    Ok(digest)
}

async fn missing(server: &Server, build: &str, blobs: &[Digest]) -> usize {
    let blob_digests = blobs.iter().map(Digest::to_wire).collect();
    let request = FindMissingBlobsRequest { blob_digests, ..Default::default() };
    let answer = server.cas().find_missing_blobs(named(build, request)).await.unwrap();
    answer.into_inner().missing_blob_digests.len()
}

async fn build(
    server: &Server,
    name: &str,
    blobs: u64,
    size: usize,
) -> Result<Vec<Digest>, Status> {
    let mut stored = Vec::new();
    for number in 0..blobs {
        let seed = name.bytes().fold(number + 1, |seed, byte| seed * 257 + u64::from(byte));
        stored.push(upload(server, name, noise(size, seed << 8)).await?);
    }
    Ok(stored)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn builds_go_on_and_those_that_run_keep_what_they_were_promised() {
    // Blobs in files of their own, and small ones in the log.
    for (size, count) in [(2 * MIB, 8), (100 << 10, 160)] {
        let dir = tempfile::tempdir().unwrap();
        let clock = Clock::manual(1_000_000);
        let invocations = Invocations::new(clock.clone(), MIN_LEASE);
        clock.advance(1800);
        let disk = DiskBlobStore::open(DiskOptions {
            dir: dir.path().into(),
            max_size: 20 << 20,
            lease: Duration::from_secs(13 * 3600),
            invocations: Some(invocations.clone()),
            clock: clock.clone(),
        });
        let disk = disk.await.unwrap();
        let blobs: SharedBlobStore = Arc::new(Verified::new(disk.clone()));
        let server = start_with(|config| {
            config.blobs = blobs;
            config.invocations = invocations;
        });
        let server = server.await;
        let first = build(&server, "first", count, size).await.unwrap();
        // Another one that does not end, and uses half of the same.
        let shared = &first[..first.len() / 2];
        assert_eq!(missing(&server, "patient", shared).await, 0);
        let refused = build(&server, "second", count, size).await.unwrap_err();
        assert_eq!(refused.code(), Code::ResourceExhausted, "{refused}");
        for _ in 0..4 {
            clock.advance(1700);
            assert_eq!(missing(&server, "patient", &first[..1]).await, 0);
        }
        // The first is over, its other half may go; what the patient one asked for long ago not.
        let half = count / 2 - 1;
        let second = build(&server, "second", half, size).await.unwrap();
        assert!(build(&server, "third", half, size).await.is_err());
        assert_eq!(missing(&server, "patient", shared).await, 0);
        assert_eq!(missing(&server, "second", &second).await, 0);
        let figures = disk.snapshot();
        assert!(figures.cut_blobs >= half && figures.wanted_bytes > figures.max_bytes);
        // By now all builds are over, so nothing is promised to them any more.
        clock.advance(1800);
        assert_eq!(build(&server, "third", count, size).await.unwrap().len() as u64, count);
    }
}
