//! How much one caller, and one instance, may have the store promise to keep.
//!
//! What is written is promised for the store's lease: somebody who writes without end fills it for
//! everybody until promises end. Uploads, downloads for the Remote Asset service and outputs of actions
//! count for whoever asked. Each server counts what came through it since it started; a blob that is
//! there already counts for nobody.

use std::collections::{HashMap, VecDeque};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use bytes::Bytes;
use http::Extensions;

use super::guard::Guard;
use crate::access::{Authorizer, Right};
use crate::blob::{Blob, BlobStore, BlobWriter, SharedBlobStore};
use crate::budget::Share;
use crate::digest::Digest;
use crate::error::StoreError;

/// Parts of the time that is looked back.
const SLOTS: u32 = 48;
/// Callers, and instances, that have an account of their own; those beyond share one.
const MAX_ACCOUNTS: usize = 10_000;
/// The account of those beyond.
const OTHERS: &str = "(others)";

/// Bytes; 0: no limit.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct QuotaLimits {
    /// `quotas.caller_bytes`
    pub caller_bytes: u64,
    /// `quotas.instance_bytes`
    pub instance_bytes: u64,
    /// How long what is written is promised.
    pub lease: Duration,
}

/// The accounts of all callers and instances.
pub struct Quotas {
    limits: QuotaLimits,
    started: Instant,
    accounts: Mutex<Accounts>,
}

#[derive(Default)]
struct Accounts {
    callers: HashMap<Arc<str>, Account>,
    instances: HashMap<Arc<str>, Account>,
}

/// Bytes promised in each slot of time that is still looked at.
#[derive(Default)]
struct Account {
    slots: VecDeque<(u64, u64)>,
    total: u64,
}

impl Account {
    fn forget(&mut self, before: u64) {
        while let Some((slot, bytes)) = self.slots.front().copied()
            && slot < before
        {
            self.total -= bytes;
            self.slots.pop_front();
        }
    }

    fn add(&mut self, slot: u64, bytes: u64) {
        self.total += bytes;
        match self.slots.back_mut() {
            Some((last, sum)) if *last == slot => *sum += bytes,
            _ => self.slots.push_back((slot, bytes)),
        }
    }

    fn take_back(&mut self, slot: u64, bytes: u64) {
        if let Some((_, sum)) = self.slots.iter_mut().find(|(at, _)| *at == slot) {
            let bytes = bytes.min(*sum);
            *sum -= bytes;
            self.total -= bytes;
        }
    }
}

impl Default for Quotas {
    /// Without limits.
    fn default() -> Self {
        Self::new(QuotaLimits::default())
    }
}

impl Quotas {
    pub fn new(limits: QuotaLimits) -> Self {
        Self { limits, started: Instant::now(), accounts: Mutex::default() }
    }

    /// `blobs` as `caller` may write to it in `instance`.
    pub fn store(
        self: &Arc<Self>,
        blobs: &SharedBlobStore,
        guard: &Guard,
        caller: &Extensions,
        instance: &str,
    ) -> SharedBlobStore {
        let access = &*guard.0;
        // What a worker brings counts for who asked for the action, by `charge`.
        let works = || {
            let may = |right| access.allows(caller, right, instance);
            access.name(caller).is_some() && may(Right::Work) && !may(Right::Execute)
        };
        if self.is_unlimited() || works() {
            return blobs.clone();
        }
        let account = Holder { caller: account_of(access, caller), instance: instance.into() };
        Arc::new(Counted { inner: blobs.clone(), quotas: self.clone(), account })
    }

    fn is_unlimited(&self) -> bool {
        self.limits.caller_bytes == 0 && self.limits.instance_bytes == 0
    }

    /// Counts `bytes` that have been stored for `caller` already. Says which quota they are over, if they
    /// are; they count all the same, since they are there.
    pub fn charge(
        &self,
        caller: &Arc<str>,
        instance: &Arc<str>,
        bytes: u64,
    ) -> Result<(), StoreError> {
        if self.is_unlimited() || bytes == 0 {
            return Ok(());
        }
        let holder = Holder { caller: caller.clone(), instance: instance.clone() };
        self.with_accounts(&holder, |slot, [caller, instance]| {
            let checked = self.check(&holder, caller, instance, bytes);
            caller.add(slot, bytes);
            instance.add(slot, bytes);
            checked
        })
    }

    /// Whether anything more may be stored for `caller`.
    pub fn check_room(&self, caller: &Arc<str>, instance: &Arc<str>) -> Result<(), StoreError> {
        if self.is_unlimited() {
            return Ok(());
        }
        let holder = Holder { caller: caller.clone(), instance: instance.clone() };
        self.with_accounts(&holder, |_, [caller, instance]| {
            self.check(&holder, caller, instance, 1)
        })
    }

    fn slot(&self) -> u64 {
        let length = (self.limits.lease / SLOTS).max(Duration::from_millis(1));
        u64::try_from(self.started.elapsed().as_nanos() / length.as_nanos()).unwrap_or(u64::MAX)
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises `bytes` to `holder`, unless that is more than it may have.
    fn pledge(self: &Arc<Self>, holder: &Holder, bytes: u64) -> Result<Pledge, StoreError> {
        self.with_accounts(holder, |slot, [caller, instance]| {
            self.check(holder, caller, instance, bytes)?;
            caller.add(slot, bytes);
            instance.add(slot, bytes);
            Ok(Pledge { quotas: self.clone(), holder: holder.clone(), slot, bytes })
        })
    }

    /// `work` gets the present slot and the accounts of caller and instance.
    fn with_accounts<T>(
        &self,
        holder: &Holder,
        work: impl FnOnce(u64, [&mut Account; 2]) -> T,
    ) -> T {
        let slot = self.slot();
        let before = slot.saturating_sub(u64::from(SLOTS));
        let mut accounts = self.accounts();
        let Accounts { callers, instances } = &mut *accounts;
        let caller = account(callers, &holder.caller, before);
        let instance = account(instances, &holder.instance, before);
        work(slot, [caller, instance])
    }

    fn check(
        &self,
        holder: &Holder,
        caller: &Account,
        instance: &Account,
        bytes: u64,
    ) -> Result<(), StoreError> {
        let QuotaLimits { caller_bytes, instance_bytes, .. } = self.limits;
        check(caller, caller_bytes, bytes, || ("quotas.caller_bytes", holder.caller.to_string()))?;
        check(instance, instance_bytes, bytes, || {
            ("quotas.instance_bytes", format!("instance {:?}", holder.instance))
        })
    }
}

/// The account of `name`, without what is over.
fn account<'a>(
    accounts: &'a mut HashMap<Arc<str>, Account>,
    name: &Arc<str>,
    before: u64,
) -> &'a mut Account {
    if accounts.len() >= MAX_ACCOUNTS && !accounts.contains_key(name) {
        accounts.retain(|_, account| {
            account.forget(before);
            account.total > 0
        });
    }
    let full = accounts.len() >= MAX_ACCOUNTS && !accounts.contains_key(name);
    let name = if full { OTHERS.into() } else { name.clone() };
    let account = accounts.entry(name).or_default();
    account.forget(before);
    account
}

fn check(
    account: &Account,
    limit: u64,
    bytes: u64,
    whose: impl FnOnce() -> (&'static str, String),
) -> Result<(), StoreError> {
    if limit == 0 || account.total.saturating_add(bytes) <= limit {
        return Ok(());
    }
    let (key, who) = whose();
    Err(StoreError::Quota { key, who, used: account.total, limit, asked: bytes })
}

/// Who a caller's bytes count for: the credential's name; of somebody without one the address.
pub fn account_of(access: &dyn Authorizer, caller: &Extensions) -> Arc<str> {
    if let Some(name) = access.name(caller) {
        return name;
    }
    let address = caller.get::<Share>().and_then(Share::address);
    address.map_or_else(|| "somebody".into(), |address| address.to_string().into())
}

#[derive(Debug, Clone)]
struct Holder {
    caller: Arc<str>,
    instance: Arc<str>,
}

/// Bytes that are promised; taken back when dropped, unless it was kept.
struct Pledge {
    quotas: Arc<Quotas>,
    holder: Holder,
    slot: u64,
    bytes: u64,
}

impl Pledge {
    fn keep(mut self) {
        self.bytes = 0;
    }
}

impl Drop for Pledge {
    fn drop(&mut self) {
        if self.bytes == 0 {
            return;
        }
        let mut accounts = self.quotas.accounts();
        let Accounts { callers, instances } = &mut *accounts;
        for (accounts, name) in [(callers, &self.holder.caller), (instances, &self.holder.instance)]
        {
            if let Some(account) = accounts.get_mut(name) {
                account.take_back(self.slot, self.bytes);
            }
        }
    }
}

/// A store whose writes are counted.
struct Counted {
    inner: SharedBlobStore,
    quotas: Arc<Quotas>,
    account: Holder,
}

#[async_trait]
impl BlobStore for Counted {
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
        if self.inner.find_missing(&[*digest]).await?.is_empty() {
            // Also says whether the bytes are right.
            return self.inner.write(digest, data).await;
        }
        let pledge = self.quotas.pledge(&self.account, digest.size)?;
        self.inner.write(digest, data).await?;
        pledge.keep();
        Ok(())
    }

    async fn writer(&self, digest: &Digest) -> Result<Box<dyn BlobWriter>, StoreError> {
        let missing = self.inner.find_missing(&[*digest]).await?;
        let bytes = missing.first().map_or(0, |digest| digest.size);
        let pledge = self.quotas.pledge(&self.account, bytes)?;
        Ok(Box::new(CountedWriter { inner: self.inner.writer(digest).await?, pledge }))
    }

    async fn sync(&self) -> Result<(), StoreError> {
        self.inner.sync().await
    }

    async fn at_hand(&self, digest: &Digest, limit: u64) -> Option<Bytes> {
        self.inner.at_hand(digest, limit).await
    }

    async fn link(&self, digest: &Digest, destination: &Path) -> Result<bool, StoreError> {
        self.inner.link(digest, destination).await
    }
}

struct CountedWriter {
    inner: Box<dyn BlobWriter>,
    pledge: Pledge,
}

#[async_trait]
impl BlobWriter for CountedWriter {
    async fn write(&mut self, data: Bytes) -> Result<(), StoreError> {
        self.inner.write(data).await
    }

    async fn commit(self: Box<Self>) -> Result<(), StoreError> {
        self.inner.commit().await?;
        self.pledge.keep();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::Everybody;
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
}
