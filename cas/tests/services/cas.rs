use std::sync::Arc;

use kiln_cas::services::{MAX_BATCH_TOTAL, QuotaLimits, Quotas};
use kiln_protos::reapi;
use kiln_protos::reapi::batch_update_blobs_request::Request as Upload;
use kiln_protos::reapi::content_addressable_storage_client::ContentAddressableStorageClient;
use kiln_protos::reapi::{
    BatchReadBlobsRequest, BatchUpdateBlobsRequest, FindMissingBlobsRequest, compressor,
};
use tonic::Code;

use crate::harness::{
    BLAKE3, SHA256, Server, noise, refused, start, start_with, wire, write_request,
};

const ZSTD: i32 = compressor::Value::Zstd as i32;

fn upload(digest: Option<reapi::Digest>, data: &[u8]) -> Upload {
    Upload { digest, data: data.to_vec(), compressor: 0 }
}

async fn update(server: &Server, requests: Vec<Upload>, function: i32) -> Vec<(i32, String)> {
    let request = BatchUpdateBlobsRequest {
        instance_name: "a/b".into(),
        requests,
        digest_function: function,
    };
    let response = server.cas().batch_update_blobs(request).await.unwrap().into_inner();
    let status = |r: reapi::batch_update_blobs_response::Response| r.status.unwrap();
    response.responses.into_iter().map(status).map(|s| (s.code, s.message)).collect()
}

#[tokio::test]
async fn only_what_is_missing_is_reported() {
    let server = start().await;
    for (function, number) in [(SHA256, 0), (SHA256, 1), (BLAKE3, 9)] {
        let here = server.put(function, "here").await;
        let absent = function.digest(b"absent");
        let empty = function.digest(b"");
        let request = FindMissingBlobsRequest {
            instance_name: "any/instance".into(),
            blob_digests: [here, absent, empty].iter().map(|d| d.to_wire()).collect(),
            digest_function: number,
        };
        let response = server.cas().find_missing_blobs(request).await.unwrap().into_inner();
        assert_eq!(response.missing_blob_digests, [absent.to_wire()], "{function}");
    }
}

#[tokio::test]
async fn bad_digests_are_refused_by_name() {
    let server = start().await;
    let ask = |digest: reapi::Digest, digest_function| {
        let mut cas = server.cas();
        async move {
            cas.find_missing_blobs(FindMissingBlobsRequest {
                blob_digests: vec![digest],
                digest_function,
                ..Default::default()
            })
            .await
        }
    };
    let good = SHA256.digest(b"x").to_wire();
    for function in [2, 3, 4, 5, 6, 7, 8, 99, -1] {
        let result = ask(good.clone(), function).await;
        refused(result, Code::InvalidArgument, "digest_function: digest function");
    }
    let short = reapi::Digest { hash: "abc".into(), size_bytes: 1 };
    refused(ask(short, 0).await, Code::InvalidArgument, "blob_digests[0]: hash \"abc\"");
    let upper = reapi::Digest { hash: good.hash.to_uppercase(), size_bytes: 1 };
    refused(ask(upper, 0).await, Code::InvalidArgument, "lowercase");
    let negative = reapi::Digest { size_bytes: -1, ..good };
    refused(ask(negative, 0).await, Code::InvalidArgument, "blob_digests[0]: size_bytes -1");
}

#[tokio::test]
async fn batches_are_written_and_read_in_both_functions() {
    let server = start().await;
    for (function, number) in [(SHA256, 0), (BLAKE3, 9)] {
        let blobs: Vec<Vec<u8>> = (0..50).map(|i| noise(100 * i, i as u64)).collect();
        let requests =
            blobs.iter().map(|data| upload(wire(&function.digest(data)), data)).collect();
        let statuses = update(&server, requests, number).await;
        assert!(statuses.iter().all(|(code, _)| *code == 0), "{statuses:?}");
        let request = BatchReadBlobsRequest {
            digests: blobs.iter().map(|data| function.digest(data).to_wire()).collect(),
            digest_function: number,
            ..Default::default()
        };
        let response = server.cas().batch_read_blobs(request).await.unwrap().into_inner();
        let read: Vec<Vec<u8>> = response.responses.into_iter().map(|r| r.data).collect();
        assert_eq!(read, blobs);
    }
}

#[tokio::test]
async fn each_bad_blob_fails_alone() {
    let server = start().await;
    let good = SHA256.digest(b"good");
    let bad = SHA256.digest(b"bad");
    let longer = kiln_cas::Digest { size: 5, ..bad };
    let statuses = update(
        &server,
        vec![
            upload(wire(&bad), b"BAD"),
            upload(wire(&longer), b"bad"),
            upload(None, b"x"),
            Upload { compressor: 3, ..upload(wire(&bad), b"bad") },
            upload(wire(&good), b"good"),
        ],
        0,
    )
    .await;
    let invalid = Code::InvalidArgument as i32;
    let codes: Vec<i32> = statuses.iter().map(|(code, _)| *code).collect();
    assert_eq!(codes, [invalid, invalid, invalid, invalid, 0], "{statuses:?}");
    for ((_, message), part) in statuses.iter().zip([
        "requests[0].data: the bytes hash to",
        "requests[1].data: blob",
        "requests[2].digest: the digest is not set",
        "requests[3].compressor: compressor number 3",
    ]) {
        assert!(message.starts_with(part), "{message:?} does not start with {part:?}");
    }
    assert!(server.has(&good).await);
    assert!(!server.has(&bad).await && !server.has(&longer).await);
}

#[tokio::test]
async fn batches_honour_zstd_and_stop_bombs() {
    let server = start().await;
    let data = "compressible ".repeat(1000).into_bytes();
    let digest = SHA256.digest(&data);
    let packed = zstd::bulk::compress(&data, 3).unwrap();
    let small = SHA256.digest(b"tiny");
    let bomb = zstd::bulk::compress(&vec![0; 100 << 20], 3).unwrap();
    let statuses = update(
        &server,
        vec![
            Upload { compressor: ZSTD, ..upload(wire(&digest), &packed) },
            Upload { compressor: ZSTD, ..upload(wire(&small), &bomb) },
            Upload { compressor: ZSTD, ..upload(wire(&small), b"not zstd") },
        ],
        0,
    )
    .await;
    assert_eq!(statuses[0].0, 0, "{statuses:?}");
    assert!(statuses[1].1.starts_with("requests[1].data: the zstd data decompresses to more"));
    assert!(statuses[2].1.starts_with("requests[2].data: the data is not valid zstd"));

    let request = BatchReadBlobsRequest {
        digests: vec![digest.to_wire()],
        acceptable_compressors: vec![ZSTD],
        ..Default::default()
    };
    let response = server.cas().batch_read_blobs(request).await.unwrap().into_inner();
    let read = &response.responses[0];
    assert_eq!(read.compressor, ZSTD);
    assert!(read.data.len() < data.len() / 10);
    assert_eq!(zstd::bulk::decompress(&read.data, data.len()).unwrap(), data);
}

#[tokio::test]
async fn missing_blobs_and_oversized_reads() {
    let server = start().await;
    let absent = SHA256.digest(b"absent");
    let request = |digest: reapi::Digest| BatchReadBlobsRequest {
        digests: vec![digest],
        ..Default::default()
    };
    let response = server.cas().batch_read_blobs(request(absent.to_wire())).await.unwrap();
    let status = response.into_inner().responses.remove(0).status.unwrap();
    assert_eq!(status.code, Code::NotFound as i32);
    assert!(status.message.starts_with("digests[0]: blob"), "{}", status.message);

    let huge = reapi::Digest { size_bytes: MAX_BATCH_TOTAL as i64 + 1, ..absent.to_wire() };
    let result = server.cas().batch_read_blobs(request(huge)).await;
    refused(result, Code::InvalidArgument, "digests: ");
}

#[tokio::test]
async fn larger_batches_than_advertised_are_taken_and_the_limit_is_named() {
    let server = start().await;
    let data = noise(10 << 20, 1);
    let digest = SHA256.digest(&data);
    let statuses = update(&server, vec![upload(wire(&digest), &data)], 0).await;
    assert_eq!(statuses[0].0, 0, "{statuses:?}");

    let request = BatchUpdateBlobsRequest {
        requests: vec![upload(wire(&digest), &vec![0; 65 << 20])],
        ..Default::default()
    };
    let result = server.cas().batch_update_blobs(request).await;
    refused(result, Code::OutOfRange, "BatchUpdateBlobsRequest: a message of");
    assert!(server.has(&digest).await, "the server keeps serving");
}

#[tokio::test]
async fn blobs_over_the_configured_size_are_refused() {
    let server = start_with(|config| config.max_blob_size = 10).await;
    let digest = SHA256.digest(b"eleven bytes");
    let statuses = update(&server, vec![upload(wire(&digest), b"eleven bytes")], 0).await;
    assert_eq!(statuses[0].0, Code::InvalidArgument as i32);
    assert!(statuses[0].1.contains("max_cas_blob_size_bytes"), "{}", statuses[0].1);
}

/// A request that says of a few bytes that they are very many.
fn bomb(size: usize) -> Upload {
    let zeros = vec![0; size];
    let data = zstd::bulk::compress(&zeros, 3).unwrap();
    Upload { digest: wire(&SHA256.digest(&zeros)), compressor: ZSTD, data }
}

#[tokio::test]
async fn what_comes_out_of_a_compressed_batch_is_bounded_as_what_goes_in() {
    let server = start().await;
    let requests: Vec<_> = [bomb(40 << 20), bomb(40 << 20)].into();
    let request = BatchUpdateBlobsRequest { requests, ..Default::default() };
    let result = server.cas().batch_update_blobs(request).await;
    refused(result, Code::InvalidArgument, "requests: the compressed blobs come to 83886080 bytes");
    let statuses = update(&server, vec![bomb(40 << 20)], 0).await;
    assert_eq!(statuses[0].0, 0, "{statuses:?}");
}

#[tokio::test]
async fn entries_are_counted_before_they_are_decoded() {
    let server = start().await;
    let request =
        BatchUpdateBlobsRequest { requests: vec![Upload::default(); 50_001], ..Default::default() };
    let result = server.cas().batch_update_blobs(request).await;
    refused(result, Code::InvalidArgument, "BatchUpdateBlobsRequest: it has more than 50000");
    let digests = vec![reapi::Digest::default(); 50_001];
    let request = BatchReadBlobsRequest { digests, ..Default::default() };
    let result = server.cas().batch_read_blobs(request).await;
    refused(result, Code::InvalidArgument, "BatchReadBlobsRequest: it has more than 50000");
    let blob_digests = vec![reapi::Digest::default(); (1 << 20) + 1];
    let request = FindMissingBlobsRequest { blob_digests, ..Default::default() };
    let result = server.cas().find_missing_blobs(request).await;
    refused(result, Code::InvalidArgument, "FindMissingBlobsRequest: it has more than 1048576");
}

#[tokio::test]
async fn the_answer_to_a_batch_is_no_larger_than_clients_take_by_default() {
    let server = start().await;
    let limit = MAX_BATCH_TOTAL as usize;
    for count in [1, 800, 10_000] {
        let mut digests = Vec::new();
        for i in 0..count {
            let digest = server.put(SHA256, noise(limit / count, i as u64)).await;
            digests.push(digest.to_wire());
        }
        let request = BatchReadBlobsRequest { digests, ..Default::default() };
        let mut by_default = ContentAddressableStorageClient::new(server.channel.clone());
        let answer = by_default.batch_read_blobs(request).await.unwrap().into_inner();
        assert!(answer.responses.iter().all(|read| read.data.len() == limit / count), "{count}");
    }
    let many = vec![SHA256.digest(b"x").to_wire(); 45_000];
    let request = BatchReadBlobsRequest { digests: many, ..Default::default() };
    let result = server.cas().batch_read_blobs(request).await;
    refused(result, Code::InvalidArgument, "digests: an answer with 45000 blobs");
}

#[tokio::test]
async fn who_is_over_a_quota_is_told_which_and_how_far() {
    let lease = std::time::Duration::from_secs(3600);
    let server = start_with(|config| {
        let limits = QuotaLimits { caller_bytes: 10, instance_bytes: 0, lease };
        config.quotas = Arc::new(Quotas::new(limits));
    })
    .await;
    let (first, second) = (SHA256.digest(b"0123456"), SHA256.digest(b"abcdefg"));
    let both = vec![upload(wire(&first), b"0123456"), upload(wire(&first), b"0123456")];
    let statuses = update(&server, both, 0).await;
    assert!(statuses.iter().any(|(code, _)| *code == 0), "{statuses:?}");
    let statuses = update(&server, vec![upload(wire(&second), b"abcdefg")], 0).await;
    assert_eq!(statuses[0].0, Code::ResourceExhausted as i32, "{statuses:?}");
    let said = &statuses[0].1;
    assert!(said.contains("quotas.caller_bytes") && said.contains("7 of 10 bytes"), "{said}");
    let name = format!("uploads/1/blobs/{second}");
    let refusal = server.write(vec![write_request(&name, 0, b"abcdefg", true)]).await;
    refused(refusal, Code::ResourceExhausted, "quotas.caller_bytes");
}
