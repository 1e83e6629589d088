//! How long it takes until a change has landed, if all goes well: by what checks took and what is before it.

use std::time::Duration;

use super::head::Head;
use super::line::Line;
use crate::model::Time;
use crate::queue::{ChangeId, Lane, Phase, Run, batch};

/// Estimates of one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// What a check usually takes.
    pub check: Duration,
    /// The time until the change has landed.
    pub landed: Duration,
}

/// Nothing where no check was carried out yet, and for what cannot be tried as things are.
pub fn expected(
    lane: &Lane,
    head: &Head,
    line: &Line,
    id: ChangeId,
    now: Time,
) -> Option<Expected> {
    let check = head.usual()?;
    if lane.paused.is_some() {
        return None;
    }
    let with = lane.runs.values().find(|run| run.members.iter().any(|it| it.id == id));
    if let Some(run) = with {
        return Some(Expected { check, landed: rest(run, check, now) });
    }
    let before = line.before(id)?.untested;
    let batch = batch(lane.rates.bad()).max(1);
    // How many workers there are is what a runner says.
    let at_once = batch.saturating_mul(lane.options.workers.max(1));
    let rounds = u32::try_from(before / at_once + 1).unwrap_or(u32::MAX);
    let busy = lane.runs.values().filter(|it| it.phase == Phase::Checking).count();
    let first = match busy >= lane.options.workers.max(1) {
        true => lane.runs.values().map(|it| rest(it, check, now)).min().unwrap_or_default(),
        false => Duration::ZERO,
    };
    Some(Expected { check, landed: first.saturating_add(check.saturating_mul(rounds)) })
}

/// What is left of a run.
fn rest(run: &Run, check: Duration, now: Time) -> Duration {
    match run.phase {
        Phase::Checking => check.saturating_sub(now.since(run.began)),
        Phase::Passed | Phase::Proving | Phase::Comparing | Phase::Landing => Duration::ZERO,
    }
}
