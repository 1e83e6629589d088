//! What is said where nothing is known of a build.

use crate::error::WebError;
use crate::format::short;

pub fn no_build(invocation: &str) -> WebError {
    WebError::not_found(
        format!("no build with invocation id {:?}", short(invocation, 100)),
        "It appears with its first request; the oldest builds are removed. \
         Bazel prints the id at the start, and --invocation_id sets it.",
    )
}
