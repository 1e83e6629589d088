//! What goes wrong with promotions, for those who asked.

use http::StatusCode;
use kiln_deploy::promotion::PromotionError;
use kiln_deploy::promotion::acts::Refusal;
use kiln_net::causes::chain;

use crate::error::WebError;

impl From<PromotionError> for WebError {
    fn from(error: PromotionError) -> Self {
        let (status, hint) = answer(&error);
        if status.is_server_error() {
            tracing::warn!(error = %chain(&error), "an environment was asked about in vain");
        }
        Self { status, message: chain(&error), hint: hint.to_owned() }
    }
}

fn answer(error: &PromotionError) -> (StatusCode, &'static str) {
    use PromotionError as It;
    match error {
        It::NoRelease(_) => (StatusCode::NOT_FOUND, "`kiln release list` says which there are."),
        It::Refused(Refusal::NoEnvironment(_)) => {
            (StatusCode::NOT_FOUND, "`kiln env list` says which there are.")
        }
        It::Refused(Refusal::Reason) => (StatusCode::BAD_REQUEST, "Say why: --reason."),
        It::Refused(_) => {
            (StatusCode::CONFLICT, "Nothing was changed; docs/promotion.md has more.")
        }
        It::Records(_) | It::Restless => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed; try again.")
        }
        It::Part { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed; the server's log has more.")
        }
        It::Damaged { .. } | It::Unwritable(_) | It::Summary(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more.")
        }
    }
}

/// The error that there are no environments here.
pub fn none() -> WebError {
    WebError::not_found(
        "this server has no environments",
        "Name a policy in promotion.policy; docs/promotion.md says what is in it.",
    )
}
