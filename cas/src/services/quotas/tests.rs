//! Accounts of callers and instances.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::Extensions;

use super::accounts::MAX_ACCOUNTS;
use super::ledger::Holder;
use super::*;
use crate::access::Everybody;
use crate::blob::SharedBlobStore;
use crate::digest::Digest;
use crate::services::guard::Guard;
use crate::stores::MemoryBlobStore;

fn blob(seed: u8, size: usize) -> (Digest, Bytes) {
    let data = Bytes::from(vec![seed; size]);
    (crate::digest::DigestFunction::Sha256.digest(&data), data)
}

fn quotas(caller_bytes: u64, instance_bytes: u64, lease: Duration) -> Arc<Quotas> {
    Arc::new(Quotas::new(QuotaLimits { caller_bytes, instance_bytes, lease }))
}

fn store(quotas: &Arc<Quotas>, blobs: &SharedBlobStore, instance: &str) -> SharedBlobStore {
    let guard = Guard(Arc::new(Everybody { write_results: false }));
    quotas.store(blobs, &guard, &Extensions::new(), instance)
}

#[tokio::test]
async fn what_is_written_counts_and_what_is_there_already_does_not() {
    let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
    let quotas = quotas(1000, 0, Duration::from_secs(3600));
    let (one, other) = (store(&quotas, &blobs, "a"), store(&quotas, &blobs, "b"));
    let (first, data) = blob(1, 600);
    one.write(&first, data.clone()).await.unwrap();
    one.write(&first, data).await.unwrap();
    // The caller's bytes are counted over all instances.
    let (second, data) = blob(2, 401);
    let refused = other.write(&second, data.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("quotas.caller_bytes"), "{refused}");
    assert!(refused.contains("600 of 1000 bytes") && refused.contains("401"), "{refused}");
    // An upload that breaks off is given back.
    let (third, data) = blob(3, 400);
    drop(other.writer(&third).await.unwrap());
    let mut writer = other.writer(&third).await.unwrap();
    writer.write(data).await.unwrap();
    writer.commit().await.unwrap();
    assert!(one.writer(&blob(4, 1).0).await.is_err());
}

#[tokio::test]
async fn an_instance_has_a_quota_of_its_own_and_promises_end() {
    let blobs: SharedBlobStore = Arc::new(MemoryBlobStore::default());
    let quotas = quotas(0, 1000, Duration::from_millis(480));
    let (one, other) = (store(&quotas, &blobs, "a"), store(&quotas, &blobs, "b"));
    let (first, data) = blob(1, 1000);
    one.write(&first, data).await.unwrap();
    let (second, data) = blob(2, 1000);
    let refused = one.write(&second, data.clone()).await.unwrap_err().to_string();
    assert!(refused.contains("quotas.instance_bytes: instance \"a\""), "{refused}");
    let (third, more) = blob(3, 1000);
    other.write(&third, more).await.unwrap();
    while one.write(&second, data.clone()).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[test]
fn what_is_stored_already_counts_even_where_it_is_too_much() {
    let quotas = quotas(1000, 2000, Duration::from_secs(3600));
    let (al, instance) = ("al".into(), "a".into());
    quotas.charge(&al, &instance, 600).unwrap();
    quotas.check_room(&al, &instance).unwrap();
    let over = quotas.charge(&al, &instance, 600).unwrap_err().to_string();
    assert!(over.contains("al was promised 600 of 1000 bytes"), "{over}");
    let full = quotas.check_room(&al, &instance).unwrap_err().to_string();
    assert!(full.contains("quotas.caller_bytes: al was promised 1200"), "{full}");
    let other = "other".into();
    quotas.check_room(&other, &instance).unwrap();
    quotas.charge(&other, &instance, 800).unwrap();
    let full = quotas.check_room(&other, &instance).unwrap_err().to_string();
    assert!(full.contains("quotas.instance_bytes"), "{full}");
    Quotas::default().charge(&al, &instance, u64::MAX).unwrap();
}

#[test]
fn accounts_are_bounded_in_number() {
    let quotas = quotas(10, 10, Duration::from_secs(3600));
    let holder = |i: usize| Holder { caller: "al".into(), instance: i.to_string().into() };
    for i in 0..MAX_ACCOUNTS + 10 {
        if let Ok(pledge) = quotas.pledge(&holder(i), 0) {
            pledge.keep();
        }
    }
    assert!(quotas.accounts().instances.len() <= MAX_ACCOUNTS + 1);
}
