//! Measures how fast blobs are written to and read from S3, next to curl on the same machine:
//! `KILN_WEED=... cargo test --release -p kiln-cas s3::measure -- --ignored --nocapture`

use std::process::Command;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_test_servers::s3::Weed;

use super::tests::config;
use super::{S3Objects, key};
use crate::stores::contract::blob;
use crate::stores::indexed::{Generation, Objects};

const LARGE: usize = 64 << 20;
const ROUNDS: u64 = 8;
const SMALL_READS: u64 = 2000;
const READERS: usize = 16;

fn curl(weed: &Weed, arguments: &[&str]) -> Duration {
    let keys = weed.credentials();
    let begun = Instant::now();
    let status = Command::new("curl")
        .args(["-sSf", "-o", "/dev/null", "--aws-sigv4", "aws:amz:us-east-1:s3"])
        .args(["--user", &format!("{}:{}", keys.access_key, keys.secret_key)])
        .args(["-H", "x-amz-content-sha256: UNSIGNED-PAYLOAD"])
        .args(arguments)
        .status()
        .unwrap();
    assert!(status.success());
    begun.elapsed()
}

fn report(what: &str, bytes: usize, mut times: Vec<Duration>) {
    times.sort_unstable();
    let rate = |time: Duration| bytes as f64 / time.as_secs_f64() / 1e6;
    println!(
        "{what:34} best {:6.0} MB/s  median {:6.0} MB/s",
        rate(times[0]),
        rate(times[times.len() / 2])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "it measures, it does not test"]
async fn large_blobs_beside_curl_and_small_reads() {
    let Some(weed) = Weed::start() else { return };
    let objects = S3Objects::open(&config(&weed, weed.endpoint())).await.unwrap();
    let (digest, data) = blob(1, LARGE);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), &data).unwrap();
    let url = |name: &str| format!("{}/{}/{name}", weed.endpoint(), weed.bucket());

    let (mut writes, mut reads) = (Vec::new(), Vec::new());
    let (mut curl_writes, mut curl_reads) = (Vec::new(), Vec::new());
    for round in 0..ROUNDS {
        let name = url(&format!("curl-{round}"));
        curl_writes.push(curl(&weed, &["-T", &file.path().display().to_string(), &name]));
        let begun = Instant::now();
        let mut writer = objects.writer(&digest, Generation(round)).await.unwrap();
        for from in (0..LARGE).step_by(64 << 10) {
            writer.write(data.slice(from..from + (64 << 10))).await.unwrap();
        }
        writer.commit().await.unwrap();
        writes.push(begun.elapsed());

        let root = key::root("some/prefix");
        curl_reads.push(curl(&weed, &[&url(&key::key(&root, &digest, Generation(round)))]));
        let begun = Instant::now();
        let mut stream = objects.read(&digest, Generation(round), 0, None).await.unwrap();
        let mut size = 0;
        while let Some(piece) = stream.next().await {
            size += piece.unwrap().len();
        }
        assert_eq!(size, LARGE);
        reads.push(begun.elapsed());
    }
    report("64 MiB PUT by curl", LARGE, curl_writes);
    report("64 MiB write", LARGE, writes);
    report("64 MiB GET by curl", LARGE, curl_reads);
    report("64 MiB read", LARGE, reads);
    small_reads(&objects).await;
}

async fn small_reads(objects: &S3Objects) {
    let (small, data) = blob(2, 4096);
    objects.put(&small, Generation(1), Bytes::clone(&data)).await.unwrap();
    for readers in [1, READERS] {
        let begun = Instant::now();
        futures_util::stream::iter(0..SMALL_READS)
            .for_each_concurrent(readers, |_| async {
                let mut stream = objects.read(&small, Generation(1), 0, None).await.unwrap();
                let mut size = 0;
                while let Some(piece) = stream.next().await {
                    size += piece.unwrap().len();
                }
                assert_eq!(size, data.len());
            })
            .await;
        let rate = SMALL_READS as f64 / begun.elapsed().as_secs_f64();
        println!("4 KiB reads, {readers:2} at a time           {rate:6.0} /s");
    }
}
