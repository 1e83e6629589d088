use tonic::Code;

use crate::harness::{BLAKE3, SHA256, noise, refused, start};

#[tokio::test]
async fn blobs_of_all_sizes_are_read_whole() {
    let server = start().await;
    for size in [0, 1, 4096, 1 << 20, (1 << 20) + 1, 9 << 20] {
        let data = noise(size, size as u64);
        for function in [SHA256, BLAKE3] {
            let digest = server.put(function, data.clone()).await;
            for instance in ["", "main/", "a/b/c/"] {
                let name = format!("{instance}blobs/{digest}");
                assert!(server.read(&name, 0, 0).await.unwrap() == data, "{name}");
            }
        }
    }
}

#[tokio::test]
async fn offsets_and_limits() {
    let server = start().await;
    let data = noise(3 << 20, 5);
    let digest = server.put(SHA256, data.clone()).await;
    let name = format!("blobs/{digest}");
    let size = data.len() as i64;
    for (offset, limit) in [(0, 1), (1, 0), (100, 2 << 20), (size - 1, 10), (size, 0)] {
        let expected: Vec<u8> = data
            .iter()
            .skip(offset as usize)
            .take(if limit == 0 { usize::MAX } else { limit as usize })
            .copied()
            .collect();
        let read = server.read(&name, offset, limit).await.unwrap();
        assert!(read == expected, "offset {offset}, limit {limit}");
    }
    refused(server.read(&name, size + 1, 0).await, Code::OutOfRange, "read_offset");
    refused(server.read(&name, -1, 0).await, Code::OutOfRange, "read_offset: -1");
    refused(server.read(&name, 0, -1).await, Code::InvalidArgument, "read_limit: -1");
}

#[tokio::test]
async fn compressed_reads_take_uncompressed_offsets_and_no_limit() {
    let server = start().await;
    for size in [0, 10, 100_000, 5 << 20] {
        let mut data = noise(size / 2, 9);
        data.extend(std::iter::repeat_n(b'z', size - size / 2));
        for function in [SHA256, BLAKE3] {
            let digest = server.put(function, data.clone()).await;
            let name = format!("x/y/compressed-blobs/zstd/{digest}");
            for offset in [0, size / 3, size] {
                let packed = server.read(&name, offset as i64, 0).await.unwrap();
                let read = zstd::stream::decode_all(packed.as_slice()).unwrap();
                assert!(read == data[offset..], "size {size}, offset {offset}");
            }
            refused(server.read(&name, 0, 5).await, Code::InvalidArgument, "read_limit");
        }
    }
}

#[tokio::test]
async fn what_is_not_there_is_not_found() {
    let server = start().await;
    let absent = SHA256.digest(b"absent");
    for name in [format!("blobs/{absent}"), format!("compressed-blobs/zstd/{absent}")] {
        refused(server.read(&name, 0, 0).await, Code::NotFound, "resource_name: blob");
    }
    let wrong_size = server.put(SHA256, "data").await;
    let name = format!("blobs/{}/5", wrong_size.hex());
    refused(server.read(&name, 0, 0).await, Code::NotFound, "resource_name");
}

#[tokio::test]
async fn malformed_names_are_refused() {
    let server = start().await;
    let hash = SHA256.digest(b"x").hex();
    for name in [
        String::new(),
        "blobs".into(),
        format!("blobs/{hash}"),
        format!("blobs/{hash}/x"),
        format!("blobs/{hash}/1/2"),
        format!("blobs/{}/1", &hash[1..]),
        format!("blobs/sha1/{hash}/1"),
        format!("compressed-blobs/gzip/{hash}/1"),
        format!("uploads/u/blobs/{hash}/1"),
    ] {
        refused(server.read(&name, 0, 0).await, Code::InvalidArgument, "resource_name: ");
    }
}

#[tokio::test]
async fn unknown_methods_are_unimplemented() {
    let server = start().await;
    let mut client = tonic::client::Grpc::new(server.channel.clone());
    client.ready().await.unwrap();
    let codec: tonic_prost::ProstCodec<(), ()> = tonic_prost::ProstCodec::default();
    let path = http::uri::PathAndQuery::from_static("/google.bytestream.ByteStream/Burn");
    let result = client.unary(tonic::Request::new(()), path, codec).await;
    refused(result, Code::Unimplemented, "has no method \"Burn\"");
}
