//! What was begun and never ended: pins of no release, drafts that nobody signed.

use kiln_cas::pins::{Pin, PinError};
use kiln_cas::records::{Expect, Record, Write};

use super::entry::Draft;
use super::error::CatalogError;
use super::{Catalog, MAX_RECORD, PINS, keys};
use crate::json;
use crate::timestamp::Timestamp;

/// Pins and drafts read together.
pub(super) const PAGE: usize = 500;
/// A release is made faster than this, in milliseconds.
const AGE: u64 = 3_600_000;

impl Catalog {
    /// Removes all of it that is old enough. Returns how many pins went.
    pub async fn sweep(&self) -> Result<usize, CatalogError> {
        self.sweep_drafts().await?;
        let now = u64::try_from(self.now().unix()).unwrap_or(0).saturating_mul(1_000);
        let (mut removed, mut after) = (0, None::<Pin>);
        let mut known: Option<(String, bool)> = None;
        loop {
            let page = self.parts.pins.list(PINS, after.as_ref(), PAGE).await?;
            for pin in &page {
                if pin.at.saturating_add(AGE) > now {
                    continue;
                }
                let is_kept = match &known {
                    Some((name, kept)) if *name == pin.name => *kept,
                    _ => self.is_kept(&pin.name).await?,
                };
                known = Some((pin.name.clone(), is_kept));
                if !is_kept {
                    self.parts.pins.unpin(pin).await?;
                    removed += 1;
                }
            }
            after = page.last().cloned();
            if page.len() < PAGE {
                return Ok(removed);
            }
        }
    }

    async fn is_kept(&self, pin: &str) -> Result<bool, PinError> {
        Ok(self.parts.records.get(&keys::pin(pin)).await?.is_some())
    }

    async fn sweep_drafts(&self) -> Result<(), CatalogError> {
        let (now, mut after) = (self.now(), None::<String>);
        loop {
            let page = self.parts.records.list(keys::DRAFTS, after.as_deref(), false, PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|it| it.key.clone());
            for record in page {
                if !self.is_over(&record, now) {
                    continue;
                }
                let expect = Expect::Version(record.version);
                let write = Write { key: record.key, expect, value: None };
                // Somebody may have been faster.
                self.parts.records.write(vec![write]).await.ok();
            }
            if is_last {
                return Ok(());
            }
        }
    }

    /// Whether nobody is to sign a draft any more. Of one that cannot be read that is not known: it may be of a newer server.
    fn is_over(&self, stored: &Record, now: Timestamp) -> bool {
        let read = json::read::<Draft>(&stored.value, MAX_RECORD);
        self.unread.readable(&stored.key, read).is_some_and(|draft| draft.until <= now)
    }
}
