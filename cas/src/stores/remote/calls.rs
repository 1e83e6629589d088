//! Single calls to a server, repeated while that helps.

use std::time::Duration;

use kiln_net::grpc::{Failures, is_refusal, is_transient, unheard};
use tonic::{Code, Status};

use crate::error::{Reason, StoreError, parse_over_blob_size};

/// How long one unary call may take.
pub const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// What `status` means for whoever used a store. `context`: what was being done.
pub fn store_error(context: &str, status: &Status) -> StoreError {
    let message = status.message().to_owned();
    match status.code() {
        Code::ResourceExhausted => {
            StoreError::DiskFull { path: format!("the server's blobs ({message})") }
        }
        Code::InvalidArgument => match parse_over_blob_size(&message) {
            Some((size, limit)) => StoreError::TooLarge { size, limit },
            None => StoreError::invalid(format!("{context}: {message}")),
        },
        _ if is_refusal(status) => StoreError::denied(format!("{message} ({context})")),
        _ if is_transient(status) => {
            let message = format!("{context}: {}: {}", status.code(), unheard(status));
            StoreError::unavailable(Reason::caused(message, status.clone()))
        }
        code => {
            let reason = Reason::caused(format!("{code}: {message}"), status.clone());
            StoreError::Io { context: context.to_owned(), reason }
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
    use kiln_net::grpc::TRIES;
    use tokio::time::Instant;

    use super::*;

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
            assert!(took >= least && took < least + Duration::from_secs(9), "{code}: {took:?}");
        }
    }
}
