//! Others who keep files beside a store, under its limit.

use std::sync::{Arc, OnceLock, Weak};

/// Tenants may fill so great a share of the limit before a store stops counting what they hold:
/// what running actions need is never a reason to refuse a write.
pub const SHARE: u64 = 4;

/// Something that keeps files in the same data directory as a store, and can spare some.
pub trait Tenant: Send + Sync + 'static {
    /// Bytes of files that are its own. Hard links to blobs are the store's.
    fn used(&self) -> u64;

    /// Deletes about so many bytes of files that nobody uses now, links to blobs included.
    /// `false`: there were none. Blocks.
    fn give_way(&self, bytes: u64) -> bool;
}

/// The tenant of a store, if one has moved in.
#[derive(Default)]
pub struct Occupancy(OnceLock<Weak<dyn Tenant>>);

impl Occupancy {
    /// The first one stays.
    pub fn move_in(&self, tenant: Weak<dyn Tenant>) {
        // An error means that one is there already.
        let _ = self.0.set(tenant);
    }

    fn tenant(&self) -> Option<Arc<dyn Tenant>> {
        self.0.get()?.upgrade()
    }

    /// Bytes that count against a limit of `max`.
    pub fn used(&self, max: u64) -> u64 {
        self.tenant().map_or(0, |tenant| tenant.used().min(max / SHARE))
    }

    /// Asks the tenant for about so many bytes. `false`: it had none to spare.
    pub fn give_way(&self, bytes: u64) -> bool {
        self.tenant().is_some_and(|tenant| tenant.give_way(bytes))
    }
}
