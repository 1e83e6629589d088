//! What goes wrong with agents, for those who asked.

use http::StatusCode;
use kiln_deploy::fleet::FleetError;
use kiln_net::causes::chain;

use crate::error::WebError;

impl From<FleetError> for WebError {
    fn from(error: FleetError) -> Self {
        let (status, hint) = answer(&error);
        if status.is_server_error() {
            tracing::warn!(error = %chain(&error), "the fleet was asked in vain");
        }
        Self { status, message: chain(&error), hint: hint.to_owned() }
    }
}

fn answer(error: &FleetError) -> (StatusCode, &'static str) {
    match error {
        FleetError::Name(_) => {
            (StatusCode::BAD_REQUEST, "Correct the name; docs/agents.md has more.")
        }
        FleetError::Unknown { .. } => {
            (StatusCode::NOT_FOUND, "`kiln agent list` says which there are.")
        }
        FleetError::Bound { .. } => (
            StatusCode::FORBIDDEN,
            "Use the credentials that registered it, or remove it: `kiln agent remove`.",
        ),
        FleetError::Twice { .. } => (
            StatusCode::CONFLICT,
            "Give each host a name of its own (--name); one that lost its directory waits half a minute.",
        ),
        FleetError::Full => {
            (StatusCode::CONFLICT, "Remove agents that are gone: `kiln agent remove`.")
        }
        FleetError::Ambiguous => (StatusCode::CONFLICT, "Nothing was changed."),
        FleetError::NotTold(_) => (
            StatusCode::FORBIDDEN,
            "Agents get what they were told to run: tell it with a rollout, or `kiln agent tell`.",
        ),
        FleetError::Records(_) | FleetError::Restless => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing was changed; try again.")
        }
        FleetError::Damaged { .. } | FleetError::Unwritable(_) | FleetError::Random => {
            (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more.")
        }
    }
}
