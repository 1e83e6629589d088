//! How much one caller, and one instance, may have the store promise to keep.
//!
//! What is written is promised for the store's lease: somebody who writes without end fills it for
//! everybody until promises end. Uploads, downloads for the Remote Asset service and outputs of actions
//! count for whoever asked. Each server counts what came through it since it started; a blob that is
//! there already counts for nobody.

mod accounts;
mod counted;
mod ledger;
#[cfg(test)]
mod tests;

pub use counted::account_of;
pub use ledger::{QuotaLimits, Quotas};
