//! Requests to S3 by what became of them.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

/// What became of an attempt of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum S3Outcome {
    Ok,
    /// 4xx: absent, forbidden, wrong.
    Refused,
    /// 429 and 503: fewer requests are asked for.
    SlowDown,
    /// Any other 5xx.
    Failed,
    /// No answer, or none in time.
    Unanswered,
}

/// With their names.
pub const S3_OUTCOMES: [(S3Outcome, &str); 5] = [
    (S3Outcome::Ok, "ok"),
    (S3Outcome::Refused, "refused"),
    (S3Outcome::SlowDown, "slow_down"),
    (S3Outcome::Failed, "failed"),
    (S3Outcome::Unanswered, "unanswered"),
];

/// Methods that are told apart.
pub const S3_METHODS: [&str; 4] = ["GET", "PUT", "POST", "DELETE"];

/// Attempts of requests: by method, in the order of [`S3_METHODS`], and by what became of them,
/// in the order of [`S3_OUTCOMES`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct S3Stats {
    pub sent: [u64; S3_METHODS.len()],
    pub ended: [u64; S3_OUTCOMES.len()],
}

/// Counts every attempt, repetitions included.
#[derive(Debug, Default)]
pub struct Counts {
    sent: [AtomicU64; S3_METHODS.len()],
    ended: [AtomicU64; S3_OUTCOMES.len()],
}

impl Counts {
    pub fn snapshot(&self) -> S3Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        S3Stats { sent: self.sent.each_ref().map(load), ended: self.ended.each_ref().map(load) }
    }

    fn sent(&self, method: &str) {
        if let Some(method) = S3_METHODS.iter().position(|name| *name == method) {
            self.sent[method].fetch_add(1, Ordering::Relaxed);
        }
    }

    fn ended(&self, status: Option<u16>) {
        self.ended[outcome(status) as usize].fetch_add(1, Ordering::Relaxed);
    }
}

/// `None`: there was no answer.
fn outcome(status: Option<u16>) -> S3Outcome {
    match status {
        None => S3Outcome::Unanswered,
        Some(429 | 503) => S3Outcome::SlowDown,
        Some(500..) => S3Outcome::Failed,
        Some(400..) => S3Outcome::Refused,
        Some(_) => S3Outcome::Ok,
    }
}

/// Tells the counts of each attempt.
#[derive(Debug)]
pub struct Counting(pub std::sync::Arc<Counts>);

impl Intercept for Counting {
    fn name(&self) -> &'static str {
        "counting"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.sent(context.request().method());
        Ok(())
    }

    /// The request is no longer at hand.
    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        self.0.ended(context.response().map(|response| response.status().as_u16()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_method_and_outcome() {
        let counts = Counts::default();
        for status in [Some(200), Some(206), Some(404), Some(503), Some(429), Some(500), None] {
            counts.sent("GET");
            counts.ended(status);
        }
        counts.sent("DELETE");
        counts.sent("TRACE");
        let stats = counts.snapshot();
        assert_eq!((stats.sent, stats.ended), ([7, 0, 0, 1], [2, 1, 2, 1, 1]));
    }

    #[test]
    fn names_stand_in_the_order_of_the_outcomes() {
        assert!(S3_OUTCOMES.iter().enumerate().all(|(at, (outcome, _))| *outcome as usize == at));
    }
}
