//! Results of leases that the scheduler may not have heard of yet.

use std::collections::VecDeque;
use std::time::Duration;

use kiln_protos::worker::WorkerMessage;
use prost::Message;
use tokio::time::Instant;

/// A connection that has died is noticed sooner than this: what was said before has arrived.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Most results that are kept, and most bytes of them; the oldest go first.
const MAX_RESULTS: usize = 1_024;
const MAX_BYTES: usize = 32 << 20;

/// The results of leases that were not sent, or were sent so lately that their connection may have broken
/// before they arrived: no message acknowledges a result. Each new session sends all of them again, and the
/// scheduler ignores those that it has heard before.
#[derive(Default)]
pub struct Unacknowledged {
    kept: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    lease_id: String,
    message: WorkerMessage,
    /// When the open session sent the message; `None`: it has not.
    said: Option<Instant>,
    bytes: usize,
}

impl Unacknowledged {
    /// Keeps the message with a lease's result. `said`: when it is sent; `None`: no session is open.
    pub fn keep(
        &mut self,
        lease_id: String,
        message: WorkerMessage,
        said: Option<Instant>,
        now: Instant,
    ) {
        self.forget_old(now);
        let bytes = message.encoded_len();
        self.bytes += bytes;
        self.kept.push_back(Kept { lease_id, message, said, bytes });
        while self.kept.len() > MAX_RESULTS || (self.bytes > MAX_BYTES && self.kept.len() > 1) {
            self.forget_first();
        }
    }

    fn forget_old(&mut self, now: Instant) {
        let old = |kept: &Kept| kept.said.is_some_and(|said| now >= said + KEPT_FOR);
        while self.kept.front().is_some_and(old) {
            self.forget_first();
        }
    }

    fn forget_first(&mut self) {
        if let Some(kept) = self.kept.pop_front() {
            self.bytes -= kept.bytes;
        }
    }

    /// Forgets the result of a lease that the scheduler has cancelled.
    pub fn forget(&mut self, lease_id: &str) {
        self.kept.retain(|kept| kept.lease_id != lease_id);
        self.bytes = self.kept.iter().map(|kept| kept.bytes).sum();
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes note that the session is over: since nobody knows which of its messages have arrived,
    /// all results that are kept count as not sent.
    pub fn session_lost(&mut self, now: Instant) {
        self.forget_old(now);
        self.kept.iter_mut().for_each(|kept| kept.said = None);
    }

    /// The messages with all results that are kept; they count as sent at `now`.
    pub fn say_again(&mut self, now: Instant) -> Vec<WorkerMessage> {
        self.kept.iter_mut().for_each(|kept| kept.said = Some(now));
        self.kept.iter().map(|kept| kept.message.clone()).collect()
    }

    pub fn is_unsaid(&self) -> bool {
        self.kept.iter().any(|kept| kept.said.is_none())
    }

    pub fn contains(&self, lease_id: &str) -> bool {
        self.kept.iter().any(|kept| kept.lease_id == lease_id)
    }

    pub fn lease_ids(&self) -> impl Iterator<Item = &str> {
        self.kept.iter().map(|kept| kept.lease_id.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use crate::report::completed;

    fn message(text: &str) -> WorkerMessage {
        completed(text.to_owned(), Err(Failure::Infrastructure(text.into())))
    }

    fn ids(unacknowledged: &Unacknowledged) -> Vec<&str> {
        unacknowledged.lease_ids().collect()
    }

    #[test]
    fn what_was_said_long_ago_is_forgotten_and_the_rest_is_said_again() {
        let now = Instant::now();
        let mut unacknowledged = Unacknowledged::default();
        unacknowledged.keep("old".into(), message("old"), Some(now), now);
        let later = now + KEPT_FOR;
        unacknowledged.keep("new".into(), message("new"), Some(later), later);
        assert_eq!(ids(&unacknowledged), ["new"]);
        assert!(!unacknowledged.is_unsaid());
        unacknowledged.session_lost(later);
        assert!(unacknowledged.is_unsaid());
        unacknowledged.keep("away".into(), message("away"), None, later + 9 * KEPT_FOR);
        assert_eq!(unacknowledged.say_again(later), [message("new"), message("away")]);
        assert!(!unacknowledged.is_unsaid());
        unacknowledged.forget("new");
        assert_eq!(ids(&unacknowledged), ["away"]);
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let now = Instant::now();
        let mut unacknowledged = Unacknowledged::default();
        for number in 0..MAX_RESULTS + 7 {
            unacknowledged.keep(number.to_string(), message("x"), None, now);
        }
        assert_eq!(
            (unacknowledged.kept.len(), unacknowledged.kept[0].lease_id.as_str()),
            (MAX_RESULTS, "7")
        );
        let large = message(&"x".repeat(MAX_BYTES / 3));
        for number in 0..5 {
            unacknowledged.keep(number.to_string(), large.clone(), None, now);
        }
        assert!(unacknowledged.bytes <= MAX_BYTES && !unacknowledged.kept.is_empty());
        let sum: usize = unacknowledged.kept.iter().map(|kept| kept.bytes).sum();
        assert_eq!(unacknowledged.bytes, sum);
    }
}
