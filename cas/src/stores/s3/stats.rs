//! Requests to S3 by what became of them.

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

/// All outcomes, with the names that metrics have for them.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_the_order_of_the_outcomes() {
        assert!(S3_OUTCOMES.iter().enumerate().all(|(at, (outcome, _))| *outcome as usize == at));
    }
}
