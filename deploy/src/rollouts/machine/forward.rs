//! What follows from the time alone: who is told again, what has waited or baked long enough.

use super::event::{Effect, End, Event, Shift, Why};
use super::spec::Millis;
use super::state::{Phase, RolloutState};
use super::target::Target;
use super::waves::returning;

/// The beginning of a step: at its gate, where it has one.
pub fn next_step(state: &RolloutState, step: usize) -> Event {
    match state.spec.steps.get(step) {
        None => Event::SoakBegan,
        Some(next) if next.gate => Event::GateBegan(step),
        Some(_) => Event::StepBegan(step),
    }
}

/// What the judge lets go on.
pub fn promoted(state: &RolloutState) -> Vec<Event> {
    match state.phase {
        Phase::Baking(step) => vec![next_step(state, step + 1)],
        Phase::Soaking => vec![Event::Ended(End::Succeeded)],
        _ => Vec::new(),
    }
}

/// `sees`: how targets are was found out after they were told.
pub fn tick(state: &RolloutState, now: Millis, sees: bool) -> Vec<Event> {
    if state.is_forward()
        && let Some(why) = failing(state, now)
    {
        return vec![Event::RollbackBegan(why)];
    }
    let mut events = if sees { told_again(state, now) } else { Vec::new() };
    // Who is told again holds up nothing that only time decides.
    if state.paused.is_none() {
        events.extend(progress(state, now));
    }
    events
}

/// Targets that do not run what they were told within the time: they are told again, or given up.
fn told_again(state: &RolloutState, now: Millis) -> Vec<Event> {
    // After the end only who is heard of is told (`Input::Observed`).
    if matches!(state.phase, Phase::Ended(_)) {
        return Vec::new();
    }
    let limits = &state.spec.limits;
    let due = |target: &Target| {
        !target.is_settled()
            && !target.is_lost()
            && !state.is_owed(target)
            && now >= target.asked.saturating_add(limits.settle)
    };
    let due = state.targets.iter().filter(|(_, target)| due(target));
    due.filter_map(|(id, target)| match target.tries < limits.tries {
        true => Some(Event::Asked(*id)),
        // Whoever reverts never gives up a target that answers.
        false if !target.given_up => Some(Event::GivenUp(*id)),
        false if state.phase == Phase::RollingBack => Some(Event::Asked(*id)),
        false => None,
    })
    .collect()
}

/// Why a rollout cannot go on, paused or not.
fn failing(state: &RolloutState, now: Millis) -> Option<Why> {
    // A baseline that does not start anew is no fault of the release, and takes nothing away from it.
    let new = state.targets.iter().filter(|(_, target)| target.was_new);
    if let Some((id, _)) = new.clone().find(|(_, target)| target.is_stuck()) {
        return Some(Why::Stuck(*id));
    }
    let lost = new.filter(|(_, target)| target.is_lost()).count();
    if lost > state.spec.limits.lost {
        return Some(Why::Lost(lost));
    }
    // The clock of the deadline stands still while the rollout is paused, whoever has paused it.
    (state.paused.is_none() && now >= state.deadline).then_some(Why::Deadline)
}

fn progress(state: &RolloutState, now: Millis) -> Option<Event> {
    let limits = &state.spec.limits;
    let passed = |time: Millis| now >= state.since.saturating_add(time);
    let judged = || {
        let asked = state.pending.values().any(|effect| *effect == Effect::Judge);
        (!asked && state.is_settled()).then_some(Event::JudgeAsked)
    };
    if state.phase == Phase::RollingBack
        && let Some(wave) = returning(state, now)
    {
        return Some(wave);
    }
    match state.phase {
        Phase::Waiting => {
            let asked = state.pending.values().any(|effect| *effect == Effect::Lock);
            let due = now >= state.lock_asked.saturating_add(limits.lock_retry);
            (!asked && due).then_some(Event::LockAsked)
        }
        Phase::Applying(step) if !state.untold(step).is_empty() || !state.is_settled() => None,
        Phase::Applying(_) => shifted(state, Event::BakeBegan),
        Phase::Baking(step) => {
            let bake = state.spec.steps.get(step).map_or(0, |step| step.bake);
            passed(bake).then(judged).flatten()
        }
        Phase::Soaking => passed(state.spec.soak).then(judged).flatten(),
        Phase::RollingBack if state.spec.old.is_none() && !state.targets.is_empty() => {
            Some(Event::Ended(End::RollbackFailed))
        }
        Phase::RollingBack if state.is_restored() && state.is_back() => {
            shifted(state, Event::Ended(End::RolledBack))
        }
        Phase::RollingBack if passed(limits.rollback) => Some(Event::Ended(End::RollbackFailed)),
        Phase::Verifying | Phase::Gate(_) | Phase::RollingBack | Phase::Ended(_) => None,
    }
}

/// What follows, once the requests are split as they have to be before it.
fn shifted(state: &RolloutState, follows: Event) -> Option<Event> {
    let asked = |shift: Shift| {
        let of = |effect: &Effect| matches!(effect, Effect::Shift(it, _) if *it == shift);
        state.pending.values().any(of)
    };
    match state.shift() {
        None => Some(follows),
        Some(shift) => (!asked(shift)).then_some(Event::ShiftAsked),
    }
}
