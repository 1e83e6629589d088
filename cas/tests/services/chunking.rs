use std::sync::Arc;

use kiln_cas::Digest;
use kiln_protos::reapi::{
    self, GetChunkMappingRequest, RegisterChunkMappingRequest, SpliceBlobRequest, SplitBlobRequest,
    chunking_function,
};
use tonic::{Code, Status};

use crate::harness::{BLAKE3, Readers, SHA256, Server, noise, refused, start, start_with, wire};

const FAST_CDC: i32 = chunking_function::Value::FastCdc2020 as i32;

async fn split(server: &Server, blob: &Digest, function: i32) -> Vec<reapi::Digest> {
    let request = SplitBlobRequest {
        blob_digest: wire(blob),
        digest_function: function,
        ..Default::default()
    };
    let answer = server.cas().split_blob(request).await.unwrap().into_inner();
    assert_eq!(answer.chunking_function, FAST_CDC);
    answer.chunk_digests
}

async fn splice(
    server: &Server,
    blob: &Digest,
    chunks: Vec<reapi::Digest>,
) -> Result<Option<reapi::Digest>, Status> {
    let request = SpliceBlobRequest {
        blob_digest: wire(blob),
        chunk_digests: chunks,
        chunking_function: FAST_CDC,
        ..Default::default()
    };
    Ok(server.cas().splice_blob(request).await?.into_inner().blob_digest)
}

#[tokio::test]
async fn the_chunks_of_a_blob_are_stored_and_make_the_blob() {
    let server = start().await;
    let data = noise(9 << 20, 3);
    for (function, number) in [(SHA256, 0), (BLAKE3, 9)] {
        let blob = server.put(function, data.clone()).await;
        let chunks = split(&server, &blob, number).await;
        assert!(chunks.len() > 4, "{}", chunks.len());
        let mut joined = Vec::new();
        for chunk in &chunks {
            assert!((1..=2 << 20).contains(&chunk.size_bytes));
            let digest = Digest::from_wire(chunk, function).unwrap();
            joined.extend(server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap());
        }
        assert!(joined == data);
        assert_eq!(split(&server, &blob, number).await, chunks, "the second time it is known");

        let request = GetChunkMappingRequest {
            blob_digest: wire(&blob),
            digest_function: number,
            ..Default::default()
        };
        let mut stream = server.cas().get_chunk_mapping(request).await.unwrap().into_inner();
        let page = stream.message().await.unwrap().unwrap();
        assert_eq!((page.chunk_digests, page.chunking_function), (chunks, FAST_CDC));
        assert!(stream.message().await.unwrap().is_none());
    }
}

#[tokio::test]
async fn a_change_in_the_middle_leaves_most_chunks() {
    let server = start().await;
    let mut data = noise(12 << 20, 4);
    let before = server.put(SHA256, data.clone()).await;
    let before = split(&server, &before, 1).await;
    data.splice(6_000_000..6_000_000, *b"inserted");
    let after = server.put(SHA256, data).await;
    let after = split(&server, &after, 1).await;
    let new = after.iter().filter(|chunk| !before.contains(chunk)).count();
    assert!(new <= 2, "{new} of {} chunks are new", after.len());
}

#[tokio::test]
async fn small_and_empty_blobs_split_too() {
    let server = start().await;
    let small = server.put(SHA256, "small").await;
    assert_eq!(split(&server, &small, 0).await, [small.to_wire()]);
    assert_eq!(split(&server, &SHA256.digest(b""), 0).await, []);
}

#[tokio::test]
async fn a_spliced_blob_is_whole_and_verified() {
    let server = start().await;
    let parts = [noise(700_000, 1), noise(800_000, 2), noise(1_500_000, 3)];
    let whole = parts.concat();
    let blob = SHA256.digest(&whole);
    let mut chunks = Vec::new();
    for part in &parts {
        chunks.push(server.put(SHA256, part.clone()).await.to_wire());
    }
    let absent = SHA256.digest(b"absent").to_wire();
    let swapped = vec![chunks[1].clone(), chunks[0].clone(), chunks[2].clone()];
    refused(
        splice(&server, &blob, swapped).await,
        Code::InvalidArgument,
        "blob_digest: the bytes hash to",
    );
    refused(
        splice(&server, &blob, chunks[..2].to_vec()).await,
        Code::InvalidArgument,
        "chunk_digests: the chunks come to 1500000 bytes",
    );
    let sized = reapi::Digest { size_bytes: 1_500_000, ..absent };
    let missing = vec![chunks[0].clone(), chunks[1].clone(), sized];
    refused(splice(&server, &blob, missing).await, Code::NotFound, "chunk_digests: 1 of them");
    assert!(!server.has(&blob).await);

    assert_eq!(splice(&server, &blob, chunks.clone()).await.unwrap(), wire(&blob));
    assert!(server.read(&format!("blobs/{blob}"), 0, 0).await.unwrap() == whole);
    assert_eq!(split(&server, &blob, 0).await, chunks, "the client's own chunks are kept");
    assert_eq!(splice(&server, &blob, vec![]).await.unwrap(), wire(&blob), "it is there");
}

#[tokio::test]
async fn mappings_are_registered_in_several_messages() {
    let server = start().await;
    let parts = [noise(300_000, 5), noise(300_000, 6)];
    let blob = BLAKE3.digest(&parts.concat());
    let mut chunks = Vec::new();
    for part in &parts {
        chunks.push(server.put(BLAKE3, part.clone()).await.to_wire());
    }
    let first = RegisterChunkMappingRequest {
        blob_digest: wire(&blob),
        chunk_digests: chunks[..1].to_vec(),
        digest_function: 9,
        chunking_function: FAST_CDC,
        ..Default::default()
    };
    let second =
        RegisterChunkMappingRequest { chunk_digests: chunks[1..].to_vec(), ..Default::default() };
    let requests = futures_util::stream::iter([first, second]);
    let answer = server.cas().register_chunk_mapping(requests).await.unwrap().into_inner();
    assert_eq!(answer.blob_digest, wire(&blob));
    assert!(server.has(&blob).await);
    let nothing = futures_util::stream::iter([]);
    let result = server.cas().register_chunk_mapping(nothing).await;
    refused(result, Code::InvalidArgument, "no message came");
}

#[tokio::test]
async fn bad_requests_are_refused_by_name() {
    let server = start().await;
    let ask = |blob_digest: Option<reapi::Digest>| {
        let mut cas = server.cas();
        async move { cas.split_blob(SplitBlobRequest { blob_digest, ..Default::default() }).await }
    };
    refused(ask(None).await, Code::InvalidArgument, "blob_digest: the digest is not set");
    let absent = wire(&SHA256.digest(b"absent"));
    refused(ask(absent).await, Code::NotFound, "blob_digest: blob");
    let bad = vec![reapi::Digest { hash: "x".into(), size_bytes: 0 }];
    let result = splice(&server, &SHA256.digest(b"x"), bad).await;
    refused(result, Code::InvalidArgument, "chunk_digests[0]: hash");
}

#[tokio::test]
async fn who_may_only_read_stores_no_chunks() {
    let server = start_with(|config| config.access = Arc::new(Readers)).await;
    let blob = server.put(SHA256, noise(3 << 20, 5)).await;
    let request = SplitBlobRequest { blob_digest: wire(&blob), ..Default::default() };
    let result = server.cas().split_blob(request).await;
    refused(result, Code::PermissionDenied, "nobody has split the blob yet");
}
