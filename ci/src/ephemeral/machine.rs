//! The life of one environment, without I/O: what follows is decided from what was noted before and after each deed.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Time;

/// How long an environment that is gone is remembered: one that comes up late is known by it.
const REMEMBERED: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Characters of a reason.
const MAX_WHY: usize = 500;
/// Failed tries in a row to take an environment down after which somebody is told, and again whenever there are twice
/// as many.
const TOLD_AFTER: u32 = 3;

/// The phase of an environment's life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// The environment is being brought up. Whether any of it is there is not known.
    Coming,
    Up,
    /// The environment is to be taken down. Whether anything of it is left is not known.
    Going,
    Gone,
}

/// Whoever has begun to work on an environment last: nobody else notes what came of it. Whether he still works on it is not
/// said here, but by a lease.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claim {
    pub holder: String,
    /// For so long earlier versions leave it to him.
    pub until: Time,
    /// Whether he has a lease. Earlier versions have none: theirs hold until then.
    #[serde(default)]
    pub leased: bool,
}

/// An environment as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preview {
    /// The name of the environment, which is never given to another one.
    pub name: String,
    /// The kind of the environment, by its name in the operator's list.
    pub kind: String,
    pub instance: String,
    pub pipeline: String,
    /// The id of the run that the environment is for; empty: it was found, and nobody knows.
    pub run: String,
    pub by: String,
    pub made: Time,
    /// The time from which on the environment is taken down.
    pub expires: Time,
    pub phase: Phase,
    #[serde(default)]
    pub address: Option<String>,
    #[serde(default)]
    pub claim: Option<Claim>,
    /// Tries in a row that did not take it down.
    #[serde(default)]
    pub failures: u32,
    /// The time before which it is not tried again to take it down.
    #[serde(default)]
    pub not_before: Time,
    /// Why the environment goes, or what failed last.
    #[serde(default)]
    pub why: String,
    /// When the phase of the environment changed.
    pub changed: Time,
}

/// What is to be done about one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing is to be done before this time.
    Later(Time),
    TakeDown,
    /// The environment has been gone for so long that its record may go.
    Forget,
}

/// Why a step changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("{0} works on it until then")]
    Claimed(String),
    #[error("it is not to be taken down")]
    Stays,
    #[error("it is gone")]
    Gone,
    #[error("whoever brought it up took too long, or it is to be taken down meanwhile")]
    Late,
}

fn cut(why: &str) -> String {
    why.chars().take(MAX_WHY).collect()
}

impl Preview {
    /// A claim that no lease says anything of, while it holds.
    fn unleased(&self, now: Time) -> Option<&Claim> {
        self.claim.as_ref().filter(|it| !it.leased && now < it.until)
    }

    fn is_mine(&self, holder: &str) -> bool {
        self.claim.as_ref().is_some_and(|it| it.holder == holder)
    }

    fn enter(&mut self, phase: Phase, now: Time) {
        if self.phase != phase {
            self.changed = now;
        }
        self.phase = phase;
    }

    /// The environment came up, and answers at `address`. Errors: it is to be taken down all the same.
    pub fn came(&mut self, holder: &str, address: &str, now: Time) -> Result<(), Refused> {
        if self.phase != Phase::Coming || !self.is_mine(holder) {
            return Err(Refused::Late);
        }
        self.claim = None;
        self.address = Some(address.to_owned());
        self.enter(Phase::Up, now);
        Ok(())
    }

    /// From now on the environment is to be taken down, whatever it was. Whoever brings it up now is not interrupted by
    /// that: it is taken down behind him.
    pub fn let_go(&mut self, why: &str, now: Time) {
        if matches!(self.phase, Phase::Coming | Phase::Up) {
            self.why = cut(why);
            self.enter(Phase::Going, now);
        }
    }

    /// Notes that `holder` works on the environment no more.
    pub fn release(&mut self, holder: &str) {
        if self.is_mine(holder) {
            self.claim = None;
        }
    }

    /// The environment was seen although it should be gone: it came up late, and is taken down again.
    pub fn came_back(&mut self, now: Time) {
        if self.phase == Phase::Gone {
            self.why = "it was there although it had been taken down".to_owned();
            (self.failures, self.not_before) = (0, Time(0));
            self.enter(Phase::Going, now);
        }
    }

    /// What is to be done by whoever has its lease.
    pub fn due(&self, now: Time) -> Due {
        match (self.phase, self.unleased(now)) {
            (Phase::Gone, _) if now.since(self.changed) >= REMEMBERED => Due::Forget,
            (Phase::Gone, _) => Due::Later(self.changed.plus(REMEMBERED)),
            (_, Some(claim)) => Due::Later(claim.until),
            // Nobody brings it up any more: he who did is gone.
            (Phase::Coming, _) => Due::TakeDown,
            (Phase::Up, _) if now < self.expires => Due::Later(self.expires),
            (Phase::Up, _) => Due::TakeDown,
            (Phase::Going, _) if now < self.not_before => Due::Later(self.not_before),
            (Phase::Going, _) => Due::TakeDown,
        }
    }

    /// Begins to take the environment down: from now on it goes, and `holder`, who has its lease, works on it.
    pub fn begin_down(&mut self, holder: &str, until: Time, now: Time) -> Result<(), Refused> {
        if self.phase == Phase::Gone {
            return Err(Refused::Gone);
        }
        if let Some(other) = self.unleased(now) {
            return Err(Refused::Claimed(other.holder.clone()));
        }
        match self.phase {
            Phase::Coming => self.let_go("whoever brought it up is gone", now),
            Phase::Up if now >= self.expires => self.let_go("its time is over", now),
            Phase::Up => return Err(Refused::Stays),
            Phase::Going | Phase::Gone => {}
        }
        self.claim = Some(Claim { holder: holder.to_owned(), until, leased: true });
        Ok(())
    }

    /// Notes that nothing of the environment is left. Errors: `holder` is too late.
    pub fn went(&mut self, holder: &str, now: Time) -> Result<(), Refused> {
        if self.phase != Phase::Going || !self.is_mine(holder) {
            return Err(Refused::Late);
        }
        self.claim = None;
        self.failures = 0;
        self.enter(Phase::Gone, now);
        Ok(())
    }

    /// The environment could not be taken down, and is tried again after `pause`. Answers whether somebody is to be told.
    /// Nothing changes where another one works on it by now.
    pub fn did_not_go(&mut self, holder: &str, why: &str, pause: Duration, now: Time) -> bool {
        if self.phase != Phase::Going || !self.is_mine(holder) {
            return false;
        }
        self.claim = None;
        self.failures = self.failures.saturating_add(1);
        self.not_before = now.plus(pause);
        self.why = cut(why);
        self.failures >= TOLD_AFTER
            && (self.failures / TOLD_AFTER).is_power_of_two()
            && self.failures.is_multiple_of(TOLD_AFTER)
    }
}

#[cfg(test)]
#[path = "machine_tests.rs"]
mod tests;
