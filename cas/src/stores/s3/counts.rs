//! Requests to S3 by what became of them.

use std::sync::atomic::{AtomicU64, Ordering};

use aws_sdk_s3::config::interceptors::FinalizerInterceptorContextRef;
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

/// Attempts by method and outcome, in the order of [`S3_METHODS`] and [`S3_OUTCOMES`].
pub type S3Stats = [[u64; S3_OUTCOMES.len()]; S3_METHODS.len()];

/// Counts every attempt, repetitions included.
#[derive(Debug, Default)]
pub struct Counts([[AtomicU64; S3_OUTCOMES.len()]; S3_METHODS.len()]);

impl Counts {
    pub fn snapshot(&self) -> S3Stats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        std::array::from_fn(|method| std::array::from_fn(|outcome| load(&self.0[method][outcome])))
    }

    fn count(&self, method: &str, status: Option<u16>) {
        let Some(method) = S3_METHODS.iter().position(|name| *name == method) else { return };
        self.0[method][outcome(status) as usize].fetch_add(1, Ordering::Relaxed);
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

    fn read_after_attempt(
        &self,
        context: &FinalizerInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        if let Some(request) = context.request() {
            let status = context.response().map(|response| response.status().as_u16());
            self.0.count(request.method(), status);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_are_counted_by_method_and_outcome() {
        let counts = Counts::default();
        for status in [Some(200), Some(206), Some(404), Some(503), Some(500), None] {
            counts.count("GET", status);
        }
        counts.count("PUT", Some(429));
        counts.count("TRACE", Some(200));
        assert_eq!(counts.snapshot(), [[2, 1, 1, 1, 1], [0, 0, 1, 0, 0], [0; 5], [0; 5]]);
    }

    #[test]
    fn names_stand_in_the_order_of_the_outcomes() {
        assert!(S3_OUTCOMES.iter().enumerate().all(|(at, (outcome, _))| *outcome as usize == at));
    }
}
