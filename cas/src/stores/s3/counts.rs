//! Counting requests to S3 while they are made.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::{
    BeforeTransmitInterceptorContextRef, FinalizerInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;

use super::stats::{S3_METHODS, S3_OUTCOMES, S3Outcome, S3Stats};

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
}
