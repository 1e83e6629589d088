//! What happened, for people: with the names of targets and steps.

use std::collections::BTreeSet;

use super::kept::Rollout;
use super::notice::{in_words, noted};
use crate::judge::Verdict;
use crate::rollouts::machine::{Event, Logged, RolloutState, Running, Shift, TargetId, Why};
use crate::rollouts::parts::Target;

/// Characters of a digest that tell versions apart.
const SHORT: usize = 8;
/// Targets that are named at once.
const MAX_NAMES: usize = 10;

fn name(targets: &[Target], id: TargetId) -> &str {
    let found = usize::try_from(id).ok().and_then(|at| targets.get(at));
    found.map_or("a target", |it| &it.name)
}

/// Says why a rollout is reverted, with the name of the target that is the reason.
pub fn why(why: &Why, targets: &[Target]) -> String {
    match why {
        Why::Stuck(id) => {
            format!("{} answers, and does not get to run the release", name(targets, *id))
        }
        why => in_words(why),
    }
}

/// `None`: that an effect was carried out is of no interest by itself.
pub fn event(event: &Event, rollout: &Rollout, targets: &[Target]) -> Option<String> {
    let name = |id: &TargetId| name(targets, *id);
    Some(match event {
        Event::Done(_) => return None,
        Event::Verified => "the release is verified".to_owned(),
        Event::LockAsked => "the deploy lock is asked for again".to_owned(),
        Event::Locked(token) => format!("it has the deploy lock, with the token {token}"),
        Event::Unwanted(_) => "the deploy lock is given back at once".to_owned(),
        Event::WaveBegan(ids) => format!("told together: {}", names(ids, targets)),
        Event::Crowded(1) => "1 target is down, which is as many as may be".to_owned(),
        Event::Crowded(down) => format!("{down} targets are down, which is as many as may be"),
        Event::Asked(id) => format!("{} is told again", name(id)),
        Event::Heard(id, running) => heard(name(id), running, rollout),
        Event::GivenUp(id) => format!("{} was told often enough", name(id)),
        Event::BakeBegan => "the targets of the step run it, and are watched".to_owned(),
        Event::JudgeAsked => "the judge is asked".to_owned(),
        Event::Looked(verdict) => match verdict {
            Verdict::Promote => "the judge says: promote".to_owned(),
            Verdict::Hold => "the judge says: hold".to_owned(),
            Verdict::Rollback => "the judge says: roll back".to_owned(),
        },
        Event::Extended => "it is watched once more".to_owned(),
        Event::ShiftAsked => "requests are to be split anew".to_owned(),
        Event::Shifted => "requests are split so".to_owned(),
        Event::RollbackBegan(reason) => format!("it is reverted: {}", why(reason, targets)),
        event => noted(event, rollout, "")?.1,
    })
}

/// The names of the targets that a rollback begins for. `state`: the one before `events`, which it begins with.
pub fn blamed(why: &Why, state: &RolloutState, events: &[Logged], targets: &[Target]) -> String {
    let lost = state.targets.iter().filter(|(_, it)| it.was_new && it.is_lost());
    let given_up = events.iter().filter_map(|it| match it.event {
        Event::GivenUp(id) => Some(id),
        _ => None,
    });
    let ids: BTreeSet<TargetId> = match why {
        Why::Stuck(id) => BTreeSet::from([*id]),
        Why::Lost(_) => lost.map(|(id, _)| *id).chain(given_up).collect(),
        _ => BTreeSet::new(),
    };
    names(&ids.into_iter().collect::<Vec<_>>(), targets)
}

/// What a rollback that failed has left behind, for whoever is called; empty: nothing is left.
pub fn left(state: &RolloutState, targets: &[Target]) -> String {
    if state.spec.old.is_none() {
        return "there is no release to return to".to_owned();
    }
    let ids = state.unsettled();
    let of_targets = (!ids.is_empty()).then(|| format!("not restored: {}", names(&ids, targets)));
    let goes_there = matches!(state.split, Some(Shift::Step(_)));
    let of_split = goes_there.then(|| "requests are split as before the rollback".to_owned());
    of_targets.into_iter().chain(of_split).collect::<Vec<_>>().join("; ")
}

fn names(ids: &[TargetId], targets: &[Target]) -> String {
    let names: Vec<_> = ids.iter().take(MAX_NAMES).map(|id| name(targets, *id)).collect();
    let more = ids.len().saturating_sub(names.len());
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    format!("{}{more}", names.join(", "))
}

fn heard(name: &str, running: &Running, rollout: &Rollout) -> String {
    let Running::Version(version, generation) = running else {
        return format!("{name} is silent");
    };
    let known = |it: &str| **version == *it;
    let version = match version.trim_start_matches("sha256:") {
        "" => "nothing".to_owned(),
        _ if known(&rollout.spec.new) => "the release".to_owned(),
        _ if rollout.spec.old.as_deref().is_some_and(known) => "what ran before".to_owned(),
        other => other.chars().take(SHORT).collect(),
    };
    match (generation.fence, generation.change) {
        (0, 0) => format!("{name} runs {version}, and not yet as it was told"),
        _ => format!("{name} runs {version}, as it was told by {generation}"),
    }
}
