//! Records that nobody asks for any more.

use std::time::Duration;

use serde::Deserialize;

use super::error::VerdictError;
use super::keys;
use super::store::{Store, delete};
use crate::model::{TestKey, Time};
use crate::storage::Write;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What is looked through, and how long it stays after it was written last.
const KEPT: [(&str, Duration); 4] = [
    (keys::BUILDS, DAY.saturating_mul(14)),
    (keys::IMPORTS, DAY.saturating_mul(14)),
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
    /// The test that the record is about as a whole; `None`: it is about something else.
    #[serde(default)]
    test: Option<TestKey>,
}

impl Sweep {
    /// What of the next page is to be deleted, and the instances of tests among that.
    pub async fn next(
        &mut self,
        store: &Store,
        now: Time,
    ) -> Result<(Vec<Write>, Vec<String>), VerdictError> {
        let Some((prefix, stay)) = KEPT.get(self.place).copied() else {
            self.place = 0;
            return Ok(Default::default());
        };
        let page = store.page(prefix, self.after.as_deref()).await?;
        self.after = page.last().map(|it| it.key.clone());
        if self.after.is_none() {
            self.place = (self.place + 1) % KEPT.len();
        }
        let (mut writes, mut tests) = (Vec::new(), Vec::new());
        for record in page {
            let Ok(dated) = keys::decode::<Dated>(&record.value) else { continue };
            if now.since(dated.last) > stay {
                writes.push(delete(record.key));
                tests.extend(dated.test.filter(|_| prefix == keys::TESTS).map(|it| it.instance));
            }
        }
        Ok((writes, tests))
    }
}
