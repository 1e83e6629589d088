//! What changes where releases stand and what is said of them: pure steps from one world to the next.

mod people;
mod place;

use super::change::{Change, ChangeKind};
use super::world::{Actor, World};
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

pub use self::people::{approve, ask_override, confirm_override, hold, lift, withdraw};
pub use self::place::{Return, give_up, place, roll_back, target, wait};

/// Characters of a reason.
pub const MAX_REASON: usize = 2_000;

/// Why nothing was changed. Nobody has to wait for it to become possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is no environment {0:?}")]
    NoEnvironment(String),
    #[error("nothing stands in {0}")]
    Empty(String),
    #[error(
        "nothing that stood in {0} before can be returned to: all of it is bad, or it was the first"
    )]
    NoPredecessor(String),
    #[error("{release} never stood in {environment}, as far as is remembered: promote it")]
    NeverHere { release: ReleaseName, environment: String },
    #[error("{0} is rejected: nothing brings it back")]
    Rejected(ReleaseName),
    #[error("{0} stands there already")]
    Current(ReleaseName),
    #[error("{0} was rolled back to: only a person returns further")]
    Twice(String),
    #[error("a reason is needed, of {MAX_REASON} characters at most")]
    Reason,
    #[error("{0} has approved it already")]
    Approved(String),
    #[error("{0} has not approved it")]
    NotApproved(String),
    #[error("only a person approves, holds or overrides")]
    Automation,
    #[error("there is no hold on {0}")]
    NotHeld(String),
    #[error("{environment} takes no overrides: its policy names no group for break_glass")]
    NoBreakGlass { environment: String },
    #[error("{who} is not in the group {group}")]
    NotInGroup { who: String, group: String },
    #[error("nobody has asked for an override of this release in {0}, or its time is up")]
    NoOverride(String),
    #[error("{0} has asked for it: a second person has to confirm it")]
    SamePerson(String),
    #[error("it has to end within {0} s")]
    TooLong(i64),
    #[error("{0} are kept already, which is as many as can be")]
    Full(&'static str),
}

pub fn person(by: &Actor) -> Result<(), Refusal> {
    if by.automation { Err(Refusal::Automation) } else { Ok(()) }
}

/// A reason that says something.
pub fn check_reason(reason: &str) -> Result<(), Refusal> {
    let says = !reason.trim().is_empty() && reason.chars().count() <= MAX_REASON;
    says.then_some(()).ok_or(Refusal::Reason)
}

/// What a change is about.
struct About<'a> {
    environment: &'a str,
    subject: String,
    digest: Option<String>,
    before: Option<String>,
    after: Option<String>,
}

/// Counts a change, and lets the world's clock go on.
fn changed(
    world: &mut World,
    kind: ChangeKind,
    by: &Actor,
    (reason, now): (&str, Timestamp),
    about: About<'_>,
) -> Change {
    world.changes += 1;
    world.clock.0 = world.clock.0.max(now);
    Change {
        number: world.changes,
        at: now,
        kind,
        by: by.clone(),
        environment: about.environment.to_owned(),
        subject: about.subject,
        digest: about.digest,
        reason: reason.to_owned(),
        before: about.before,
        after: about.after,
    }
}

/// A rejection changes no place; it is counted all the same.
pub fn rejected(
    world: &mut World,
    subject: String,
    digest: String,
    by: &Actor,
    (reason, now): (&str, Timestamp),
) -> Change {
    let about = About { environment: "", subject, digest: Some(digest), before: None, after: None };
    changed(world, ChangeKind::Rejected, by, (reason, now), about)
}
