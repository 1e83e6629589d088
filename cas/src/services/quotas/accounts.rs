//! Bytes that were promised to each caller and instance, by the time when they were.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

/// Callers, and instances, that have an account of their own; those beyond share one.
pub const MAX_ACCOUNTS: usize = 10_000;
/// The name of the account that all those beyond share.
const OTHERS: &str = "(others)";

#[derive(Default)]
pub struct Accounts {
    pub callers: HashMap<Arc<str>, Account>,
    pub instances: HashMap<Arc<str>, Account>,
}

/// Bytes promised in each slot of time that is still looked at.
#[derive(Default)]
pub struct Account {
    slots: VecDeque<(u64, u64)>,
    pub total: u64,
}

impl Account {
    /// Forgets what was promised before that slot.
    fn forget(&mut self, before: u64) {
        while let Some((slot, bytes)) = self.slots.front().copied()
            && slot < before
        {
            self.total -= bytes;
            self.slots.pop_front();
        }
    }

    pub fn add(&mut self, slot: u64, bytes: u64) {
        self.total += bytes;
        match self.slots.back_mut() {
            Some((last, sum)) if *last == slot => *sum += bytes,
            _ => self.slots.push_back((slot, bytes)),
        }
    }

    /// Takes back what was added in that slot, if it is still looked at.
    pub fn take_back(&mut self, slot: u64, bytes: u64) {
        if let Some((_, sum)) = self.slots.iter_mut().find(|(at, _)| *at == slot) {
            let bytes = bytes.min(*sum);
            *sum -= bytes;
            self.total -= bytes;
        }
    }
}

/// The account of `name`, without what is over.
pub fn account<'a>(
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
