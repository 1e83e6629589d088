//! What became of leases, kept until the scheduler must have heard of it.

use std::collections::VecDeque;
use std::time::Duration;

use kiln_protos::worker::WorkerMessage;
use prost::Message;
use tokio::time::Instant;

/// A connection that has died is noticed sooner than this: what was said before has arrived.
const KEPT_FOR: Duration = Duration::from_secs(30);
/// Outcomes kept at most, and their bytes; the oldest go first.
const MAX_OUTCOMES: usize = 1_024;
const MAX_BYTES: usize = 32 << 20;

/// Nothing acknowledges an outcome: one that went into a connection which then broke may be
/// lost. In the next session all that are kept are said again; what the scheduler has heard
/// before it ignores.
#[derive(Default)]
pub struct Outcomes {
    kept: VecDeque<Kept>,
    bytes: usize,
}

struct Kept {
    lease_id: String,
    message: WorkerMessage,
    /// When, in the session that is open.
    said: Option<Instant>,
    bytes: usize,
}

impl Outcomes {
    /// `said`: when it is being said; `None`: there is nobody to say it to.
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
        while self.kept.len() > MAX_OUTCOMES || (self.bytes > MAX_BYTES && self.kept.len() > 1) {
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

    /// The scheduler does not want to hear of it.
    pub fn forget(&mut self, lease_id: &str) {
        self.kept.retain(|kept| kept.lease_id != lease_id);
        self.bytes = self.kept.iter().map(|kept| kept.bytes).sum();
    }

    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// The session is over: nobody knows what of it has arrived.
    pub fn session_lost(&mut self, now: Instant) {
        self.forget_old(now);
        self.kept.iter_mut().for_each(|kept| kept.said = None);
    }

    /// All of them, to be said now.
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
        completed(text.to_owned(), Err(Failure::Infrastructure(text.to_owned())))
    }

    fn ids(outcomes: &Outcomes) -> Vec<&str> {
        outcomes.lease_ids().collect()
    }

    #[test]
    fn what_was_said_long_ago_is_forgotten_and_the_rest_is_said_again() {
        let now = Instant::now();
        let mut outcomes = Outcomes::default();
        outcomes.keep("old".into(), message("old"), Some(now), now);
        let later = now + KEPT_FOR;
        outcomes.keep("new".into(), message("new"), Some(later), later);
        assert_eq!(ids(&outcomes), ["new"]);
        assert!(!outcomes.is_unsaid());
        outcomes.session_lost(later);
        assert!(outcomes.is_unsaid());
        outcomes.keep("away".into(), message("away"), None, later + 9 * KEPT_FOR);
        assert_eq!(outcomes.say_again(later), [message("new"), message("away")]);
        assert!(!outcomes.is_unsaid());
        outcomes.forget("new");
        assert_eq!(ids(&outcomes), ["away"]);
    }

    #[test]
    fn number_and_bytes_are_bounded() {
        let now = Instant::now();
        let mut outcomes = Outcomes::default();
        for number in 0..MAX_OUTCOMES + 7 {
            outcomes.keep(number.to_string(), message("x"), None, now);
        }
        assert_eq!((outcomes.kept.len(), outcomes.kept[0].lease_id.as_str()), (MAX_OUTCOMES, "7"));
        let large = message(&"x".repeat(MAX_BYTES / 3));
        for number in 0..5 {
            outcomes.keep(number.to_string(), large.clone(), None, now);
        }
        assert!(outcomes.bytes <= MAX_BYTES && !outcomes.kept.is_empty());
        let sum: usize = outcomes.kept.iter().map(|kept| kept.bytes).sum();
        assert_eq!(outcomes.bytes, sum);
    }
}
