//! How much is said in the log within a minute.

use std::time::Duration;

use tokio::time::Instant;

/// What is said within one [`SPAN`] at most, since the log would be full of it.
pub const MAX_SAID: usize = 100;
pub const SPAN: Duration = Duration::from_secs(60);

/// When the newest span began, and how much was said in it.
#[derive(Debug, Default)]
pub struct LogLimit(Option<(Instant, usize)>);

impl LogLimit {
    /// Counts one that is said, where one more may be.
    pub fn may_say(&mut self, now: Instant) -> bool {
        let (began, said) = match self.0 {
            Some((began, said)) if now.duration_since(began) < SPAN => (began, said),
            _ => (now, 0),
        };
        let may = said < MAX_SAID;
        self.0 = Some((began, said + usize::from(may)));
        may
    }
}
