//! Which failures are worth another try, and when.

use std::time::Duration;

use kiln_cas::StoreError;
use tokio::time::Instant;
use tonic::{Code, Status};

use super::Server;
use super::complaints::unheard;

/// Tries of one call, the first included: some 6 s in all when a server is away.
pub const TRIES: u32 = 7;
/// How long one unary call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);
const FIRST_DELAY: Duration = Duration::from_millis(50);
const LONGEST_DELAY: Duration = Duration::from_secs(3);

/// Doubles from [`FIRST_DELAY`]; the later half of each delay is random, so that many workers
/// do not come back at the same moment. `failures`: how many there were, at least 1.
pub fn delay(failures: u32) -> Duration {
    let full = FIRST_DELAY.saturating_mul(1 << failures.saturating_sub(1).min(10));
    let full = full.min(LONGEST_DELAY);
    full / 2 + (full / 2).mul_f64(fastrand::f64())
}

/// The server knows who calls, or does not, and says no: a person has to do something.
pub fn is_refusal(status: &Status) -> bool {
    matches!(status.code(), Code::Unauthenticated | Code::PermissionDenied)
}

/// Nothing says that the server is there.
pub fn is_unheard(status: &Status) -> bool {
    matches!(status.code(), Code::Unavailable | Code::DeadlineExceeded)
}

pub fn is_transient(status: &Status) -> bool {
    matches!(
        status.code(),
        Code::Unavailable
            | Code::DeadlineExceeded
            | Code::Aborted
            | Code::Unknown
            | Code::Internal
            | Code::Cancelled
    )
}

/// How often something has failed since it last went well.
pub struct Failures {
    /// How long it is tried again while no server is heard, also beyond [`TRIES`].
    patience: Duration,
    count: u32,
    since: Option<Instant>,
    /// Whose failures, and at which of its addresses.
    server: Option<(Server, usize)>,
}

impl Failures {
    pub fn new(patience: Duration) -> Self {
        Self { patience, count: 0, since: None, server: None }
    }

    /// Turns to the next address of `server` where one is not heard.
    #[must_use]
    pub fn of(self, server: Server) -> Self {
        let place = server.place();
        Self { server: Some((server, place)), ..self }
    }

    /// It went well.
    pub fn reset(&mut self) {
        self.count = 0;
        self.since = None;
    }

    /// How long to wait before the next try; `None`: there is none.
    pub fn next(&mut self, status: &Status) -> Option<Duration> {
        let since = *self.since.get_or_insert_with(Instant::now);
        self.count += 1;
        let unheard = is_unheard(status);
        if let Some((server, place)) = self.server.as_mut().filter(|_| unheard) {
            server.turn_from(*place);
            *place = server.place();
        }
        let patient = unheard && since.elapsed() < self.patience;
        let again = patient || (is_transient(status) && self.count < TRIES);
        again.then(|| delay(self.count))
    }
}

/// What `status` means for whoever used a store. `context`: what was being done.
pub fn store_error(context: &str, status: &Status) -> StoreError {
    let message = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted => {
            StoreError::DiskFull { path: format!("the server's blobs ({message})") }
        }
        Code::InvalidArgument => StoreError::Invalid(format!("{context}: {message}")),
        _ if is_refusal(status) => StoreError::Denied(format!("{context}: {message}")),
        _ if is_transient(status) => {
            StoreError::Unavailable(format!("{context}: {}: {}", status.code(), unheard(status)))
        }
        code => {
            StoreError::Io { context: context.to_owned(), message: format!("{code}: {message}") }
        }
    }
}

/// Calls until it succeeds, fails for good, or has failed for too long.
pub async fn retrying<T, F>(
    context: &str,
    mut failures: Failures,
    mut call: impl FnMut() -> F,
) -> Result<T, StoreError>
where
    F: Future<Output = Result<tonic::Response<T>, Status>>,
{
    loop {
        let result = match tokio::time::timeout(CALL_TIMEOUT, call()).await {
            Ok(result) => result,
            Err(_) => Err(Status::deadline_exceeded("the server did not answer in time")),
        };
        match result {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => match failures.next(&status) {
                Some(wait) => tokio::time::sleep(wait).await,
                None => return Err(store_error(context, &status)),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_grow_to_a_bound_and_never_vanish() {
        for failures in 1..100 {
            let delay = delay(failures);
            assert!(delay >= FIRST_DELAY / 2 && delay <= LONGEST_DELAY, "{failures}: {delay:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn transient_failures_are_tried_again_and_others_are_not() {
        for (code, tries) in [(Code::Unavailable, TRIES), (Code::InvalidArgument, 1)] {
            let mut calls = 0;
            let result: Result<(), _> = retrying("test", Failures::new(Duration::ZERO), || {
                calls += 1;
                std::future::ready(Err(Status::new(code, "no")))
            })
            .await;
            assert!(result.is_err());
            assert_eq!(calls, tries, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_not_heard_is_waited_for() {
        let patience = Duration::from_secs(60);
        for (code, least) in [(Code::Unavailable, patience), (Code::Internal, Duration::ZERO)] {
            let begun = Instant::now();
            let result: Result<(), _> = retrying("test", Failures::new(patience), || {
                std::future::ready(Err(Status::new(code, "no")))
            })
            .await;
            assert!(result.is_err());
            let took = begun.elapsed();
            assert!(took >= least && took < least + 3 * LONGEST_DELAY, "{code}: {took:?}");
        }
        let mut failures = Failures::new(patience);
        let unheard = Status::unavailable("no");
        failures.next(&unheard);
        tokio::time::sleep(2 * patience).await;
        failures.reset();
        assert!((0..TRIES + 1).all(|_| failures.next(&unheard).is_some()), "it counts anew");
    }
}
