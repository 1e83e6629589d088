//! What a reader gets when there is nothing to show.

use axum::Json;
use axum::response::{Html, IntoResponse, Response};
use http::StatusCode;
use kiln_cas::StoreError;
use kiln_cas::records::RecordsError;
use kiln_ci::events::LogError;
use kiln_ci::history::HistoryError;
use kiln_net::causes::chain;
use kiln_scheduler::api::Unavailable;

use super::design::layout;
use super::json::{ErrorBody, ErrorDetail};

/// What was wrong and what to do about it.
#[derive(Debug)]
pub struct WebError {
    pub status: StatusCode,
    pub message: String,
    pub hint: String,
}

impl WebError {
    pub fn not_found(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: StatusCode::NOT_FOUND, message: message.into(), hint: hint.into() }
    }

    pub fn invalid(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { status: StatusCode::BAD_REQUEST, message: message.into(), hint: hint.into() }
    }

    /// Too much is asked for at once.
    pub fn busy() -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: "too many requests that read much at once".to_owned(),
            hint: "Try again in a moment.".to_owned(),
        }
    }

    /// An error for something that broke in the server itself.
    pub fn failed(message: impl Into<String>) -> Self {
        Self {
            status: StatusCode::INTERNAL_SERVER_ERROR,
            message: message.into(),
            hint: "The server's log has more.".to_owned(),
        }
    }
}

impl From<RecordsError> for WebError {
    fn from(error: RecordsError) -> Self {
        let status = match error {
            RecordsError::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let hint = "The journal could not be read; the server's log has more.".to_owned();
        Self { status, message: chain(&error), hint }
    }
}

impl From<HistoryError> for WebError {
    fn from(error: HistoryError) -> Self {
        let status = match error {
            HistoryError::Storage(_) | HistoryError::Restless => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::warn!(error = %chain(&error), "the history of tests was asked in vain");
        let hint = "The history of tests could not be read; the server's log has more.".to_owned();
        Self { status, message: error.to_string(), hint }
    }
}

impl From<LogError> for WebError {
    fn from(error: LogError) -> Self {
        let status = match error {
            LogError::Storage { .. } => StatusCode::SERVICE_UNAVAILABLE,
            LogError::Damaged { .. } => StatusCode::INTERNAL_SERVER_ERROR,
        };
        tracing::warn!(error = %chain(&error), "build events were asked for in vain");
        let hint =
            "The events of the build could not be read; the server's log has more.".to_owned();
        Self { status, message: "what the build told of itself cannot be read".to_owned(), hint }
    }
}

impl From<Unavailable> for WebError {
    fn from(error: Unavailable) -> Self {
        let hint = "The queue is in Redis, which does not answer; the server's log has more.";
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            message: error.to_string(),
            hint: hint.to_owned(),
        }
    }
}

impl From<StoreError> for WebError {
    fn from(error: StoreError) -> Self {
        let (status, hint) = match &error {
            StoreError::NotFound(_) => (
                StatusCode::NOT_FOUND,
                "It was never uploaded, or removed after its lease ended. Build the target again.",
            ),
            StoreError::OutOfRange { .. } | StoreError::Invalid(_) => {
                (StatusCode::BAD_REQUEST, "Correct the address.")
            }
            StoreError::TooLarge { .. } => {
                (StatusCode::UNPROCESSABLE_ENTITY, "Download it with `kiln cas get` instead.")
            }
            StoreError::Unavailable(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, "Storage does not answer; try again.")
            }
            _ => (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more."),
        };
        Self { status, message: error.to_string(), hint: hint.to_owned() }
    }
}

/// Shows the error as a page.
impl IntoResponse for WebError {
    fn into_response(self) -> Response {
        let page = layout::error(self.status, &self.message, &self.hint);
        (self.status, Html(page.into_string())).into_response()
    }
}

/// An error that is answered as JSON: `{"error": {"message", "hint"}}`.
pub struct ApiError(WebError);

impl<E: Into<WebError>> From<E> for ApiError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let WebError { status, message, hint } = self.0;
        (status, Json(ErrorBody { error: ErrorDetail { message, hint } })).into_response()
    }
}
