//! What goes wrong with environments, for those who asked.

use http::StatusCode;
use kiln_ci::ephemeral::PreviewError;
use kiln_net::causes::chain;

use crate::error::WebError;

impl From<PreviewError> for WebError {
    fn from(error: PreviewError) -> Self {
        let (status, hint) = match &error {
            PreviewError::Storage(_) => (StatusCode::SERVICE_UNAVAILABLE, "Try again."),
            PreviewError::NoKind(_) => (
                StatusCode::NOT_FOUND,
                "The server's operator lists kinds of environments in the file of stages.parts.",
            ),
            PreviewError::Refused(_) | PreviewError::Elsewhere(_) => {
                (StatusCode::CONFLICT, "Nothing was changed.")
            }
            PreviewError::Secret(_)
            | PreviewError::NotUp { .. }
            | PreviewError::Check { .. }
            | PreviewError::Describe { .. }
            | PreviewError::Description { .. } => (
                StatusCode::BAD_GATEWAY,
                "It is a program of the server's operator that failed: docs/stages.md says what it is to do.",
            ),
        };
        Self { status, message: chain(&error), hint: hint.to_owned() }
    }
}
