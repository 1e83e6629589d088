//! Runs of pipelines as they go: their histories in records, what people say of them, and the one frontend that carries out what
//! follows. Any frontend takes in what people and schedules say; one at a time drives, by a lease, and another takes over within
//! seconds. What is written is safe without the lease: a history grows by compare-and-swap, and a runner that is given a task twice does it once.
//!
//! | module | what it does |
//! | --- | --- |
//! | `leading`, `driver` | who drives, and one run that is driven, in rounds |
//! | `faults` | a run whose driver panics |
//! | `start` | a run begins |
//! | `schedules`, `releases`, `happenings`, `pushes` | what begins runs by itself |
//! | `commands` | what people say of runs, and are shown |
//! | `abandon` | a run whose records cannot be read is given up |
//! | `append`, `open` | what follows is written; histories that were read |
//! | `store`, `kept`, `keys`, `retention` | records, and how long they stay |
//! | `task`, `attempt`, `log` | an attempt at a stage, and what it prints |
//! | `notes` | what the audit log says |

mod abandon;
mod append;
mod attempt;
mod commands;
mod driver;
mod error;
mod faults;
mod happenings;
mod kept;
mod keys;
mod leading;
mod log;
mod notes;
mod open;
mod pushes;
mod releases;
mod retention;
mod schedules;
mod start;
mod store;
mod task;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kiln_net::{Troubles, Unread};
use tokio::sync::Notify;

pub use self::commands::{Listed, LogPart, Said, Shown};
pub use self::error::ControlError;
pub use self::happenings::{Happenings, Released};
pub use self::kept::{Head, Run, Stands};
use self::open::Opened;
pub use self::pushes::{Pushed, is_awaited, leave_push};
pub use self::start::Start;
use self::store::Store;
use super::file::{Declared, Trigger, fits};
use super::runner::StageRunner;
use crate::model::Time;
use crate::services::Clock;
use crate::storage::{LeaseRecord, RecordTurn, Records};
use crate::verdicts::Ledger;

/// A pipeline that the server's operator declares: its triggers begin runs.
#[derive(Debug, Clone)]
pub struct Registered {
    pub declared: Arc<Declared>,
    /// The instance of the runs that its triggers begin.
    pub instance: String,
}

impl Registered {
    /// Whether a call may begin a run as this trigger does: `push` to a branch, or `webhook`.
    pub fn is_triggered(&self, trigger: &str, branch: &str) -> bool {
        self.declared.triggers.iter().any(|it| match it {
            Trigger::Push { branches, .. } => trigger == "push" && fits(branches, branch),
            Trigger::Webhook => trigger == "webhook",
            Trigger::Schedule(_) | Trigger::Release { .. } => false,
        })
    }
}

/// What the operator declares, as it is now.
pub trait Registry: Send + Sync + 'static {
    /// Pipelines that the operator declares, by their names.
    fn pipelines(&self) -> Arc<BTreeMap<String, Registered>>;
}

#[derive(Debug, Clone)]
pub struct ControlOptions {
    /// How long runs stay after their end.
    pub keep: Duration,
    /// Stages of one run that run at the same time.
    pub most: usize,
}

/// What runs stand on.
pub struct ControlParts {
    pub records: Arc<dyn Records>,
    pub ledger: Arc<dyn Ledger>,
    pub runner: Arc<dyn StageRunner>,
    pub registry: Arc<dyn Registry>,
    pub happenings: Arc<dyn Happenings>,
    pub clock: Arc<dyn Clock>,
    /// What this process is called, for people who look at the lease.
    pub name: String,
}

pub struct Control {
    store: Store,
    runner: Arc<dyn StageRunner>,
    registry: Arc<dyn Registry>,
    happenings: Arc<dyn Happenings>,
    clock: Arc<dyn Clock>,
    options: ControlOptions,
    /// Wakes what drives runs: there may be something to do.
    wake: Notify,
    /// The lease that says which of all processes drives.
    turn: RecordTurn,
    /// What the stages of runs that are driven here do now, in words.
    lines: Mutex<Lines>,
    /// Up to when schedules were looked at, by the keys of their records: as far as this process has read or written that.
    looked: Mutex<HashMap<String, Time>>,
    opened: Opened,
    /// What keeps runs and triggers from going on, as it was said last, by the ids and the keys of these.
    troubles: Troubles,
}

/// The time without a word of whoever drives after which another one does.
const LEASE: Duration = Duration::from_secs(8);

/// What stages do now, in words, by run and by the index of the stage.
type Lines = HashMap<String, BTreeMap<u32, String>>;

impl Control {
    pub fn new(parts: ControlParts, options: ControlOptions) -> Arc<Self> {
        let ControlParts { records, ledger, runner, registry, happenings, clock, name } = parts;
        // Several processes may be called the same.
        let who = format!("{name}-{:016x}", fastrand::u64(..));
        let turn = LeaseRecord::new(records.clone(), keys::LEASE).turn(who, LEASE);
        let store = Store { records, ledger, unread: Unread::default() };
        let (wake, lines, opened) = (Notify::new(), Mutex::default(), Opened::default());
        let (looked, troubles) = (Mutex::default(), Troubles::default());
        Arc::new(Self {
            store,
            runner,
            registry,
            happenings,
            clock,
            options,
            wake,
            turn,
            lines,
            looked,
            opened,
            troubles,
        })
    }

    pub fn now(&self) -> Time {
        self.clock.now()
    }

    /// What the operator declares.
    pub fn registered(&self) -> Arc<BTreeMap<String, Registered>> {
        self.registry.pipelines()
    }

    /// A pipeline that the operator declares.
    pub fn declared(&self, name: &str) -> Result<Registered, ControlError> {
        let none = || ControlError::NoPipeline(name.chars().take(100).collect());
        self.registered().get(name).cloned().ok_or_else(none)
    }

    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
