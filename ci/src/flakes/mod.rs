//! Finds out which tests are flaky, on evidence: equal inputs and different outcomes.
//!
//! A run has an [`Identity`], its failure a [`Signature`]. What runs of one subject said is its [`History`]:
//! how strong the evidence is, and how often it fails. [`clusters`] finds failures with a common cause, so
//! that these weigh as one. A fresh failure is [`judge`]d by a posterior, and [`Shadows`] runs it again on
//! idle workers until that decides.
//!
//! Nothing here reads a clock, a file or the network.

pub mod clusters;
mod history;
mod identity;
mod rates;
mod shadow;
mod signature;
mod verdict;

pub use history::{Attempt, Flip, History, Piece, Tier};
pub use identity::{Identity, Run, seed};
pub use rates::{Mixture, Part};
pub use shadow::{Case, Fresh, Hold, Limits, Purpose, Rerun, RerunId, Shadows};
pub use signature::Signature;
pub use verdict::{Judgement, Prior, Tries, Verdict, judge};
