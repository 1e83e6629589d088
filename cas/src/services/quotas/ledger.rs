//! How much each caller, and each instance, may have the store promise, and has.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::accounts::{Account, Accounts, account};
use crate::error::StoreError;

/// Parts of the time that is looked back.
const SLOTS: u32 = 48;

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

impl Default for Quotas {
    /// Accounts without limits.
    fn default() -> Self {
        Self::new(QuotaLimits::default())
    }
}

impl Quotas {
    pub fn new(limits: QuotaLimits) -> Self {
        Self { limits, started: Instant::now(), accounts: Mutex::default() }
    }

    pub(super) fn is_unlimited(&self) -> bool {
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

    pub(super) fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.accounts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Promises `bytes` to `holder`, unless that is more than it may have.
    pub(super) fn pledge(
        self: &Arc<Self>,
        holder: &Holder,
        bytes: u64,
    ) -> Result<Pledge, StoreError> {
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

/// The caller and the instance that bytes count for.
#[derive(Debug, Clone)]
pub(super) struct Holder {
    pub(super) caller: Arc<str>,
    pub(super) instance: Arc<str>,
}

/// Bytes that are promised; taken back when dropped, unless it was kept.
pub(super) struct Pledge {
    quotas: Arc<Quotas>,
    holder: Holder,
    slot: u64,
    bytes: u64,
}

impl Pledge {
    /// The bytes are stored.
    pub(super) fn keep(mut self) {
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
