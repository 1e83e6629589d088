//! Checks the rights of callers, with gRPC statuses as errors.

use http::Extensions;
use tonic::Status;

use super::status::refused_status;
use crate::access::{Right, SharedAuthorizer};

/// An [`Authorizer`](crate::access::Authorizer) that refuses with gRPC statuses. Services ask it as soon as they
/// know the instance.
#[derive(Clone)]
pub struct Guard(pub SharedAuthorizer);

impl Guard {
    /// `caller`: the extensions of the request. Errors: `UNAUTHENTICATED` or `PERMISSION_DENIED`.
    pub fn check(&self, caller: &Extensions, right: Right, instance: &str) -> Result<(), Status> {
        self.0.check(caller, right, instance).map_err(refused_status)
    }

    /// Checks as [`Guard::check`] does, for an instance name as it came.
    pub fn check_bytes(
        &self,
        caller: &Extensions,
        right: Right,
        instance: &[u8],
    ) -> Result<(), Status> {
        let instance = std::str::from_utf8(instance)
            .map_err(|_| Status::invalid_argument("instance_name: it is not UTF-8"))?;
        self.check(caller, right, instance)
    }
}
