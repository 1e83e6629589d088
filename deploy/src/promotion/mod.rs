//! Promotion: which release stands in which environment, and what it takes to get there.
//!
//! A decision ([`decide`]) is a pure function of a policy, of where releases stand and of what is known of one; what
//! follows from it is a pure step ([`acts`]); [`Keeper`] reads and writes. All that one promotion changes is written in
//! one step, together with the audit log.

pub mod acts;
mod change;
mod decision;
mod expression;
mod facts;
mod freeze;
mod keeper;
mod parts;
mod pipeline;
mod summary;
#[cfg(test)]
mod tests;
mod world;

pub use change::{Change, ChangeKind};
pub use decision::{Checked, Decision, Gate, Question, Reason, Record, Standing, decide};
pub use expression::{Expression, ExpressionError, Operand, Operands};
pub use facts::{Claim, Facts, Known, MAX_BUNDLES, Tests, Verdict};
pub use freeze::{Freeze, FreezeError, Lasts, Recurrence, Rule, RuleError, Schedule};
pub use keeper::{Ask, Done, Keeper, MAX_PAGE, Outcome, PromotionError, Say, Seen};
pub use parts::{
    Arrival, Clock, PartError, Parts, Releases, RunCheck, ShowPlaces, SignSummary, TestGate,
};
pub use pipeline::{
    Approvals, Check, Demands, Environment, MAX_PIPELINE_BYTES, Pipeline, PipelineError, TableError,
};
pub use summary::{Summary, VSA_PREDICATE};
pub use world::{Actor, Approval, Hold, How, Override, Past, Place, Placed, Waiting, World};
