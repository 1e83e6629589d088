//! What checks found: the newest as records, and counts since the start.
//!
//! | key | value |
//! | --- | --- |
//! | `audit/x/{time}/{action}` | the encoded `kiln.hermeticity.v1.Checked` |

use std::sync::atomic::{AtomicU64, Ordering};

use kiln_cas::records::{Expect, RecordsError, SharedRecords, Write};
use kiln_net::causes::chain;
use kiln_protos::hermeticity::{Checked, Verdict};
use prost::Message;

/// Prefix of the records' keys: the checks were called audits when the first records were written.
const PREFIX: &str = "audit/x/";
/// The number of checks that are kept.
pub const MAX_KEPT: usize = 1_000;
/// Checks that may be there beyond those kept: old ones are removed many at a time.
const SLACK: u64 = 50;

/// Counts since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HermeticityStats {
    pub same: u64,
    pub not_hermetic: u64,
    pub not_deterministic: u64,
    pub not_checked: u64,
    /// The number of executions that all checks took.
    pub runs: u64,
    /// Executions that were sampled but not checked, because too many waited already.
    pub dropped: u64,
}

pub struct History {
    records: SharedRecords,
    verdicts: [AtomicU64; 4],
    runs: AtomicU64,
    pub dropped: AtomicU64,
    written: AtomicU64,
}

impl History {
    pub fn new(records: SharedRecords) -> Self {
        Self {
            records,
            verdicts: Default::default(),
            runs: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
            written: AtomicU64::new(0),
        }
    }

    /// Keeps what one check found. That it cannot be written is logged alone: no build waits for it.
    pub async fn add(&self, checked: &Checked) {
        let place = match checked.verdict() {
            Verdict::Same => 0,
            Verdict::NotHermetic => 1,
            Verdict::NotDeterministic => 2,
            Verdict::NotChecked | Verdict::Unspecified => 3,
        };
        self.verdicts[place].fetch_add(1, Ordering::Relaxed);
        self.runs.fetch_add(u64::from(checked.runs), Ordering::Relaxed);
        if let Err(error) = self.keep(checked).await {
            tracing::warn!(error = chain(&error), "the result of a hermeticity check was not kept");
        }
    }

    async fn keep(&self, checked: &Checked) -> Result<(), RecordsError> {
        let action = checked.action.as_ref().map_or("", |action| action.hash.as_str());
        let key = format!("{PREFIX}{:016x}/{action}", checked.at);
        let value = Some(checked.encode_to_vec().into());
        self.records.write(vec![Write { key, expect: Expect::Anything, value }]).await?;
        if self.written.fetch_add(1, Ordering::Relaxed).is_multiple_of(SLACK) {
            self.prune().await?;
        }
        Ok(())
    }

    async fn prune(&self) -> Result<(), RecordsError> {
        let kept = self.records.list(PREFIX, None, true, MAX_KEPT).await?;
        let (MAX_KEPT, Some(oldest)) = (kept.len(), kept.last()) else { return Ok(()) };
        let limit = MAX_KEPT.min(kiln_cas::records::MAX_BATCH);
        let old = self.records.list(PREFIX, Some(&oldest.key), true, limit).await?;
        let delete = |key| Write { key, expect: Expect::Anything, value: None };
        let writes: Vec<Write> = old.into_iter().map(|record| delete(record.key)).collect();
        if !writes.is_empty() {
            self.records.write(writes).await?;
        }
        Ok(())
    }

    /// Newest first, at most `limit`. What cannot be read hides no other.
    pub async fn newest(&self, limit: usize) -> Result<Vec<Checked>, RecordsError> {
        let records = self.records.list(PREFIX, None, true, limit.min(MAX_KEPT)).await?;
        let read = |record: &kiln_cas::records::Record| {
            let said = |error: &prost::DecodeError| {
                tracing::warn!(key = record.key, %error, "a check is left out");
            };
            Checked::decode(record.value.clone()).inspect_err(said).ok()
        };
        Ok(records.iter().filter_map(read).collect())
    }

    pub fn stats(&self) -> HermeticityStats {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let [same, not_hermetic, not_deterministic, not_checked] =
            [0, 1, 2, 3].map(|place: usize| count(&self.verdicts[place]));
        HermeticityStats {
            same,
            not_hermetic,
            not_deterministic,
            not_checked,
            runs: count(&self.runs),
            dropped: count(&self.dropped),
        }
    }
}
