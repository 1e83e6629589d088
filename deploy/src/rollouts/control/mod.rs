//! Rollouts as they run: their logs in records, what people say of them, and the one frontend that carries out what
//! follows. Any frontend takes in what people say; one at a time drives, by a lease, and another takes over within
//! seconds. What is written is safe without the lease: a log grows by compare-and-swap on its length, and targets
//! refuse what is older than the token of the deploy lock.
//!
//! | module | what it does |
//! | --- | --- |
//! | `leading`, `driver` | who drives, and one rollout that is driven, in rounds |
//! | `faults` | a rollout whose driver panics |
//! | `asked`, `fit`, `room`, `start`, `preview` | a rollout begins, or it is said what it would do |
//! | `commands` | what people say of it, and are shown |
//! | `abandon` | a rollout whose records cannot be read is given up |
//! | `append`, `fold` | what follows is written, and read again |
//! | `store`, `kept`, `keys` | records |
//! | `act`, `doing`, `hand` | what is done about it, beside the rounds |
//! | `asking`, `observing` | how targets are |
//! | `checking` | whether what was signed about the release still counts |
//! | `look`, `burn`, `judging` | what is measured of both versions, budgets among it, and the verdict |
//! | `sets` | two sets of targets, and which one serves |
//! | `drill`, `scheduled` | drills, and those that begin by themselves |
//! | `locks` | deploy locks, also of people |
//! | `notice`, `words` | what is noted and told, in words |
//! | `needed` | which releases have to stay |
//! | `census`, `figures` | what is counted |

mod abandon;
mod act;
mod append;
mod asked;
mod asking;
mod burn;
mod census;
mod checking;
mod commands;
mod doing;
mod drill;
mod driver;
mod error;
mod faults;
mod figures;
mod fit;
mod fold;
mod hand;
mod judging;
mod kept;
mod keys;
mod leading;
mod locks;
mod look;
mod needed;
mod notice;
mod observing;
mod preview;
mod room;
mod scheduled;
mod sets;
mod start;
mod store;
#[cfg(test)]
mod tests;
pub mod words;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_cas::records::SharedRecords;
use kiln_cas::records::lease::{LeaseRecord, RecordTurn};
use kiln_net::Troubles;
use tokio::sync::{Notify, Semaphore};

pub use self::asked::Start;
pub use self::commands::{By, Command, Listed, MAX_LOOKS, Shown};
pub use self::drill::{Drill, DrillStanding};
pub use self::driver::Driver;
pub use self::error::ControlError;
use self::figures::Counters;
pub use self::figures::{Census, PHASES, RolloutFigures};
use self::fold::{Fold, Kept};
pub use self::kept::{Good, Head, Looked, Rollout, Series, Sets, Standing, phase};
pub use self::locks::LockShown;
pub use self::needed::{Needed, needed};
pub use self::notice::{Notice, in_words};
pub use self::preview::Preview;
pub use self::scheduled::{Missed, Scheduled};
use self::store::Store;
use super::machine::Millis;
use super::parts::{Clock, Releases, Signals, Target, Targets, Traffic};

/// What a rollout stands on, by the names that the operator gave.
pub struct Parts {
    pub targets: BTreeMap<String, Arc<dyn Targets>>,
    pub traffic: BTreeMap<String, Arc<dyn Traffic>>,
    pub signals: BTreeMap<String, Arc<dyn Signals>>,
    pub releases: Arc<dyn Releases>,
    pub clock: Arc<dyn Clock>,
    /// How many targets of each service stay up in an environment, whatever a declaration says.
    pub stay_up: BTreeMap<String, usize>,
    /// Whether somebody is to be told: then each notice is kept until he was.
    pub tells: bool,
}

pub struct Control {
    store: Store,
    parts: Parts,
    /// Wakes what drives rollouts: there may be something to do.
    wake: Notify,
    counters: Counters,
    /// The rollouts that run, as they were counted last.
    census: Mutex<Census>,
    /// What was read of logs and of targets before.
    folds: Kept<Fold>,
    targets: Kept<Vec<Target>>,
    /// What keeps rollouts and drills from going on, as it was said last, by the ids and the keys of these.
    troubles: Troubles,
    /// The lease that says which of all processes drives.
    turn: RecordTurn,
    /// Room for those that look whether releases are still trusted: each reads all that was signed of one.
    checks: Arc<Semaphore>,
}

/// Releases that are verified at once while they are rolled out.
const CHECKS_AT_ONCE: usize = 4;
/// The time without a word of whoever drives after which another one does.
const LEASE: Duration = Duration::from_secs(8);

impl Control {
    /// `who`: what this process is called, for people who look at the lease.
    pub fn new(records: SharedRecords, parts: Parts, who: &str) -> Arc<Self> {
        // Several processes may be called the same.
        let who = format!("{who}-{:016x}", fastrand::u64(..));
        let turn = LeaseRecord::new(records.clone(), keys::LEASE).turn(who, LEASE);
        let (store, wake, counters) = (Store::new(records), Notify::new(), Counters::default());
        let census = Mutex::default();
        let (folds, targets) = (Kept::default(), Kept::default());
        let (troubles, checks) = (Troubles::default(), Arc::new(Semaphore::new(CHECKS_AT_ONCE)));
        Arc::new(Self {
            store,
            parts,
            wake,
            counters,
            census,
            folds,
            targets,
            troubles,
            turn,
            checks,
        })
    }

    /// What became of rollouts since this process began, and those that run.
    pub fn figures(&self) -> RolloutFigures {
        let census = self.census.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.counters.read(census)
    }

    pub fn now(&self) -> Millis {
        self.parts.clock.now()
    }
}
