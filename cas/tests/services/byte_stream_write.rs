use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_cas::{Blob, BlobStore, BlobWriter, Digest, DigestFunction, SharedBlobStore, StoreError};
use kiln_protos::bytestream::WriteRequest;
use tokio::sync::Notify;
use tonic::Code;

use crate::harness::{BLAKE3, SHA256, Server, noise, refused, start, start_with, write_request};

fn name(digest: &Digest) -> String {
    format!("in/stance/uploads/0f0e-1/blobs/{digest}")
}

fn zstd_name(digest: &Digest) -> String {
    format!("uploads/0f0e-2/compressed-blobs/zstd/{digest}")
}

/// `data` in requests of `piece` bytes; only the first carries the name.
fn requests(name: &str, data: &[u8], piece: usize) -> Vec<WriteRequest> {
    let mut offset = 0;
    let count = data.len().div_ceil(piece).max(1);
    (0..count)
        .map(|i| {
            let part = &data[i * piece..data.len().min((i + 1) * piece)];
            let name = if i == 0 { name } else { "" };
            let request = write_request(name, offset, part, i + 1 == count);
            offset += part.len() as i64;
            request
        })
        .collect()
}

fn sample(function: DigestFunction, size: usize) -> (Digest, Vec<u8>) {
    let data = noise(size, size as u64);
    (function.digest(&data), data)
}

async fn stored(server: &Server, digest: &Digest) -> Vec<u8> {
    server.read(&format!("blobs/{digest}"), 0, 0).await.unwrap()
}

#[tokio::test]
async fn uploads_of_all_sizes_answer_the_full_size() {
    let server = start().await;
    for size in [0, 1, 4096, 70_000, 3 << 20] {
        for function in [SHA256, BLAKE3] {
            for piece in [size.max(1), 64 << 10] {
                let (digest, data) = sample(function, size + piece % 7);
                let name = format!("{}/trailing/meta.data", name(&digest));
                let sent = requests(&name, &data, piece);
                assert_eq!(server.write(sent).await.unwrap(), data.len() as i64);
                assert!(stored(&server, &digest).await == data);
            }
        }
    }
}

#[tokio::test]
async fn compressed_uploads_answer_the_compressed_size_or_minus_one() {
    let server = start().await;
    for (i, size) in [10, 100_000, 3 << 20].into_iter().enumerate() {
        let (_, mut data) = sample(SHA256, size);
        data.extend(vec![b'a' + i as u8; size]);
        let digest = SHA256.digest(&data);
        let packed = zstd::bulk::compress(&data, 3).unwrap();
        let sent = requests(&zstd_name(&digest), &packed, 50_000);
        assert_eq!(server.write(sent.clone()).await.unwrap(), packed.len() as i64);
        assert!(stored(&server, &digest).await == data);
        if sent.len() > 1 {
            assert_eq!(server.write(sent).await.unwrap(), -1, "it is there already");
        }
    }
}

#[tokio::test]
async fn a_blob_that_is_there_ends_the_upload_early() {
    let server = start().await;
    let (digest, data) = sample(SHA256, 5 << 20);
    server.put(SHA256, data.clone()).await;
    let first = write_request(&name(&digest), 0, &data[..1000], false);
    // The client has not finished: the answer comes all the same.
    let stream = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
    let mut client = server.byte_stream();
    let answer = client.write(stream);
    let answer = tokio::time::timeout(Duration::from_secs(20), answer).await.unwrap().unwrap();
    assert_eq!(answer.into_inner().committed_size, 5 << 20);
    assert_eq!(server.write_status(&name(&digest)).await, (5 << 20, true));
}

#[tokio::test]
async fn wrong_bytes_are_refused_and_nothing_is_stored() {
    let server = start().await;
    let (digest, data) = sample(SHA256, 200_000);
    let mut wrong = data.clone();
    wrong[100_000] ^= 1;
    for piece in [200_000, 1000] {
        let sent = requests(&name(&digest), &wrong, piece);
        refused(server.write(sent).await, Code::InvalidArgument, "data: the bytes hash to");
        let sent = requests(&name(&digest), &data[..199_999], piece);
        refused(server.write(sent).await, Code::InvalidArgument, "data: blob");
        let longer = [&data[..], b"more"].concat();
        let sent = requests(&name(&digest), &longer, piece);
        refused(server.write(sent).await, Code::InvalidArgument, "data: blob");
        assert!(!server.has(&digest).await);
    }
}

#[tokio::test]
async fn a_zstd_bomb_is_refused() {
    let server = start().await;
    let bomb = zstd::bulk::compress(&vec![0; 200 << 20], 3).unwrap();
    for size in [1000, 5 << 20] {
        let digest = SHA256.digest(&vec![0; size]);
        let sent = requests(&zstd_name(&digest), &bomb, 4096);
        refused(server.write(sent).await, Code::InvalidArgument, "decompresses to more than");
        assert!(!server.has(&digest).await);
    }
    let (digest, data) = sample(SHA256, 2 << 20);
    let rubbish = requests(&zstd_name(&digest), &data, 1 << 20);
    refused(server.write(rubbish).await, Code::InvalidArgument, "data: the data is not valid");
    let packed = zstd::bulk::compress(&data, 3).unwrap();
    let cut = requests(&zstd_name(&digest), &packed[..packed.len() - 1], 1 << 20);
    refused(server.write(cut).await, Code::InvalidArgument, "in the middle of a frame");
}

#[tokio::test]
async fn an_upload_that_broke_off_goes_on_where_it_was() {
    let server = start().await;
    let (digest, data) = sample(BLAKE3, 1 << 20);
    let name = name(&digest);
    let first = vec![write_request(&name, 0, &data[..300_000], false)];
    assert_eq!(server.write(first).await.unwrap(), 300_000);
    assert_eq!(server.write_status(&name).await, (300_000, false));
    assert!(!server.has(&digest).await);

    let wrong = vec![write_request(&name, 200_000, &data[200_000..], true)];
    refused(server.write(wrong).await, Code::InvalidArgument, "write_offset: 200000 is wrong");
    assert_eq!(server.write_status(&name).await, (300_000, false), "nothing is lost");

    let rest = vec![write_request(&name, 300_000, &data[300_000..], true)];
    assert_eq!(server.write(rest).await.unwrap(), 1 << 20);
    assert_eq!(server.write_status(&name).await, (1 << 20, true));
    assert!(stored(&server, &digest).await == data);
}

#[tokio::test]
async fn a_client_that_disappears_can_go_on() {
    let written = Arc::new(Notify::new());
    let signal = written.clone();
    let server = start_with(|config| {
        config.blobs = Arc::new(Watched { inner: config.blobs.clone(), written: signal });
    })
    .await;
    let (digest, data) = sample(SHA256, 1 << 20);
    let name = name(&digest);
    let first = write_request(&name, 0, &data[..400_000], false);
    let stream = futures_util::stream::iter([first]).chain(futures_util::stream::pending());
    let mut client = server.byte_stream();
    let call = tokio::spawn(async move { client.write(stream).await });
    written.notified().await;
    call.abort();
    let kept = async {
        while server.write_status(&name).await != (400_000, false) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), kept).await.expect("the upload is kept");
    let rest = vec![write_request(&name, 400_000, &data[400_000..], true)];
    assert_eq!(server.write(rest).await.unwrap(), 1 << 20);
    assert!(stored(&server, &digest).await == data);
}

/// A store that tells when a piece of a blob has been written.
struct Watched {
    inner: SharedBlobStore,
    written: Arc<Notify>,
}

#[async_trait::async_trait]
impl BlobStore for Watched {
    async fn find_missing(&self, digests: &[Digest]) -> Result<Vec<Digest>, StoreError> {
        self.inner.find_missing(digests).await
    }

    async fn read(
        &self,
        digest: &Digest,
        offset: u64,
        limit: Option<u64>,
    ) -> Result<Blob, StoreError> {
        self.inner.read(digest, offset, limit).await
    }

    async fn write(&self, digest: &Digest, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(digest, data).await
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let inner = self.inner.writer(digest).await?;
        Ok(Box::new(WatchedWriter { inner, written: self.written.clone() }))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }
}

struct WatchedWriter {
    inner: Box<dyn BlobWriter>,
    written: Arc<Notify>,
}

#[async_trait::async_trait]
impl BlobWriter for WatchedWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(data).await?;
        self.written.notify_one();
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.commit().await
    }
}

#[tokio::test]
async fn a_compressed_upload_goes_on_at_an_uncompressed_offset() {
    let server = start().await;
    let (digest, data) = sample(SHA256, 2 << 20);
    let name = zstd_name(&digest);
    let half = zstd::bulk::compress(&data[..1 << 20], 3).unwrap();
    let rest = zstd::bulk::compress(&data[1 << 20..], 3).unwrap();
    let first = vec![write_request(&name, 0, &half, false)];
    assert_eq!(server.write(first).await.unwrap(), 1 << 20);
    assert_eq!(server.write_status(&name).await, (1 << 20, false));
    let second = vec![
        write_request(&name, 1 << 20, &rest[..1000], false),
        write_request("", (1 << 20) + 1000, &rest[1000..], true),
    ];
    assert_eq!(server.write(second).await.unwrap(), (1 << 20) + rest.len() as i64);
    assert!(stored(&server, &digest).await == data);
}

#[tokio::test]
async fn starting_again_at_zero_is_always_possible() {
    let server = start().await;
    let (digest, data) = sample(SHA256, 500_000);
    let name = name(&digest);
    server.write(vec![write_request(&name, 0, &data[..1000], false)]).await.unwrap();
    assert_eq!(server.write(requests(&name, &data, 100_000)).await.unwrap(), 500_000);
    let never = format!("uploads/never/blobs/{}", SHA256.digest(b"never"));
    assert_eq!(server.write_status(&never).await, (0, false));
}

#[tokio::test]
async fn requests_that_contradict_each_other_are_refused() {
    let server = start().await;
    let (digest, data) = sample(SHA256, 3000);
    let name = name(&digest);
    let part = |offset: i64, range: std::ops::Range<usize>, finish| {
        write_request(&name, offset, &data[range], finish)
    };
    let gap = vec![part(0, 0..1000, false), part(1001, 1001..3000, true)];
    refused(server.write(gap).await, Code::InvalidArgument, "write_offset: 1001 is wrong");
    let unknown = vec![part(5, 5..3000, true)];
    refused(server.write(unknown).await, Code::InvalidArgument, "write_offset: 5 is wrong");
    let negative = vec![part(-1, 0..3000, true)];
    refused(server.write(negative).await, Code::InvalidArgument, "write_offset: -1");
    let renamed = vec![part(0, 0..1000, false), write_request("other", 1000, &data[1000..], true)];
    refused(server.write(renamed).await, Code::InvalidArgument, "resource_name: it differs");
    let after = vec![part(0, 0..3000, true), part(3000, 0..1, false)];
    refused(server.write(after).await, Code::InvalidArgument, "finish_write: another request");
    let after = vec![part(0, 0..1000, false), part(1000, 1000..3000, true), part(3000, 0..0, true)];
    refused(server.write(after).await, Code::InvalidArgument, "finish_write: another request");
    refused(server.write(vec![]).await, Code::InvalidArgument, "no message came");
    assert!(!server.has(&digest).await);
}

#[tokio::test]
async fn all_bytes_without_finish_write_are_a_blob() {
    let server = start().await;
    let (digest, data) = sample(SHA256, 3000);
    let sent = vec![write_request(&name(&digest), 0, &data, false)];
    assert_eq!(server.write(sent).await.unwrap(), 3000);
    assert!(server.has(&digest).await);
}

#[tokio::test]
async fn malformed_names_and_large_messages_are_refused() {
    let server = start_with(|config| config.max_blob_size = 30 << 20).await;
    let (digest, data) = sample(SHA256, 10);
    for bad in [
        format!("blobs/{digest}"),
        format!("uploads/blobs/{digest}"),
        format!("uploads/u/blobs/{}/", digest.hex()),
        format!("uploads/u/compressed-blobs/lz4/{digest}"),
        "logstreams/x".into(),
    ] {
        let sent = vec![write_request(&bad, 0, &data, true)];
        refused(server.write(sent).await, Code::InvalidArgument, "resource_name: ");
    }
    let huge = vec![write_request(&name(&digest), 0, &vec![0; 17 << 20], true)];
    refused(server.write(huge).await, Code::OutOfRange, "WriteRequest: a message of");
    let large = Digest { size: 31 << 20, ..digest };
    let sent = vec![write_request(&name(&large), 0, &data, false)];
    refused(server.write(sent).await, Code::InvalidArgument, "max_cas_blob_size_bytes");
}
