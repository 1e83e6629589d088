//! What goes wrong with pipelines, for those who asked.

use http::StatusCode;
use kiln_ci::pipelines::control::ControlError;
use kiln_net::causes::chain;

use crate::error::WebError;

/// What to do about a run whose records cannot be read.
const UNREAD: &str = "Restore the record from a backup. Where there is none, `kiln pipeline abandon` gives the run up where it \
                      stands, so that the next one of its group has its turn.";

impl From<ControlError> for WebError {
    fn from(error: ControlError) -> Self {
        let (status, hint) = answer(&error);
        if status.is_server_error() {
            tracing::warn!(error = %chain(&error), "a pipeline was asked about in vain");
        }
        Self { status, message: chain(&error).to_string(), hint: hint.to_owned() }
    }
}

fn answer(error: &ControlError) -> (StatusCode, &'static str) {
    use ControlError as It;
    match error {
        It::NoRun(_) => (StatusCode::NOT_FOUND, "`kiln pipeline list` says which there are."),
        It::NoStage(_) => (StatusCode::NOT_FOUND, "`kiln pipeline show` says which there are."),
        It::NoPipeline(_) => (
            StatusCode::NOT_FOUND,
            "Its operator declares pipelines in files (pipelines.directory); or send the file.",
        ),
        It::Read(_) | It::Lay(_) => {
            (StatusCode::BAD_REQUEST, "Correct the file; docs/pipelines.md has every key.")
        }
        It::Reason => (StatusCode::BAD_REQUEST, "Say why: --reason."),
        It::NotNow(_) | It::Resumes => {
            (StatusCode::CONFLICT, "Nothing was changed; docs/pipelines.md has more.")
        }
        It::Group(_) | It::Busy(_) => {
            (StatusCode::CONFLICT, "Nothing was begun. Wait for some of them, or cancel them.")
        }
        It::Storage(_) | It::Restless => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed; try again.")
        }
        It::Damaged { .. } | It::Missing { .. } | It::Lacking { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, UNREAD)
        }
        It::Abandoned { .. } => (StatusCode::GONE, "Begin another run: its place is free."),
        It::Unwritable(_) | It::Panicked(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_answered_with_what_to_do() {
        let missing = ControlError::Missing { id: "m1".to_owned(), number: 7 };
        let answered = WebError::from(missing);
        assert_eq!(answered.status, StatusCode::INTERNAL_SERVER_ERROR);
        assert!(answered.hint.contains("kiln pipeline abandon"), "{}", answered.hint);
    }
}
