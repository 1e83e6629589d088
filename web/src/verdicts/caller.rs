//! Who asks, and whether they may.

use std::convert::Infallible;

use axum::extract::FromRequestParts;
use axum::extract::rejection::JsonRejection;
use axum::{Json, extract};
use http::request::Parts;
use http::{Extensions, StatusCode};
use kiln_cas::access::{Authorizer, Refused, Right};
use kiln_ci::verdicts::VerdictError;

use crate::error::WebError;

/// The extensions of a request, into which whoever took it in has put who sent it.
pub struct Caller(pub Extensions);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.clone()))
    }
}

impl Caller {
    pub fn may_read(&self, access: &dyn Authorizer, instance: &str) -> Result<(), WebError> {
        access.check(&self.0, Right::Read, instance).map_err(|it| refused(it, READS))
    }

    /// Errors: the caller may not have tests run in the instance, and so not hand them out.
    pub fn may_run(&self, access: &dyn Authorizer, instance: &str) -> Result<(), WebError> {
        access.check(&self.0, Right::WriteBlobs, instance).map_err(|it| refused(it, RUNS))
    }

    /// Whoever may say what actions result in may say which tests nobody has to wait for. Where nobody is asked
    /// who calls, that is whoever may act on what belongs to others.
    pub fn may_change(&self, access: &dyn Authorizer, instance: &str) -> Result<(), WebError> {
        let writes = access.check(&self.0, Right::WriteResults, instance);
        let administers = || access.check_everywhere(&self.0, Right::Administer);
        writes.or_else(|_| administers()).map_err(|it| refused(it, CHANGES))
    }
}

impl Caller {
    /// Errors: the caller may not have commands run in the instance.
    pub fn may_execute(&self, access: &dyn Authorizer, instance: &str) -> Result<(), WebError> {
        access.check(&self.0, Right::Execute, instance).map_err(|it| refused(it, EXECUTES))
    }

    pub fn may_release(&self, access: &dyn Authorizer, instance: &str) -> Result<(), WebError> {
        access.check(&self.0, Right::Release, instance).map_err(|it| refused(it, RELEASES))
    }

    /// Errors: the caller may not act on what belongs to others, or to nobody who is known.
    pub fn may_administer(&self, access: &dyn Authorizer) -> Result<(), WebError> {
        access.check_everywhere(&self.0, Right::Administer).map_err(|it| refused(it, ADMINISTERS))
    }
}

impl Caller {
    /// Whether they may change a merge queue, or run it.
    pub fn may_queue(
        &self,
        access: &dyn Authorizer,
        right: Right,
        queue: &str,
    ) -> Result<(), WebError> {
        access.check_queue(&self.0, right, queue).map_err(|it| refused(it, QUEUES))
    }
}

const EXECUTES: &str =
    "Pipelines take the role execute in the instance; docs/security.md has more.";
const QUEUES: &str = "Merge queues take the role queue, their runners the role queue-runner, for the queue; \
                      docs/security.md has more.";
const RELEASES: &str =
    "Releases take the role release-manager or admin; docs/security.md has more.";
const ADMINISTERS: &str = "That takes the role admin; docs/security.md has more.";
const READS: &str = "Gates, exports and releases take a role that reads in the instance; docs/security.md has more.";
const RUNS: &str =
    "Plans take the role execute or write-cache in the instance; docs/security.md has more.";
const CHANGES: &str =
    "Changes of the quarantine take the role write-cache or admin; docs/security.md has more.";

fn refused(refused: Refused, hint: &str) -> WebError {
    let status = match refused {
        Refused::Unauthenticated(_) => StatusCode::UNAUTHORIZED,
        Refused::Denied(_) => StatusCode::FORBIDDEN,
    };
    WebError { status, message: refused.to_string(), hint: hint.to_owned() }
}

/// The body of a request, or what is wrong with it.
pub fn body<T>(body: Result<extract::Json<T>, JsonRejection>) -> Result<T, WebError> {
    match body {
        Ok(Json(body)) => Ok(body),
        Err(rejection) => {
            let hint = "Send a JSON object with Content-Type: application/json.";
            Err(WebError::invalid(rejection.body_text(), hint))
        }
    }
}

impl From<VerdictError> for WebError {
    fn from(error: VerdictError) -> Self {
        let message = kiln_net::causes::chain(&error).to_string();
        match error {
            VerdictError::Refused(kiln_ci::quarantine::Error::NotThere(_)) => {
                Self::not_found(message, "`kiln tests quarantine list` says which tests are.")
            }
            VerdictError::Refused(_) | VerdictError::Invalid(_) => {
                Self::invalid(message, "Correct the request.")
            }
            VerdictError::Storage(_)
            | VerdictError::History(_)
            | VerdictError::Streams(_)
            | VerdictError::Restless => Self {
                status: StatusCode::SERVICE_UNAVAILABLE,
                message,
                hint: "Nothing was changed; try again.".to_owned(),
            },
            VerdictError::Damaged { .. } | VerdictError::Unwritable(_) => Self {
                status: StatusCode::INTERNAL_SERVER_ERROR,
                message,
                hint: "The server's log has more.".to_owned(),
            },
        }
    }
}
