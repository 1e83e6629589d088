//! Forges (GitHub, GitLab, Gitea and Forgejo) and the merge queue: what their webhooks ask of it, and what they are told
//! of it. Pushes begin pipelines.
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
//! | `pushes` | what a push says, where pipelines wait for pushes |
//! | `command` | what a comment asks for |
//! | `decide` | what follows from an event |
//! | `known` | deliveries that were acted on |
//! | `pace` | how many deliveries are acted on |
//! | `intake` | all of this, one after the other |
//! | `desks` | asks the queues of a server |
//! | `status`, `comment` | what a forge is told of a change |
//! | `calls` | how it is told, as requests |
//! | `client` | sends these, and says what came of it |
//! | `figures` | what is counted |
//! | `heard` | what the way in leaves to those who tell |
//! | `telling` | tells what becomes of changes, in order, until it was heard |

mod calls;
mod client;
mod command;
mod comment;
mod decide;
#[cfg(test)]
mod decide_tests;
mod desks;
mod event;
mod figures;
mod forge;
mod github;
mod gitlab;
mod heard;
mod intake;
#[cfg(test)]
mod intake_tests;
mod known;
mod pace;
mod payload;
mod proof;
mod pushes;
mod secrets;
mod status;
mod telling;
mod when;

pub use calls::CONTEXT;
pub use client::{Api, ApiError, Apis};
pub use command::Command;
pub use decide::{Decision, Ignored, Order, decide, decide_found};
pub use desks::{AskError, Desks};
pub use event::{Change, Event, Happened, Malformed, Person, Said};
pub use figures::{Counts, ForgeFigures};
pub use forge::{Binding, Forge, ForgeError, ForgeName, Kind, MAX_PEOPLE, Repository, Rules};
pub use heard::{Heard, Turned};
pub use intake::{Accepted, Admitted, Intake, IntakeParts, LookUp, MAX_DELIVERY, Rejected};
pub use payload::payload;
pub use proof::{Head, Invalid, Proof, Signed, verify};
pub use pushes::{Push, read_push};
pub use secrets::{Secret, SecretError, Secrets, Token};
pub use telling::Teller;
