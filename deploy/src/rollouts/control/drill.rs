//! Drills: a canary that is made to fail, to prove that the rollback fires in time. A drill goes the way of every
//! rollout, but for three things: it touches the first step alone, what is looked at says that its canary crashes, and it
//! blames no release.

use kiln_cas::records::{Expect, Write};
use serde::{Deserialize, Serialize};

use super::error::ControlError;
use super::kept::Rollout;
use super::scheduled::Missed;
use super::store::put;
use super::{Control, keys};
use crate::rollouts::machine::{End, Event, Logged, Millis, RolloutState, Spec, Why};
use crate::rollouts::parts::Place;
use crate::rollouts::plan::{self, Declared};

/// How a drill went.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drill {
    pub place: Place,
    pub rollout: String,
    pub release: String,
    pub at: Millis,
    /// Milliseconds from when the canary was watched until it was decided to revert.
    pub fired: Option<Millis>,
    /// Milliseconds from that decision until all targets ran the old version again.
    pub restored: Option<Millis>,
    pub budget: Millis,
    /// The judge reverted it, and all of that was within the budget.
    pub passed: bool,
}

/// The drills of a place, and whether its newest declaration demands another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DrillStanding {
    pub place: Place,
    pub last: Option<Drill>,
    /// The last one that passed.
    pub passed: Option<Drill>,
    /// When the next one has to have passed; `None`: none is demanded.
    pub due: Option<Millis>,
    pub is_overdue: bool,
    /// When the next drill begins by itself; `None`: none does.
    pub next: Option<Millis>,
    /// Why the one that should begin now does not, in words.
    pub hindered: Option<String>,
    pub missed: Option<Missed>,
}

/// The plan of a drill: only the first step, which is watched until the failure is found, or the time is up.
pub fn shortened(mut spec: Spec, budget: Millis) -> Spec {
    spec.steps.truncate(1);
    // Putting the release there takes its own time.
    let limits = &spec.limits;
    let tries = u64::from(limits.tries).saturating_add(1);
    spec.deadline = budget.saturating_add(limits.settle.saturating_mul(tries));
    for step in &mut spec.steps {
        (step.bake, step.gate) = (spec.deadline, false);
    }
    spec
}

/// What a drill came to, where these events end it.
pub fn judged(rollout: &Rollout, before: &RolloutState, events: &[Logged]) -> Option<Drill> {
    let budget = rollout.drill?;
    let end = events.iter().find_map(|logged| match logged.event {
        Event::Ended(end) => Some((end, logged.at)),
        _ => None,
    });
    let (end, ended) = end?;
    let began = events.iter().find_map(|logged| match &logged.event {
        Event::RollbackBegan(why) => Some((why.clone(), logged.at)),
        _ => None,
    });
    // Where it was decided earlier, the phase began then.
    let began = began.or_else(|| before.why.clone().map(|why| (why, before.since)));
    let watched = Some(before.watched).filter(|at| *at > 0);
    let at = began.as_ref().map(|(_, at)| *at);
    let fired = at.zip(watched).map(|(at, watched)| at.saturating_sub(watched));
    let restored = at.filter(|_| end == End::RolledBack).map(|at| ended.saturating_sub(at));
    let by_judge = matches!(began, Some((Why::Breach(_), _)));
    let time = fired.zip(restored).map(|(fired, restored)| fired.saturating_add(restored));
    Some(Drill {
        place: rollout.place.clone(),
        rollout: rollout.id.clone(),
        release: rollout.release.to_string(),
        at: ended,
        fired,
        restored,
        budget,
        passed: by_judge && time.is_some_and(|time| time <= budget),
    })
}

/// Writes that keep a drill: as the last one of its place, and as the last one that passed.
pub fn kept(drill: &Drill) -> Result<Vec<Write>, ControlError> {
    let place = &drill.place;
    let last = put(keys::drill(place, "last"), Expect::Anything, drill)?;
    let passed = put(keys::drill(place, "passed"), Expect::Anything, drill)?;
    Ok(if drill.passed { vec![last, passed] } else { vec![last] })
}

/// When the next drill has to have passed, after the last one that did; `None`: none is demanded.
fn due(declared: &Declared, passed: Option<&Drill>) -> Option<Millis> {
    let every = u64::try_from(declared.driving.drill_every?.as_millis()).unwrap_or(u64::MAX);
    Some(passed.map_or(0, |it| it.at.saturating_add(every)))
}

impl Control {
    /// The last drill of a place, and the last that passed. One that cannot be read is as one that is not there.
    pub async fn drills(
        &self,
        place: &Place,
    ) -> Result<(Option<Drill>, Option<Drill>), ControlError> {
        let last = self.store.get::<Drill>(&keys::drill(place, "last")).await;
        let passed = self.store.get::<Drill>(&keys::drill(place, "passed")).await;
        Ok((self.store.readable(last)?.flatten(), self.store.readable(passed)?.flatten()))
    }

    /// The state of drills where this rollout is, by its declaration; `None`: there was none, and none is demanded.
    pub async fn drill_standing(
        &self,
        rollout: &Rollout,
    ) -> Result<Option<DrillStanding>, ControlError> {
        let place = rollout.place.clone();
        let (last, passed) = self.drills(&place).await?;
        let due = due(&plan::read(&rollout.declared)?, passed.as_ref());
        let is_overdue = due.is_some_and(|due| due <= self.now());
        let scheduled = self.scheduled(&place).await?;
        let any = last.is_some() || due.is_some() || scheduled.is_some();
        let next = scheduled.as_ref().and_then(|it| it.next(self.now()));
        let (hindered, missed) = scheduled.map(|it| (it.hindered, it.missed)).unwrap_or_default();
        let standing =
            DrillStanding { place, last, passed, due, is_overdue, next, hindered, missed };
        Ok(any.then_some(standing))
    }

    /// Does what [`Self::drill_standing`] does, for a list of many: `None` also where a record of it cannot be read.
    pub async fn drill_listed(
        &self,
        rollout: &Rollout,
    ) -> Result<Option<DrillStanding>, ControlError> {
        match self.drill_standing(rollout).await {
            // A newer server may have declared more.
            Err(ControlError::Declared(error)) => {
                self.store.pass_by(&keys::run(&rollout.id), &error);
                Ok(None)
            }
            standing => Ok(self.store.readable(standing)?.flatten()),
        }
    }

    /// Why a drill is overdue that the declaration demands; `None`: none is, or that holds up nothing.
    pub(super) async fn overdue(
        &self,
        declared: &Declared,
        place: &Place,
    ) -> Result<Option<String>, ControlError> {
        let (_, passed) = self.drills(place).await?;
        let due = due(declared, passed.as_ref()).filter(|_| declared.drilling.blocks);
        if due.is_none_or(|due| self.now() < due) {
            return Ok(None);
        }
        let which = passed.map_or_else(
            || "no drill has passed there yet".to_owned(),
            |it| format!("the last drill that passed there was {}", it.rollout),
        );
        let missed = self.scheduled(place).await?.and_then(|it| it.missed);
        let missed = missed.map(|it| format!("; the last that was due was missed: {}", it.why));
        let missed = missed.unwrap_or_default();
        Ok(Some(format!(
            "a drill is overdue: {which}, and drill_every demands a newer one{missed}"
        )))
    }
}
