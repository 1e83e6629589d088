//! Says which targets are told together: not more than may be down at once, of those that are up.

use std::collections::HashSet;

use super::event::{Effect, Event};
use super::spec::{Millis, StepSpec, TargetId, Version};
use super::state::{Phase, RolloutState};
use super::target::Target;

impl RolloutState {
    /// Whether targets are told a few at a time, or only after requests were split.
    pub(super) fn is_gradual(&self) -> bool {
        self.spec.unavailable.is_some() || self.spec.beside
    }

    /// Whether the target returns, and was not told so yet.
    pub(super) fn is_owed(&self, target: &Target) -> bool {
        let old = self.spec.old.as_ref();
        self.phase == Phase::RollingBack && old.is_some_and(|old| target.desired.version != *old)
    }

    /// Targets that return, and were not told so yet: first those that are not well.
    fn owed(&self) -> Vec<TargetId> {
        let owed = self.targets.iter().filter(|(_, target)| self.is_owed(target));
        let (well, ill): (Vec<_>, Vec<_>) = owed.partition(|(_, target)| target.is_settled());
        ill.into_iter().chain(well).map(|(id, _)| *id).collect()
    }

    /// Targets of a step that were not told anything in it yet.
    pub fn untold(&self, step: usize) -> Vec<TargetId> {
        let Some(step) = self.spec.steps.get(step) else { return Vec::new() };
        let new = step.targets.iter().filter(|id| {
            let target = self.targets.get(*id);
            target.is_none_or(|target| !target.was_new)
        });
        let fresh = self.fresh(step).iter().filter(|id| !self.targets.contains_key(*id));
        new.chain(fresh).copied().collect()
    }

    /// The baseline that a step starts anew, where there is an old version.
    fn fresh<'s>(&self, step: &'s StepSpec) -> &'s [TargetId] {
        if self.spec.old.is_some() { &step.fresh } else { &[] }
    }

    /// Whether the target runs what it was told last, or was told nothing.
    fn is_up(&self, id: &TargetId) -> bool {
        self.targets.get(id).is_none_or(Target::is_settled)
    }

    /// Tells all targets that a step or a return changes at once.
    pub(super) fn tell_all(&mut self, now: Millis) -> Vec<Effect> {
        let ids = match self.phase {
            Phase::Applying(step) => self.untold(step),
            _ => self.owed(),
        };
        self.tell_each(&ids, now)
    }

    /// Tells these what the phase has them run.
    pub(super) fn tell_each(&mut self, ids: &[TargetId], now: Millis) -> Vec<Effect> {
        let spec = self.spec.clone();
        let new: HashSet<TargetId> = match self.phase {
            Phase::Applying(step) => {
                spec.steps.get(step).into_iter().flat_map(|it| it.targets.clone()).collect()
            }
            _ => HashSet::new(),
        };
        let version = |id: &TargetId| -> Option<Version> {
            if new.contains(id) { Some(spec.new.clone()) } else { spec.old.clone() }
        };
        let told = ids.iter().filter_map(|id| Some((*id, version(id)?)));
        told.map(|(id, version)| self.desire(id, version, now)).collect()
    }
}

/// As many of the targets that are up as there is room for, and all that are down: who is down already takes nothing
/// away by being told.
fn fitting(
    ids: Vec<TargetId>,
    mut room: usize,
    is_up: impl Fn(&TargetId) -> bool,
) -> Vec<TargetId> {
    let fits = |id: &TargetId| {
        let fits = !is_up(id) || room > 0;
        room = room.saturating_sub(usize::from(is_up(id)));
        fits
    };
    ids.into_iter().filter(fits).collect()
}

/// The next targets of a step, where no more than so many may be down. `down`: of those that were told nothing.
pub fn wave(state: &RolloutState, down: &[TargetId]) -> Vec<Event> {
    let (Phase::Applying(step), None) = (state.phase, state.paused) else { return Vec::new() };
    let Some(allowed) = state.spec.unavailable else { return Vec::new() };
    let untold = state.untold(step);
    if untold.is_empty() {
        return Vec::new();
    }
    let down: HashSet<TargetId> =
        down.iter().copied().filter(|id| !state.targets.contains_key(id)).collect();
    let switching = state.targets.values().filter(|target| !target.is_settled()).count();
    let busy = switching + down.len();
    let is_up = |id: &TargetId| !down.contains(id) && state.is_up(id);
    let next = fitting(untold, allowed.saturating_sub(busy), is_up);
    match next.is_empty() {
        false => vec![Event::WaveBegan(next)],
        // Nothing that was begun will make room.
        true if switching == 0 && state.crowded != Some(busy) => vec![Event::Crowded(busy)],
        true => Vec::new(),
    }
}

/// The next targets that return. Whoever reverts goes on however many are down: at least one is told at a time.
pub fn returning(state: &RolloutState, now: Millis) -> Option<Event> {
    let owed = state.owed();
    if owed.is_empty() {
        return None;
    }
    let since = |time: Millis| now >= state.since.saturating_add(time);
    let limits = &state.spec.limits;
    if since(limits.rollback) {
        return Some(Event::WaveBegan(owed));
    }
    // Nobody is asked any more who is restarted; a balancer that does not answer holds that up for a while only.
    if state.spec.beside && !state.is_back() && !since(limits.settle) {
        return None;
    }
    let Some(allowed) = state.spec.unavailable else { return Some(Event::WaveBegan(owed)) };
    let returns = |it: &&Target| !state.is_owed(it) && !it.is_settled() && !it.given_up;
    let switching = state.targets.values().filter(returns).count();
    let room = allowed.max(1).saturating_sub(switching);
    let next = fitting(owed, room, |id| state.is_up(id));
    (!next.is_empty()).then_some(Event::WaveBegan(next))
}
