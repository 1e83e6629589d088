//! What an input means in a state. Nothing is changed here: the events are, once they are in the log.

use super::event::{Effect, EffectId, End, Event, Why};
use super::forward::{next_step, promoted, tick};
use super::spec::{Generation, Millis, Running, TargetId};
use super::state::{Phase, RolloutState};
use super::waves::wave;
use crate::judge::Verdict;

/// What an effect came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    Done,
    /// The release is not what may be rolled out.
    Refused(String),
    Locked(u64),
    /// Somebody else has the lock.
    LockHeld,
    /// `breach`: nothing has to be waited for.
    Judged {
        verdict: Verdict,
        breach: bool,
        /// Why the judge says so, in words.
        why: String,
    },
    /// The target obeys something newer.
    Stale(Generation),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The rollout is wanted.
    Start,
    /// Time went by, and nothing else happened.
    Tick,
    /// Time went by, and it is not known yet how those are that were told: nobody is told again or given up.
    Blind,
    /// An effect was carried out.
    Result(EffectId, Outcome),
    /// What a target runs, found out without believing what it says of itself.
    Observed(TargetId, Running),
    /// A target says that it has given up what it was told.
    Failed(TargetId),
    /// Targets that are down, of those that were told nothing yet.
    Fleet(Vec<TargetId>),
    /// A signal broke a limit.
    Breach(String),
    Approve {
        step: usize,
    },
    Pause(String),
    Resume,
    /// A time begins in which nothing may go forward.
    Freeze(String),
    /// The time is over in which nothing may go forward.
    Thaw,
    Abort(String),
    Supersede(String),
    LockLost,
}

/// The events that follow. They belong together: all of them are appended, or none.
pub fn decide(state: &RolloutState, input: &Input, now: Millis) -> Vec<Event> {
    match input {
        Input::Start if state.length == 0 => vec![Event::Started],
        _ if state.length == 0 => Vec::new(),
        Input::Start => Vec::new(),
        Input::Tick => tick(state, now, true),
        Input::Blind => tick(state, now, false),
        Input::Result(id, outcome) => result(state, *id, outcome),
        Input::Observed(id, running) => observed(state, *id, running, now),
        Input::Failed(id) => failed(state, *id, now),
        Input::Fleet(down) => wave(state, down),
        Input::Breach(why) => back(state, Why::Breach(why.clone())),
        Input::Abort(by) => back(state, Why::Aborted(by.clone())),
        Input::Supersede(by) => back(state, Why::Superseded(by.clone())),
        Input::LockLost if state.lock.is_some() => back(state, Why::LockLost),
        Input::LockLost => Vec::new(),
        Input::Approve { step } => match state.phase {
            Phase::Gate(at) if at == *step && state.paused.is_none() => vec![Event::StepBegan(at)],
            _ => Vec::new(),
        },
        Input::Pause(by) if state.is_forward() && (state.paused.is_none() || state.frozen) => {
            vec![Event::Paused(by.clone())]
        }
        Input::Freeze(why) if state.is_forward() && state.paused.is_none() => {
            vec![Event::Frozen(why.clone())]
        }
        // No person ends a freeze here, and its end ends no pause of a person.
        Input::Resume if state.paused.is_some() && !state.frozen => vec![Event::Resumed],
        Input::Thaw if state.paused.is_some() && state.frozen => vec![Event::Resumed],
        Input::Pause(_) | Input::Resume | Input::Freeze(_) | Input::Thaw => Vec::new(),
    }
}

fn has_ended(state: &RolloutState) -> bool {
    matches!(state.phase, Phase::Ended(_))
}

/// A rollback is never rolled back, and what has ended has ended.
fn back(state: &RolloutState, why: Why) -> Vec<Event> {
    if state.is_forward() { vec![Event::RollbackBegan(why)] } else { Vec::new() }
}

fn result(state: &RolloutState, id: EffectId, outcome: &Outcome) -> Vec<Event> {
    // It is known already, or does not matter any more.
    let Some(effect) = state.pending.get(&id) else { return Vec::new() };
    let done = Event::Done(id);
    let follows = match (effect, outcome) {
        (Effect::Verify(_), Outcome::Done) if state.phase == Phase::Verifying => {
            vec![Event::Verified]
        }
        (Effect::Verify(_), Outcome::Refused(why)) if state.phase == Phase::Verifying => {
            vec![Event::Refused(why.clone())]
        }
        (Effect::Lock, Outcome::Locked(token)) if state.phase == Phase::Waiting => {
            vec![Event::Locked(*token), next_step(state, 0)]
        }
        (Effect::Lock, Outcome::Locked(token)) => vec![Event::Unwanted(*token)],
        (Effect::Apply(..) | Effect::Shift(..), Outcome::Stale(newer))
            if newer.fence > state.generation.fence && !has_ended(state) =>
        {
            vec![Event::Ended(End::Overtaken)]
        }
        (Effect::Shift(shift, _), Outcome::Done) if state.shift() == Some(*shift) => {
            vec![Event::Shifted]
        }
        (Effect::Judge, Outcome::Judged { verdict, breach, why }) => {
            judged(state, *verdict, *breach, why)
        }
        _ => Vec::new(),
    };
    [done].into_iter().chain(follows).collect()
}

fn judged(state: &RolloutState, verdict: Verdict, breach: bool, why: &str) -> Vec<Event> {
    if !matches!(state.phase, Phase::Baking(_) | Phase::Soaking) {
        return Vec::new();
    }
    let looked = Event::Looked(verdict);
    let hold = || {
        let limit = state.extensions >= state.spec.limits.extensions;
        let paused = (limit && state.paused.is_none())
            .then(|| Event::Paused(format!("the judge cannot decide: {why}")));
        [Event::Extended].into_iter().chain(paused).collect::<Vec<_>>()
    };
    let follows = match state.look(verdict, breach) {
        Verdict::Rollback => {
            vec![Event::RollbackBegan(Why::Breach(why.to_owned()))]
        }
        Verdict::Hold => hold(),
        // Meanwhile a target may have fallen back, or a person stopped it: then it bakes once more.
        Verdict::Promote if state.paused.is_some() || !state.is_settled() => vec![Event::Extended],
        Verdict::Promote => promoted(state),
    };
    [looked].into_iter().chain(follows).collect()
}

/// Who has given up is told again sooner, and as often as others.
fn failed(state: &RolloutState, id: TargetId, now: Millis) -> Vec<Event> {
    let limits = &state.spec.limits;
    let Some(target) = state.targets.get(&id) else { return Vec::new() };
    let soon = now < target.asked.saturating_add(limits.settle / 4);
    if has_ended(state) || target.is_settled() || target.given_up || soon {
        return Vec::new();
    }
    match target.tries < limits.tries {
        true => vec![Event::Asked(id)],
        false => vec![Event::GivenUp(id)],
    }
}

fn observed(state: &RolloutState, id: TargetId, running: &Running, now: Millis) -> Vec<Event> {
    let Some(target) = state.targets.get(&id) else { return Vec::new() };
    let mut events = Vec::new();
    if target.running.as_ref() != Some(running) {
        events.push(Event::Heard(id, running.clone()));
    }
    // Who comes back after all is decided is told what to run as well.
    let ended = matches!(state.phase, Phase::Ended(end) if end != End::Overtaken);
    let wrong = match running {
        Running::Silent => false,
        Running::Version(version, generation) => {
            *version != target.desired.version || *generation != target.desired.generation
        }
    };
    // Who obeys something newer was told that by somebody else since, and refuses what is older.
    let newer = matches!(running, Running::Version(_, told) if *told > target.desired.generation);
    if ended && wrong && !newer && now >= target.asked.saturating_add(state.spec.limits.settle) {
        events.push(Event::Asked(id));
    }
    events
}
