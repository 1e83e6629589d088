//! Against SeaweedFS, and against a proxy in front of it that fails.

mod reach;

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_test_servers::proxy::{Fault, Proxy};
use kiln_test_servers::s3::Weed;

use super::{S3Config, S3Credentials, S3Objects};
use crate::blob::BlobWriter;
use crate::digest::Digest;
use crate::error::StoreError;
use crate::stores::contract::blob;
use crate::stores::indexed::{Generation, Objects};

const MIB: usize = 1 << 20;
/// For tests in which nothing answers.
const IMPATIENT: Duration = Duration::from_millis(250);

pub fn config(weed: &Weed, endpoint: String) -> S3Config {
    let keys = weed.credentials();
    let url = format!("s3://{}/some/prefix", weed.bucket());
    S3Config {
        endpoint: Some(endpoint),
        credentials: Some(S3Credentials {
            access_key: keys.access_key.to_owned(),
            secret_key: keys.secret_key.to_owned(),
        }),
        ..url.parse().unwrap()
    }
}

async fn open(weed: &Weed) -> S3Objects {
    S3Objects::open(&config(weed, weed.endpoint())).await.unwrap()
}

async fn read(
    objects: &S3Objects,
    digest: &Digest,
    generation: u64,
    offset: u64,
    limit: Option<u64>,
) -> Result<Bytes, StoreError> {
    let mut stream = objects.read(digest, Generation(generation), offset, limit).await?;
    let mut all = Vec::new();
    while let Some(piece) = stream.next().await {
        all.extend_from_slice(&piece?);
    }
    Ok(all.into())
}

async fn whole(objects: &S3Objects, digest: &Digest, generation: u64) -> Result<Bytes, StoreError> {
    read(objects, digest, generation, 0, None).await
}

async fn stream_in(
    objects: &S3Objects,
    digest: &Digest,
    data: &Bytes,
    generation: u64,
) -> Result<(), StoreError> {
    let mut writer: Box<dyn BlobWriter> = objects.writer(digest, Generation(generation)).await?;
    for from in (0..data.len()).step_by(300_000) {
        writer.write(data.slice(from..data.len().min(from + 300_000))).await?;
    }
    writer.commit().await
}

/// Names of all objects, and of all unfinished uploads by what is left after a sweep.
async fn all(objects: &S3Objects) -> Vec<(Digest, Generation)> {
    let (mut found, mut after) = (Vec::new(), None);
    loop {
        let (page, next) = objects.list(after).await.unwrap();
        found.extend(page.iter().map(|listed| (listed.digest, listed.generation)));
        after = next;
        if after.is_none() {
            return found;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_of_all_sizes_are_written_read_copied_listed_and_deleted() {
    let Some(weed) = Weed::start() else { return };
    let objects = open(&weed).await;
    let before = objects.now().await.unwrap();
    let mut names = Vec::new();
    // Around the size of a part: one request, then two and three parts.
    for (seed, size) in [1, 70_000, 8 * MIB, 8 * MIB + 1, 20 * MIB + 3].into_iter().enumerate() {
        let (digest, data) = blob(seed as u64, size);
        objects.put(&digest, Generation(1), data.clone()).await.unwrap();
        stream_in(&objects, &digest, &data, u64::MAX).await.unwrap();
        objects.copy(&digest, Generation(1), Generation(3)).await.unwrap();
        for generation in [1, u64::MAX, 3] {
            assert_eq!(whole(&objects, &digest, generation).await.unwrap(), data, "{size}");
            names.push((digest, Generation(generation)));
        }
        let (full, half) = (size as u64, size as u64 / 2);
        for (offset, limit) in
            [(half, None), (half, Some(1)), (full - 1, Some(9)), (full, None), (0, Some(0))]
        {
            let end = full.min(limit.map_or(full, |limit| offset + limit));
            let expected = data.slice(offset as usize..end as usize);
            let got = read(&objects, &digest, 1, offset, limit).await.unwrap();
            assert_eq!(got, expected, "{size}: {offset} {limit:?}");
        }
        let mut generations = objects.generations(&digest).await.unwrap();
        generations.sort_unstable();
        assert_eq!(generations, [Generation(1), Generation(3), Generation(u64::MAX)]);
    }
    let (absent, _) = blob(99, 10);
    assert!(
        matches!(whole(&objects, &absent, 1).await, Err(StoreError::NotFound(d)) if d == absent)
    );
    let copied = objects.copy(&absent, Generation(1), Generation(2)).await;
    assert!(matches!(copied, Err(StoreError::NotFound(_))), "{copied:?}");
    assert_eq!(objects.generations(&absent).await.unwrap(), []);

    let (page, next) = objects.list(None).await.unwrap();
    assert!(next.is_none());
    assert!(page.iter().all(|listed| listed.modified + 1 >= before), "{before} {page:?}");
    let mut listed = all(&objects).await;
    listed.sort_unstable();
    names.sort_unstable();
    assert_eq!(listed, names);
    // What is absent is deleted as well.
    let (gone, kept) = names.split_at(5);
    let named: Vec<_> = gone.iter().copied().chain([(absent, Generation(1))]).collect();
    objects.delete(&named).await.unwrap();
    objects.delete(&named[..1]).await.unwrap();
    let mut listed = all(&objects).await;
    listed.sort_unstable();
    assert_eq!(listed, kept);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listings_and_deletions_go_beyond_a_page() {
    let Some(weed) = Weed::start() else { return };
    let objects = open(&weed).await;
    let names: Vec<_> = (0..1203).map(|number| (blob(number, 20).0, Generation(number))).collect();
    futures_util::stream::iter(0..1203u64)
        .for_each_concurrent(16, |number| {
            let objects = &objects;
            async move {
                let (digest, data) = blob(number, 20);
                objects.put(&digest, Generation(number), data).await.unwrap();
            }
        })
        .await;
    let mut listed = all(&objects).await;
    let mut sorted = names.clone();
    listed.sort_unstable();
    sorted.sort_unstable();
    assert_eq!(listed, sorted);
    objects.delete(&names).await.unwrap();
    assert_eq!(all(&objects).await, []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn uploads_that_end_wrong_leave_nothing_and_abandoned_ones_are_swept() {
    let Some(weed) = Weed::start() else { return };
    let objects = open(&weed).await;
    let (digest, data) = blob(1, 20 * MIB);
    let mut writer = objects.writer(&digest, Generation(1)).await.unwrap();
    writer.write(data.slice(1..)).await.unwrap();
    let short = writer.commit().await;
    assert!(matches!(short, Err(StoreError::SizeMismatch { .. })), "{short:?}");
    let mut writer = objects.writer(&digest, Generation(2)).await.unwrap();
    writer.write(data.clone()).await.unwrap();
    let long = writer.write(Bytes::from_static(b"x")).await;
    assert!(matches!(long, Err(StoreError::SizeMismatch { .. })), "{long:?}");
    let far = objects.now().await.unwrap() + 1000;
    assert_eq!(objects.sweep(far).await.unwrap(), 0, "both were aborted");

    let mut writer = objects.writer(&digest, Generation(3)).await.unwrap();
    writer.write(data.clone()).await.unwrap();
    drop(writer);
    assert_eq!(all(&objects).await, []);
    assert_eq!(objects.sweep(far - 2000).await.unwrap(), 0, "it is young");
    assert_eq!(objects.sweep(far).await.unwrap(), 1);
    assert_eq!(objects.sweep(far).await.unwrap(), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_go_on_where_they_broke_off() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::start(&weed.address());
    let mut config = config(&weed, proxy.endpoint());
    config.timeout = Duration::from_secs(1);
    let objects = S3Objects::open(&config).await.unwrap();
    let (digest, data) = blob(1, 6 * MIB);
    objects.put(&digest, Generation(1), data.clone()).await.unwrap();
    for fault in [Fault::Truncate(100_000), Fault::Truncate(0), Fault::Stall(3_000_000)] {
        // At most three requests in a row fail.
        let left = AtomicU64::new(3);
        proxy.plan(move |request| {
            let reads = request.method == "GET";
            let fails = reads
                && left
                    .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                    .is_ok();
            fails.then_some(fault)
        });
        assert_eq!(whole(&objects, &digest, 1).await.unwrap(), data, "{fault:?}");
        assert_eq!(
            read(&objects, &digest, 1, 777, Some(5_000_000)).await.unwrap(),
            data.slice(777..5_000_777)
        );
    }
    // A read that breaks off again and again fails, and the error says where and how far it came.
    proxy.plan(|request| (request.method == "GET").then_some(Fault::Truncate(10)));
    let error = whole(&objects, &digest, 1).await.unwrap_err();
    assert!(
        matches!(&error, StoreError::Unavailable(text) if text.to_string().contains("kiln-test")),
        "{error}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bursts_of_errors_are_outlived_by_all_operations() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::start(&weed.address());
    let mut config = config(&weed, proxy.endpoint());
    config.timeout = Duration::from_secs(1);
    let objects = S3Objects::open(&config).await.unwrap();
    for (seed, fault) in [
        Fault::Status(500, "InternalError"),
        Fault::Status(503, "SlowDown"),
        Fault::Hangup,
        Fault::LoseAnswer,
        Fault::Delay(Duration::from_millis(20)),
    ]
    .into_iter()
    .enumerate()
    {
        // Two of three requests fail, in bursts of two.
        proxy.plan(move |request| (request.number % 3 != 0).then_some(fault));
        let (digest, data) = blob(seed as u64, 17 * MIB);
        stream_in(&objects, &digest, &data, 1).await.unwrap();
        assert_eq!(whole(&objects, &digest, 1).await.unwrap(), data, "{fault:?}");
        let (small, small_data) = blob(100 + seed as u64, 100);
        objects.put(&small, Generation(1), small_data.clone()).await.unwrap();
        objects.copy(&small, Generation(1), Generation(2)).await.unwrap();
        assert_eq!(whole(&objects, &small, 2).await.unwrap(), small_data);
        assert_eq!(objects.generations(&digest).await.unwrap(), [Generation(1)]);
        objects.delete(&[(digest, Generation(1)), (small, Generation(1))]).await.unwrap();
        assert_eq!(objects.list(None).await.unwrap().0.len(), seed + 1);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_that_last_end_in_unavailable_in_bounded_time() {
    let Some(mut weed) = Weed::start() else { return };
    let proxy = Proxy::start(&weed.address());
    let mut config = config(&weed, proxy.endpoint());
    config.timeout = IMPATIENT;
    let objects = S3Objects::open(&config).await.unwrap();
    let (digest, data) = blob(1, 100);
    objects.put(&digest, Generation(1), data.clone()).await.unwrap();
    for fault in [
        Fault::Status(503, "SlowDown"),
        Fault::Status(500, "InternalError"),
        Fault::Hangup,
        Fault::Delay(Duration::from_secs(60)),
    ] {
        proxy.plan(move |_| Some(fault));
        let begun = Instant::now();
        let error = whole(&objects, &digest, 1).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error}");
        let error = objects.put(&digest, Generation(2), data.clone()).await.unwrap_err();
        assert!(matches!(error, StoreError::Unavailable(_)), "{fault:?}: {error}");
        assert!(begun.elapsed() < Duration::from_secs(20), "{fault:?}: {:?}", begun.elapsed());
    }
    proxy.heal();
    assert_eq!(whole(&objects, &digest, 1).await.unwrap(), data);
    // The same with a server that is stopped, then with none at all.
    weed.pause();
    assert!(matches!(whole(&objects, &digest, 1).await, Err(StoreError::Unavailable(_))));
    weed.resume();
    assert_eq!(whole(&objects, &digest, 1).await.unwrap(), data);
    weed.kill();
    let direct = S3Config { endpoint: Some(weed.endpoint()), ..config };
    let Err(error) = S3Objects::open(&direct).await else { panic!("nobody is there") };
    let text = error.to_string();
    assert!(matches!(error, StoreError::Unavailable(_)), "{text}");
    assert!(text.contains(&weed.endpoint()), "{text}");
    let there_before = S3Objects::connect(&direct).await.unwrap();
    weed.restart();
    there_before.check().await.unwrap();
    assert_eq!(whole(&there_before, &digest, 1).await.unwrap(), data);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bucket_that_is_missing_forbidden_or_elsewhere_is_explained() {
    let Some(weed) = Weed::start() else { return };
    let explain = async |config: S3Config| {
        let Err(error) = S3Objects::open(&config).await else { panic!("{config:?} was opened") };
        assert!(matches!(error, StoreError::Io { .. }), "{error:?}");
        error.to_string()
    };
    let good = config(&weed, weed.endpoint());
    let text = explain(S3Config { bucket: "no-such-bucket".to_owned(), ..good.clone() }).await;
    assert!(text.contains("no-such-bucket") && text.contains("create the bucket"), "{text}");

    let keys = |access: &str, secret: &str| {
        Some(S3Credentials { access_key: access.to_owned(), secret_key: secret.to_owned() })
    };
    let stranger = weed.stranger();
    let credentials = keys(stranger.access_key, stranger.secret_key);
    let text = explain(S3Config { credentials, ..good.clone() }).await;
    assert!(text.contains("s3:ListBucket") && text.contains("kiln-test"), "{text}");
    for credentials in [keys("kiln", "hush-hush"), keys("nobody", "hush-hush")] {
        let text = explain(S3Config { credentials, ..good.clone() }).await;
        assert!(text.contains("AWS_ACCESS_KEY_ID") && !text.contains("hush-hush"), "{text}");
    }
    let profile = Some("no-such-profile".to_owned());
    let text = explain(S3Config { credentials: None, profile, ..good.clone() }).await;
    assert!(text.contains("AWS_ACCESS_KEY_ID"), "{text}");

    let proxy = Proxy::start(&weed.address());
    for (status, code) in [(301, "PermanentRedirect"), (400, "AuthorizationHeaderMalformed")] {
        proxy.plan(move |_| Some(Fault::Status(status, code)));
        let text = explain(config(&weed, proxy.endpoint())).await;
        assert!(text.contains("region"), "{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_without_bulk_deletion_is_asked_one_by_one() {
    let Some(weed) = Weed::start() else { return };
    let proxy = Proxy::start(&weed.address());
    let objects = S3Objects::open(&config(&weed, proxy.endpoint())).await.unwrap();
    for status in [400, 501] {
        proxy.heal();
        let mut names = Vec::new();
        for number in 0..5 {
            let (digest, data) = blob(number, 10);
            objects.put(&digest, Generation(number), data).await.unwrap();
            names.push((digest, Generation(number)));
        }
        proxy.plan(move |request| {
            (request.method == "POST").then_some(Fault::Status(status, "NotImplemented"))
        });
        objects.delete(&names).await.unwrap();
        assert_eq!(all(&objects).await, []);
    }
}
