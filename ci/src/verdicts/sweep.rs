//! Records that nobody asks for any more.

use std::time::Duration;

use serde::Deserialize;

use super::error::VerdictError;
use super::keys;
use super::store::{Store, delete};
use crate::model::Time;
use crate::storage::{Record, Write};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is looked through, and how long it stays after it was written last.
const KEPT: [(&str, Duration); 3] = [
    (keys::BUILDS, DAY.saturating_mul(14)),
    (keys::CASES, DAY.saturating_mul(14)),
    (keys::TESTS, DAY.saturating_mul(90)),
];

/// Looks through all records in turn, a page at a time.
#[derive(Debug, Default)]
pub struct Sweep {
    place: usize,
    after: Option<String>,
}

/// When the thing that a record is about was seen last.
#[derive(Deserialize)]
struct Dated {
    #[serde(alias = "at")]
    last: Time,
}

impl Sweep {
    /// What of the next page is to be deleted, and how many of that are tests.
    pub async fn next(
        &mut self,
        store: &Store,
        now: Time,
    ) -> Result<(Vec<Write>, u64), VerdictError> {
        let Some((prefix, stay)) = KEPT.get(self.place).copied() else {
            self.place = 0;
            return Ok((Vec::new(), 0));
        };
        let page = store.page(prefix, self.after.as_deref()).await?;
        self.after = page.last().map(|it| it.key.clone());
        if self.after.is_none() {
            self.place = (self.place + 1) % KEPT.len();
        }
        let is_old = |it: &&Record| {
            keys::decode::<Dated>(&it.value).is_ok_and(|it| now.since(it.last) > stay)
        };
        let old = page.iter().filter(is_old).map(|it| delete(it.key.clone()));
        let writes: Vec<_> = old.collect();
        let tests = if prefix == keys::TESTS { writes.len() as u64 } else { 0 };
        Ok((writes, tests))
    }
}
