//! Others who keep files beside a store, under its limit.

use std::fmt;
use std::sync::{Arc, OnceLock, Weak};

use super::Inner;

/// Tenants may fill so great a share of the limit before a store stops counting what they hold:
/// what running actions need is never a reason to refuse a write.
const SHARE: u64 = 4;

/// Something that keeps files in the same data directory as a store, and can spare some.
pub trait Tenant: Send + Sync + 'static {
    /// Bytes of files that are its own. Hard links to blobs are the store's.
    fn used(&self) -> u64;

    /// Deletes about so many bytes of files that nobody uses now, links to blobs included.
    /// `false`: there were none. Blocks.
    fn give_way(&self, bytes: u64) -> bool;
}

/// The place of a store, where one tenant may move in.
#[derive(Clone)]
pub struct Premises {
    pub(super) inner: Arc<Inner>,
}

impl fmt::Debug for Premises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Premises")
    }
}

impl Premises {
    /// Most bytes that a tenant should keep while nobody uses them.
    pub fn share(&self) -> u64 {
        self.inner.room.max() / SHARE
    }

    /// From now on the store counts what the tenant uses, and asks it to give way. The first
    /// one stays.
    pub fn move_in(&self, tenant: Weak<dyn Tenant>) {
        // An error means that one is there already.
        let _ = self.inner.tenant.0.set(tenant);
    }

    /// Makes room for files of the tenant. Where there is none they are kept all the same:
    /// whoever asks cannot do without.
    pub async fn make_room(&self, bytes: u64) {
        if let Err(error) = self.inner.room.reserve(&self.inner, bytes).await {
            tracing::debug!(%error, bytes, "no room could be made for inputs");
        }
    }
}

/// Who has moved in.
#[derive(Default)]
pub(super) struct Occupancy(OnceLock<Weak<dyn Tenant>>);

impl Occupancy {
    fn tenant(&self) -> Option<Arc<dyn Tenant>> {
        self.0.get()?.upgrade()
    }

    /// Bytes that count against a limit of `max`.
    pub fn used(&self, max: u64) -> u64 {
        self.tenant().map_or(0, |tenant| tenant.used().min(max / SHARE))
    }

    pub fn give_way(&self, bytes: u64) -> bool {
        self.tenant().is_some_and(|tenant| tenant.give_way(bytes))
    }
}
