//! What goes wrong with merge queues, for those who asked.

use http::StatusCode;
use kiln_ci::queue::hosted::HostedError;
use kiln_net::causes::chain;

use crate::error::WebError;

impl From<HostedError> for WebError {
    fn from(error: HostedError) -> Self {
        let (status, hint) = answer(&error);
        if status.is_server_error() {
            tracing::warn!(error = %chain(&error), "a merge queue was asked about in vain");
        }
        Self { status, message: chain(&error).to_string(), hint: hint.to_owned() }
    }
}

fn answer(error: &HostedError) -> (StatusCode, &'static str) {
    use HostedError as It;
    match error {
        It::NoQueue(_) => (
            StatusCode::NOT_FOUND,
            "`kiln queue run --server … --queue NAME` begins one; /merge-queues lists those that there are.",
        ),
        It::NoRequest(_) | It::NoRun(_) => {
            (StatusCode::NOT_FOUND, "The newest ones are kept; docs/merge-queue.md has more.")
        }
        It::NoChange(_) => (StatusCode::NOT_FOUND, "`kiln queue list` says which there are."),
        It::Refused(_) => {
            (StatusCode::CONFLICT, "Nothing was changed; docs/merge-queue.md has more.")
        }
        It::OtherTarget { .. } => {
            (StatusCode::BAD_REQUEST, "Name another queue for another branch: --queue.")
        }
        It::Busy { .. } => (StatusCode::CONFLICT, "End that one, or wait until it has ended."),
        It::Lost(_) => (StatusCode::CONFLICT, "This runner has nothing to say any more."),
        It::Invalid(_) => {
            (StatusCode::BAD_REQUEST, "Are the runner and the server of the same version?")
        }
        It::Crowded(_) => (StatusCode::SERVICE_UNAVAILABLE, "Does the runner of the queue run?"),
        It::Full(_) => (StatusCode::SERVICE_UNAVAILABLE, "Use one that is there."),
        It::Storage(_) | It::Restless => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed; try again.")
        }
        It::Damaged { .. } => (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more."),
    }
}
