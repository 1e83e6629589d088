//! What the body of a delivery says, whoever sends it.

use super::event::{Event, Malformed};
use super::forge::Kind;
use super::{github, gitlab};

/// Reads the body of an event of this name. It must have been proven before.
pub fn payload(kind: Kind, name: &str, body: &[u8]) -> Result<Event, Malformed> {
    match kind {
        Kind::GitHub | Kind::Gitea => github::event(kind, name, body),
        Kind::GitLab => gitlab::event(name, body),
    }
}
