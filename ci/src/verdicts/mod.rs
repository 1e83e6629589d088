//! Verdicts of a running server: which failures are flaky, which are broken, and what that means for a change.
//!
//! Attempts that are committed to the history lie in an [`inbox`] until one server, the leader, has looked at
//! them. It has failures run again in the shadow, lets what ended within a window become evidence, and changes
//! the quarantine. All that it decides is in records, from which every server [`answers`].
//!
//! | module | what it does |
//! | --- | --- |
//! | `heard`, `inbox` | what counts of an attempt, and how it comes here |
//! | `evidence`, `builds`, `census` | what is known of a test, of an invocation, and of all tests of an instance |
//! | `store`, `service` | who decides, and that nobody else writes meanwhile |
//! | `mind` | what the leader has in mind, without I/O |
//! | `leading`, `extent`, `shadow`, `sweep` | what the leader does |
//! | `book`, `ledger`, `telling` | the quarantine, its audit and its notices |
//! | `account`, `answers` | gates |
//! | `survey`, `masked` | what people are shown of all that |
//! | `reruns`, `parts` | what a server brings |

mod account;
mod answers;
mod book;
mod builds;
mod census;
mod error;
mod evidence;
mod extent;
mod heard;
mod inbox;
mod keys;
mod leading;
mod ledger;
mod masked;
mod mind;
mod parts;
mod reruns;
#[cfg(test)]
mod samples;
mod service;
mod shadow;
mod store;
mod survey;
mod sweep;
mod telling;

pub use account::{Account, FailedRun};
pub use answers::{Answered, Answers, Question, Told};
pub use book::{Book, Page};
pub use builds::{BuildRecord, Failed};
pub use census::Census;
pub use error::VerdictError;
pub use evidence::{Observed, Repeatable, TestEvidence};
pub use heard::Heard;
pub use inbox::Inbox;
pub use ledger::{Ledger, Note, Owners, Teller};
pub use masked::Masked;
pub use mind::CaseRecord;
pub use parts::{VerdictOptions, VerdictParts};
pub use reruns::{RerunError, Reruns, Room, Wanted};
pub use service::{Judging, Verdicts};
pub use survey::{MUCH, Survey, Surveyed, Suspect};
