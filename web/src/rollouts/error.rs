//! What goes wrong with rollouts, for those who asked.

use http::StatusCode;
use kiln_deploy::rollouts::control::ControlError;
use kiln_net::causes::chain;

use crate::error::WebError;

/// What to do about a rollout whose records cannot be read.
const UNREAD: &str = "Restore the record from a backup. Where there is none, `kiln rollout abandon` gives the rollout up \
                      where it stands, so that the next one can begin. A place whose record cannot be read is begun anew \
                      with `kiln rollout start --previous`.";

impl From<ControlError> for WebError {
    fn from(error: ControlError) -> Self {
        let (status, hint) = answer(&error);
        if status.is_server_error() {
            tracing::warn!(error = %chain(&error), "a rollout was asked about in vain");
        }
        Self { status, message: chain(&error).to_string(), hint: hint.to_owned() }
    }
}

fn answer(error: &ControlError) -> (StatusCode, &'static str) {
    use ControlError as It;
    match error {
        It::NoRollout(_) => (StatusCode::NOT_FOUND, "`kiln rollout list` says which there are."),
        It::Declared(_) | It::Unfit(_) => {
            (StatusCode::BAD_REQUEST, "Correct the declaration; docs/rollouts.md has every key.")
        }
        It::NoPart(_) => (
            StatusCode::BAD_REQUEST,
            "Name one that it has, or have its operator declare this one (rollouts.parts).",
        ),
        It::Reason => (StatusCode::BAD_REQUEST, "Say why: --reason."),
        It::LockTime => (StatusCode::BAD_REQUEST, "Say for how long: --for 2h."),
        It::Busy { .. } => {
            (StatusCode::CONFLICT, "Wait for it, abort it, or start with --supersede.")
        }
        It::Frozen(_) => (
            StatusCode::CONFLICT,
            "Wait, or have two people override it: `kiln freeze override`, `kiln freeze confirm`.",
        ),
        It::Locked(_) => (StatusCode::CONFLICT, "Wait, or `kiln rollout unlock` it."),
        It::Refused(_) | It::NotNow(_) => {
            (StatusCode::CONFLICT, "Nothing was changed; docs/rollouts.md has more.")
        }
        It::Records(_) | It::Restless | It::Part { .. } => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed; try again.")
        }
        It::Damaged { .. } | It::Missing { .. } | It::Lacking { .. } => {
            (StatusCode::INTERNAL_SERVER_ERROR, UNREAD)
        }
        It::Abandoned { .. } => (StatusCode::GONE, "Start the next one: the place is free."),
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
        assert!(answered.hint.contains("kiln rollout abandon"), "{}", answered.hint);
    }
}
