//! A lane that runs: its state in records, its effects carried out with git.
//!
//! Each event is written, in one step with whatever asked for it, before anything is done about it. Whoever reads
//! the lane back carries out what is outstanding: git's part is the same however often it is done.
//!
//! | module | what it does |
//! | --- | --- |
//! | `kept` | where lanes, requests and ended changes are kept |
//! | `inbox` | what was asked for and is not taken in yet |
//! | `desk` | what people ask for, and what they are shown |
//! | `ledger` | what a runner writes, here or at a server |
//! | `arrivals`, `away` | branches on their way here, and those that do not come |
//! | `passed` | which commits passed here |
//! | `work`, `tasks` | one check, and one push; each is heard of |
//! | `affecting` | who of a run that failed affects what failed |
//! | `costing` | what the checks of changes that wait are expected to cost |
//! | `polling` | where branches are in the repository |
//! | `proving` | whether what passed on one base counts on another one |
//! | `runner` | events in, writes, effects out |

mod affecting;
mod arrivals;
mod away;
mod costing;
mod desk;
mod error;
mod inbox;
mod kept;
mod ledger;
mod passed;
mod polling;
mod proving;
mod runner;
mod tasks;
mod work;

pub use desk::{Desk, Request, Shown};
pub use error::QueueError;
pub(super) use inbox::requests;
pub use kept::LaneName;
pub(super) use kept::{Kept, decode, encode};
pub use ledger::{Ledger, Local, MAX_TAKEN, Pending, Ran, Reply, RequestId, Step, Tested, Verdict};
pub use runner::{Parts, Runner, Settings};
pub use work::MAX_LOG;
