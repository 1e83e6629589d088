//! Forges (GitHub, GitLab, Gitea and Forgejo) and the merge queue: what their webhooks ask of it, and what they are told
//! of it.
//!
//! A delivery is proven before anything of it is read, and acted on once. What it means is a pure function of it.
//!
//! | module | what it does |
//! | --- | --- |
//! | `forge` | kinds of forges, names, and which branch of which repository a queue lands on |
//! | `secrets` | secrets and tokens in files |
//! | `proof` | whether a delivery comes from the forge |
//! | `event`, `when` | what a delivery says, in the words of no forge |
//! | `github`, `gitlab` | the payloads |
//! | `command` | what a comment asks for |
//! | `decide` | what follows from an event |

mod command;
mod decide;
#[cfg(test)]
mod decide_tests;
mod event;
mod forge;
mod github;
mod gitlab;
mod proof;
mod secrets;
mod when;

pub use command::Command;
pub use decide::{Decision, Ignored, Order, decide, decide_found};
pub use event::{Change, Event, Happened, Malformed, Said};
pub use forge::{Binding, Forge, ForgeError, ForgeName, Kind, MAX_PEOPLE, Repository, Rules};
pub use proof::{Head, Invalid, Proof, Signed, verify};
pub use secrets::{Secret, SecretError, Secrets, Token};

/// What the body of a delivery says. It must have been proven before.
pub fn event(kind: Kind, name: &str, body: &[u8]) -> Result<Event, Malformed> {
    match kind {
        Kind::GitHub | Kind::Gitea => github::event(kind, name, body),
        Kind::GitLab => gitlab::event(name, body),
    }
}
