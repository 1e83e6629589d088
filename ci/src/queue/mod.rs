//! The merge queue: which changes land on a branch, in which order, and what is tested for that.
//!
//! A [`Lane`] is the queue of one branch of one repository: a state machine without I/O, clock or randomness.
//! Events go in; what is to be done comes out, as the difference between what was outstanding before and after.
//! So whoever reads a lane back after a crash has only to carry out what is outstanding.
//!
//! | module | what it does |
//! | --- | --- |
//! | `names` | commits and branches, checked |
//! | `options` | what an operator chooses |
//! | `change`, `event` | what is queued, what happens to it, and what is to be done |
//! | `rates`, `evidence` | how often changes are bad and checks flaky, and who may be at fault for a failure |
//! | `cut` | how large a batch is, and where one that failed is cut |
//! | `costs` | what costs much more than what waits beside it lets that go first |
//! | `lane` | the state |
//! | `first` | what a run tests first that looks for the culprit of a failure |
//! | `judging` | who is rejected, and when that cannot be said |
//! | `independence` | what passed on a target that has moved since, and counts all the same |
//! | `throughput`, `latency` | what is tested next, by as few runs as can be or as soon as can be |
//! | `runs`, `machine` | what follows from an event |
//! | `git` | what is done about it: clones, merges, checks, pushes |
//! | `serving` | a lane that runs, kept in records |
//! | `hosted` | lanes at a server, whose runners are elsewhere |

mod change;
mod costs;
mod cut;
mod event;
mod evidence;
mod first;
pub mod git;
pub mod hosted;
mod independence;
mod judging;
mod lane;
mod latency;
mod machine;
mod names;
mod options;
mod rates;
mod runs;
pub mod serving;
mod throughput;

pub use change::{COMING, Change, ChangeId, End, Ended, Held, Standing, USUAL_PRIORITY};
pub use costs::MAX_PASSED_OVER;
pub use cut::{batch, first_cut};
pub use event::{Add, Effect, Event, LeftOut, Member, Outcome, Refusal, Refused, RunId};
pub use evidence::Failure;
pub use lane::{Base, Comparison, Group, Lane, Phase, Run};
pub use names::{Branch, Commit, NameError};
pub use options::{Mode, Options};
pub use rates::Rates;
