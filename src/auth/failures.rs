//! Failed authentications: counted by reason, logged at a bounded rate.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use kiln_cas::access::Refused;

/// Lines in the log in one [`WINDOW`].
const LINES: u32 = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// Why somebody was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// The request has no credentials, and needs some.
    NoCredentials,
    /// The caller is known and lacks the role.
    Denied,
    /// The header is none of the known forms.
    Malformed,
    UnknownToken,
    /// A token or a client certificate whose time is over.
    Expired,
    /// The token is not valid yet.
    NotYetValid,
    Signature,
    /// A token signed by a key that is not known.
    UnknownKey,
    Issuer,
    Audience,
    /// The keys that verify tokens cannot be fetched for now.
    KeysUnavailable,
    /// A browser sends the request for a page of another site, or writes.
    OtherSite,
    /// The request is for a server of another name.
    OtherName,
}

pub const REASONS: [(Reason, &str); 13] = [
    (Reason::NoCredentials, "no_credentials"),
    (Reason::Denied, "denied"),
    (Reason::Malformed, "malformed"),
    (Reason::UnknownToken, "unknown_token"),
    (Reason::Expired, "expired"),
    (Reason::NotYetValid, "not_yet_valid"),
    (Reason::Signature, "signature"),
    (Reason::UnknownKey, "unknown_key"),
    (Reason::Issuer, "issuer"),
    (Reason::Audience, "audience"),
    (Reason::KeysUnavailable, "keys_unavailable"),
    (Reason::OtherSite, "other_site"),
    (Reason::OtherName, "other_name"),
];

impl Reason {
    pub fn of(refused: &Refused) -> Self {
        match refused {
            Refused::Unauthenticated(_) => Self::NoCredentials,
            Refused::Denied(_) => Self::Denied,
        }
    }

    pub fn name(self) -> &'static str {
        REASONS[self as usize].1
    }
}

#[derive(Debug)]
pub struct Failures {
    counts: [AtomicU64; REASONS.len()],
    handshakes: AtomicU64,
    limiter: Mutex<Limiter>,
}

impl Default for Failures {
    fn default() -> Self {
        let limiter = Mutex::new(Limiter::new(LINES, WINDOW));
        Self { counts: Default::default(), handshakes: AtomicU64::default(), limiter }
    }
}

impl Failures {
    pub fn count(&self, reason: Reason) {
        self.counts[reason as usize].fetch_add(1, Ordering::Relaxed);
    }

    pub fn counted(&self, reason: Reason) -> u64 {
        self.counts[reason as usize].load(Ordering::Relaxed)
    }

    /// Counts a TLS handshake that failed.
    pub fn count_handshake(&self) {
        self.handshakes.fetch_add(1, Ordering::Relaxed);
    }

    pub fn handshakes(&self) -> u64 {
        self.handshakes.load(Ordering::Relaxed)
    }

    /// Whether a line may be logged now, and if so, how many were left out before it.
    pub fn may_log(&self, now: Instant) -> Option<u64> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner).admit(now)
    }
}

/// At most so many lines in the log in each window of time.
#[derive(Debug)]
pub struct Limiter {
    most: u32,
    within: Duration,
    window: Option<Instant>,
    lines: u32,
    left_out: u64,
}

impl Limiter {
    pub fn new(most: u32, within: Duration) -> Self {
        Self { most, within, window: None, lines: 0, left_out: 0 }
    }

    /// Whether a line may be logged now, and if so, how many were left out before it.
    pub fn admit(&mut self, now: Instant) -> Option<u64> {
        let is_over = |start: Instant| now.saturating_duration_since(start) >= self.within;
        if self.window.is_none_or(is_over) {
            self.window = Some(now);
            self.lines = 0;
        }
        if self.lines == self.most {
            self.left_out += 1;
            return None;
        }
        self.lines += 1;
        Some(std::mem::take(&mut self.left_out))
    }
}

/// Credentials came, and cannot be accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub reason: Reason,
    /// What is wrong and what to do, for whoever sent the credentials.
    pub message: String,
}

impl Failure {
    pub fn new(reason: Reason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_stand_at_their_places() {
        for (index, (reason, _)) in REASONS.iter().enumerate() {
            assert_eq!(*reason as usize, index);
        }
    }

    #[test]
    fn a_flood_is_logged_in_few_lines_that_say_how_much_is_left_out() {
        let start = Instant::now();
        let mut limiter = Limiter::new(LINES, WINDOW);
        let logged = (0..1000).filter(|_| limiter.admit(start) == Some(0)).count();
        assert_eq!(logged, LINES as usize);
        assert_eq!(limiter.admit(start + WINDOW), Some(1000 - u64::from(LINES)));
        assert_eq!(limiter.admit(start + WINDOW), Some(0));
    }
}
