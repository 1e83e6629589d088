//! What holds for all records.

use std::sync::Arc;

use bytes::Bytes;

use crate::records::{
    Expect, MAX_BATCH, MAX_KEY, MAX_VALUE, Record, Records, RecordsError, Version, Write,
};
use crate::stores::{DiskRecords, MemoryRecords};

fn write(key: &str, expect: Expect, value: Option<&str>) -> Write {
    Write { key: key.to_owned(), expect, value: value.map(|v| Bytes::from(v.to_owned())) }
}

async fn put(records: &dyn Records, key: &str, value: &str) -> Version {
    records.write(vec![write(key, Expect::Anything, Some(value))]).await.unwrap()[0]
}

async fn value(records: &dyn Records, key: &str) -> Option<String> {
    let record = records.get(key).await.unwrap()?;
    assert_eq!(record.key, key);
    Some(String::from_utf8(record.value.to_vec()).unwrap())
}

async fn versions_guard_writes(records: &dyn Records) {
    let first = records.write(vec![write("k", Expect::Absent, Some("1"))]).await.unwrap()[0];
    let conflict = records.write(vec![write("k", Expect::Absent, Some("2"))]).await;
    assert!(matches!(conflict, Err(RecordsError::Conflict { key }) if key == "k"));
    let second =
        records.write(vec![write("k", Expect::Version(first), Some("2"))]).await.unwrap()[0];
    assert!(second > first);
    let stale = records.write(vec![write("k", Expect::Version(first), None)]).await;
    assert!(matches!(stale, Err(RecordsError::Conflict { .. })));
    assert_eq!(records.get("k").await.unwrap().unwrap().version, second);
    let gone = records.write(vec![write("k", Expect::Version(second), None)]).await.unwrap();
    assert_eq!(gone, [0]);
    assert_eq!(value(records, "k").await, None);
    let gone = records.write(vec![write("k", Expect::Version(second), Some("x"))]).await;
    assert!(matches!(gone, Err(RecordsError::Conflict { .. })));
    assert!(put(records, "k", "again").await > second, "a version came back");
}

async fn a_batch_is_applied_whole_or_not_at_all(records: &dyn Records) {
    let version = put(records, "batch/a", "1").await;
    let conflict = records
        .write(vec![
            write("batch/a", Expect::Version(version), Some("2")),
            write("batch/new", Expect::Absent, Some("2")),
            write("batch/b", Expect::Version(77), Some("2")),
        ])
        .await;
    assert!(matches!(conflict, Err(RecordsError::Conflict { key }) if key == "batch/b"));
    assert_eq!(value(records, "batch/a").await.as_deref(), Some("1"));
    assert_eq!(value(records, "batch/new").await, None);
    let versions = records
        .write(vec![
            write("batch/a", Expect::Version(version), None),
            write("batch/new", Expect::Absent, Some("3")),
        ])
        .await
        .unwrap();
    assert_eq!(versions[0], 0);
    assert_eq!(records.get("batch/new").await.unwrap().unwrap().version, versions[1]);
    assert_eq!(value(records, "batch/a").await, None);
}

async fn lists_are_pages_in_key_order(records: &dyn Records) {
    for key in ["p/a", "p/b", "p/ü", "p/\u{10ffff}", "p", "q/a", "o/z"] {
        put(records, key, key).await;
    }
    // Prefix, after, reverse, limit, and the keys expected.
    type Case = (&'static str, Option<&'static str>, bool, usize, &'static [&'static str]);
    let cases: &[Case] = &[
        ("p/", None, false, 9, &["p/a", "p/b", "p/ü", "p/\u{10ffff}"]),
        ("p/", None, true, 9, &["p/\u{10ffff}", "p/ü", "p/b", "p/a"]),
        ("p/", None, false, 2, &["p/a", "p/b"]),
        ("p/", Some("p/a"), false, 2, &["p/b", "p/ü"]),
        ("p/", Some("p/aa"), false, 1, &["p/b"]),
        ("p/", Some("p/b"), true, 9, &["p/a"]),
        ("p/", Some("o"), false, 1, &["p/a"]),
        ("p/", Some("o"), true, 1, &[]),
        ("p/", Some("q"), false, 1, &[]),
        ("p/", Some("q"), true, 1, &["p/\u{10ffff}"]),
        ("p/\u{10ffff}", None, true, 9, &["p/\u{10ffff}"]),
        ("p/", None, false, 0, &[]),
        ("none", None, true, 9, &[]),
    ];
    for (prefix, after, reverse, limit, expected) in cases {
        let found = records.list(prefix, *after, *reverse, *limit).await.unwrap();
        let keys: Vec<_> = found.iter().map(|record| record.key.as_str()).collect();
        assert_eq!(keys, *expected, "{prefix} {after:?} {reverse} {limit}");
    }
    let each = ["p/", "none", "q/"].map(str::to_owned);
    let each = records.list_each(&each, 2).await.unwrap();
    let keys = |of: &Vec<Record>| of.iter().map(|it| it.key.clone()).collect::<Vec<_>>();
    let each: Vec<_> = each.iter().map(keys).collect();
    assert_eq!(each, [vec!["p/a", "p/b"], vec![], vec!["q/a"]]);
    let found = records.get_each(&["q/a", "none", "p"].map(str::to_owned)).await.unwrap();
    let keys: Vec<_> = found.iter().map(|it| it.as_ref().map(|it| it.key.as_str())).collect();
    assert_eq!(keys, [Some("q/a"), None, Some("p")]);
    assert_eq!(records.list("", None, false, 1000).await.unwrap().len(), {
        records.list("", None, true, 1000).await.unwrap().len()
    });
}

async fn limits_are_named(records: &dyn Records) {
    let long = "k".repeat(MAX_KEY);
    put(records, &long, "v").await;
    assert_eq!(value(records, &long).await.as_deref(), Some("v"));
    let big = Bytes::from(vec![1; MAX_VALUE]);
    let write_big = |value| vec![Write { key: "big".into(), expect: Expect::Anything, value }];
    records.write(write_big(Some(big.clone()))).await.unwrap();
    assert_eq!(records.get("big").await.unwrap().unwrap().value, big);
    let invalid = [
        vec![write(&"k".repeat(MAX_KEY + 1), Expect::Anything, Some("v"))],
        vec![write("", Expect::Anything, Some("v"))],
        write_big(Some(Bytes::from(vec![1; MAX_VALUE + 1]))),
        vec![write("same", Expect::Anything, None), write("same", Expect::Anything, None)],
        (0..=MAX_BATCH).map(|n| write(&n.to_string(), Expect::Anything, None)).collect(),
    ];
    for writes in invalid {
        let error = records.write(writes).await;
        assert!(matches!(error, Err(RecordsError::Invalid(_))), "{error:?}");
    }
}

async fn concurrent_increments_are_all_counted(records: Arc<dyn Records>) {
    put(&*records, "counter", "0").await;
    let tasks: Vec<_> = (0..10)
        .map(|_| {
            let records = records.clone();
            tokio::spawn(async move {
                let mut done = 0;
                while done < 10 {
                    let now = records.get("counter").await.unwrap().unwrap();
                    let count: u64 = std::str::from_utf8(&now.value).unwrap().parse().unwrap();
                    let next = (count + 1).to_string();
                    let next = write("counter", Expect::Version(now.version), Some(&next));
                    done += u64::from(records.write(vec![next]).await.is_ok());
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(value(&*records, "counter").await.as_deref(), Some("100"));
}

pub async fn suite(records: Arc<dyn Records>) {
    versions_guard_writes(&*records).await;
    a_batch_is_applied_whole_or_not_at_all(&*records).await;
    lists_are_pages_in_key_order(&*records).await;
    limits_are_named(&*records).await;
    concurrent_increments_are_all_counted(records).await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    suite(Arc::new(MemoryRecords::default())).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn disk_keeps_the_contract_and_its_records() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("records.redb");
    let records = Arc::new(DiskRecords::open(&path).unwrap());
    suite(records.clone()).await;
    let version = put(&*records, "kept", "value").await;
    records.close().await.unwrap();
    let late = records.write(vec![write("late", Expect::Anything, Some("v"))]).await;
    assert!(matches!(late, Err(RecordsError::Unavailable(_))));
    drop(records);
    let records = DiskRecords::open(&path).unwrap();
    assert_eq!(records.get("kept").await.unwrap().unwrap().version, version);
    assert!(put(&records, "kept", "other").await > version);
    assert_eq!(value(&records, "late").await, None);
}
