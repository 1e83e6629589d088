//! How many deliveries of one forge are acted on in a minute, and how often the log says that some were refused.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::model::Time;

/// Deliveries of one forge that are acted on in a minute.
pub const MAX_IN_A_MINUTE: u32 = 600;
const MINUTE: Duration = Duration::from_secs(60);
/// Refused deliveries are logged so often.
const BETWEEN_LINES: Duration = Duration::from_secs(60);

#[derive(Default)]
pub struct Pace(Mutex<Paced>);

/// What was taken in the minute that began last, and of what was refused the log says nothing yet.
#[derive(Default)]
struct Paced {
    minute: Time,
    taken: u32,
    line: Time,
    refused: u64,
}

impl Pace {
    fn paced(&self) -> MutexGuard<'_, Paced> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a delivery. Answers whether it may be acted on.
    pub fn takes(&self, now: Time) -> bool {
        let mut paced = self.paced();
        // A clock that ran backwards begins anew.
        if now < paced.minute || now.since(paced.minute) >= MINUTE {
            (paced.minute, paced.taken) = (now, 0);
        }
        paced.taken = paced.taken.saturating_add(1);
        paced.taken <= MAX_IN_A_MINUTE
    }

    /// Counts a delivery that is refused. Answers how many were since the log said so last, where it is to say so now.
    pub fn refuses(&self, now: Time) -> Option<u64> {
        let mut paced = self.paced();
        paced.refused += 1;
        if paced.line != Time::default() && now.since(paced.line) < BETWEEN_LINES {
            return None;
        }
        paced.line = now;
        Some(std::mem::take(&mut paced.refused))
    }
}
