//! The disk of a store, shared with one other user of it (the tenant) that keeps files under the same limit.

use std::fmt;
use std::sync::{Arc, Weak};

use kiln_net::causes::chain;

use super::contents::Contents;
use super::tenant::{SHARE, Tenant};

/// A store's disk as its tenant sees it. There is at most one tenant.
#[derive(Clone)]
pub struct Premises {
    contents: Arc<Contents>,
}

impl fmt::Debug for Premises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Premises")
    }
}

impl Premises {
    pub fn of(contents: Arc<Contents>) -> Self {
        Self { contents }
    }

    /// Most bytes that a tenant should keep while nobody uses them.
    pub fn share(&self) -> u64 {
        self.contents.capacity.max() / SHARE
    }

    /// From now on the store counts what the tenant uses, and asks it to give way. The first
    /// one stays.
    pub fn move_in(&self, tenant: Weak<dyn Tenant>) {
        self.contents.tenant.move_in(tenant);
    }

    /// Makes room for `bytes` bytes of files of the tenant. Where no room can be made this is only logged: the
    /// tenant writes its files all the same, since actions that run need them.
    pub async fn make_room(&self, bytes: u64) {
        if let Err(error) = self.contents.reserve(bytes).await {
            tracing::debug!(error = %chain(&error), bytes, "no room could be made for inputs");
        }
    }
}
