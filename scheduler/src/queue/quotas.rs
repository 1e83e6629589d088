//! What each instance and each caller may have waiting, and running.

use std::collections::HashMap;
use std::sync::Arc;

use super::limits::{Quota, Refusal, Scope};

/// The instance and the caller that an action counts for.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Owner {
    pub instance: Arc<str>,
    /// The account that asks; `None`: nobody in particular, who has no quota.
    pub caller: Option<Arc<str>>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
struct Used {
    queued: usize,
    running: usize,
}

pub(super) struct Quotas {
    instance: Quota,
    caller: Quota,
    used: HashMap<(Scope, Arc<str>), Used>,
}

impl Quotas {
    pub fn new(instance: Quota, caller: Quota) -> Self {
        Self { instance, caller, used: HashMap::new() }
    }

    fn accounts(owner: &Owner) -> impl Iterator<Item = (Scope, Arc<str>)> {
        let caller = owner.caller.clone().map(|caller| (Scope::Caller, caller));
        std::iter::once((Scope::Instance, owner.instance.clone())).chain(caller)
    }

    fn quota(&self, scope: Scope) -> Quota {
        match scope {
            Scope::Instance => self.instance,
            Scope::Caller => self.caller,
        }
    }

    fn used(&self, account: &(Scope, Arc<str>)) -> Used {
        self.used.get(account).copied().unwrap_or_default()
    }

    /// Why no more of the owner's actions may wait.
    pub fn refuses(&self, owner: &Owner) -> Option<Refusal> {
        Self::accounts(owner).find_map(|account| {
            let limit = self.quota(account.0).queued;
            let full = self.used(&account).queued >= limit;
            full.then_some(Refusal::QuotaReached { of: account.0, limit })
        })
    }

    /// Whether no more of the owner's actions may run.
    pub fn is_full(&self, owner: &Owner) -> bool {
        Self::accounts(owner)
            .any(|account| self.used(&account).running >= self.quota(account.0).running)
    }

    fn count_used(&mut self, owner: &Owner, which: fn(&mut Used) -> &mut usize, more: bool) {
        for account in Self::accounts(owner) {
            let used = self.used.entry(account.clone()).or_default();
            let count = which(used);
            *count = if more { *count + 1 } else { count.saturating_sub(1) };
            if *used == Used::default() {
                self.used.remove(&account);
            }
        }
    }

    pub fn count_queued(&mut self, owner: &Owner, waits: bool) {
        self.count_used(owner, |used| &mut used.queued, waits);
    }

    pub fn count_running(&mut self, owner: &Owner, runs: bool) {
        self.count_used(owner, |used| &mut used.running, runs);
    }

    /// The number of actions that wait and of slots that run some, over all instances, for tests.
    pub fn totals(&self) -> (usize, usize) {
        let instances = self.used.iter().filter(|((scope, _), _)| *scope == Scope::Instance);
        instances.fold((0, 0), |(queued, running), (_, used)| {
            (queued + used.queued, running + used.running)
        })
    }
}
