//! What was begun and never ended: pins of no release, drafts that nobody signed.

use std::collections::BTreeSet;
use std::time::Duration;

use kiln_cas::pins::{Pin, PinError};
use kiln_cas::records::{Expect, Record, Write};

use super::entry::Draft;
use super::error::CatalogError;
use super::{Catalog, MAX_RECORD, PINS, keys};
use crate::json;

/// Pins and drafts read together.
pub(super) const PAGE: usize = 500;
/// A release is made faster than this, and its signatures come sooner.
pub(super) const AGE: Duration = Duration::from_secs(3_600);

impl Catalog {
    /// Removes all of it that this process has seen unfinished for so long. Returns how many pins went. `now`: by a clock of
    /// this process that nobody sets, from any origin.
    pub async fn sweep(&self, now: Duration) -> Result<usize, CatalogError> {
        let mut seen = BTreeSet::new();
        self.sweep_drafts(&mut seen, now).await?;
        let removed = self.sweep_pins(&mut seen, now).await?;
        self.unfinished.keep(&seen);
        Ok(removed)
    }

    /// Whether what is not finished never will be. It is added to what was seen.
    fn is_over(&self, key: String, seen: &mut BTreeSet<String>, now: Duration) -> bool {
        let is_over = self.unfinished.of(&key, now) >= AGE;
        seen.insert(key);
        is_over
    }

    async fn sweep_pins(
        &self,
        seen: &mut BTreeSet<String>,
        now: Duration,
    ) -> Result<usize, CatalogError> {
        let (mut removed, mut after) = (0, None::<Pin>);
        let mut known: Option<(String, bool)> = None;
        loop {
            let page = self.parts.pins.list(PINS, after.as_ref(), PAGE).await?;
            for pin in &page {
                let is_kept = match &known {
                    Some((name, kept)) if *name == pin.name => *kept,
                    _ => self.is_kept(&pin.name).await?,
                };
                known = Some((pin.name.clone(), is_kept));
                if !is_kept && self.is_over(keys::pin(&pin.name), seen, now) {
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

    async fn sweep_drafts(
        &self,
        seen: &mut BTreeSet<String>,
        now: Duration,
    ) -> Result<(), CatalogError> {
        let mut after = None::<String>;
        loop {
            let page = self.parts.records.list(keys::DRAFTS, after.as_deref(), false, PAGE).await?;
            let is_last = page.len() < PAGE;
            after = page.last().map(|it| it.key.clone());
            for record in page {
                if !self.is_draft(&record) || !self.is_over(record.key.clone(), seen, now) {
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

    /// Whether a draft can be read. What one that cannot is waiting for is not known: it may be of a newer server.
    fn is_draft(&self, stored: &Record) -> bool {
        let read = json::read::<Draft>(&stored.value, MAX_RECORD);
        self.unread.readable(&stored.key, read).is_some()
    }
}
