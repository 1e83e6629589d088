//! What targets run, found out without believing what was said of them.

use std::time::Duration;

use super::asking::Asking;
use super::driver::Driver;
use super::notice::cut;
use super::preview::down;
use crate::rollouts::machine::{Generation, Input, Millis, Phase, Running, Target, TargetId};
use crate::rollouts::parts::{Health, Observation};

/// How long a round waits for how targets are. What is answered later is taken in by a later one.
const BRIEF: Duration = Duration::from_millis(250);

/// Targets of which it is said what hinders them.
const MAX_HINDERED: usize = 5;

impl Driver {
    fn names(&self, ids: impl Iterator<Item = TargetId>) -> Vec<(TargetId, String)> {
        let name = |id: TargetId| {
            let target = self.targets.get(usize::try_from(id).ok()?)?;
            Some((id, target.name.clone()))
        };
        ids.filter_map(name).collect()
    }

    /// Begins to ask how targets are; `None`: nobody has to be asked.
    fn ask_targets(&self, now: Millis) -> Option<Asking> {
        let from = self.control.parts.targets.get(&self.declared.driving.from)?;
        let state = &self.open.state;
        // Where only a few may be down at once, all count.
        let all = state.spec.unavailable.is_some() && matches!(state.phase, Phase::Applying(_));
        let named = match all {
            true => self.names((0..).take(self.targets.len())),
            false => self.names(state.targets.keys().copied()),
        };
        let place = self.open.rollout.place.clone();
        (!named.is_empty()).then(|| Asking::begin(from.clone(), place, named, (all, now)))
    }

    /// What the targets that were touched run, and that time went by. Where nobody can say yet, nothing is known anew, and
    /// nobody is given up for that.
    pub(super) async fn observe(&mut self, now: Millis) -> Vec<Input> {
        let Some(mut asking) = self.asking.take().or_else(|| self.ask_targets(now)) else {
            return vec![Input::Tick];
        };
        let found = match asking.answer(BRIEF).await {
            Some(Ok(found)) => found,
            Some(Err(error)) => {
                tracing::warn!(rollout = self.open.rollout.id, %error, "targets cannot be observed");
                return vec![Input::Tick];
            }
            None => {
                self.asking = Some(asking);
                return vec![Input::Blind];
            }
        };
        let mut inputs = Vec::with_capacity(found.len());
        let mut are_down = Vec::new();
        for (id, found) in asking.ids.iter().copied().zip(found) {
            if !self.open.state.targets.contains_key(&id) {
                are_down.extend(down(found.as_ref()).map(|_| id));
                continue;
            }
            inputs.push(Input::Observed(id, self.running(id, found.as_ref())));
            inputs.extend(self.gave_up(id, found.as_ref()).then_some(Input::Failed(id)));
            match found {
                Some(found) => drop(self.known.insert(id, found)),
                None => drop(self.known.remove(&id)),
            }
        }
        inputs.extend(asking.all.then_some(Input::Fleet(are_down)));
        inputs.push(if self.sees(asking.since) { Input::Tick } else { Input::Blind });
        inputs
    }

    /// Whether an answer to what was asked then says how those are that were told: nobody was told later, or is being told.
    fn sees(&self, since: Millis) -> bool {
        let late = |target: &Target| !target.is_settled() && target.asked >= since;
        !self.doing.tells() && !self.open.state.targets.values().any(late)
    }

    /// What is believed of a target. One that is not well does not run the new version as it was told to; whoever returns
    /// to the old one is not asked how it is.
    fn running(&self, id: TargetId, found: Option<&Observation>) -> Running {
        let Some(found) = found else { return Running::Silent };
        let version = found.version.as_ref().map(ToString::to_string).unwrap_or_default();
        let forward = self.open.state.targets.get(&id).is_some_and(|target| {
            target.desired.version == self.open.rollout.spec.new && self.open.state.is_forward()
        });
        let unwell = matches!(found.health, Health::Unwell(_));
        let generation = if forward && unwell { Generation::default() } else { found.generation };
        Running::Version(version.into(), generation)
    }

    /// What targets that do not run what they were told say of that, by their names.
    pub(super) fn hindered(&self) -> String {
        let unsettled = self.open.state.targets.iter().filter(|(_, it)| !it.is_settled());
        let said = unsettled.filter_map(|(id, _)| {
            let found = self.known.get(id)?;
            let unwell = match &found.health {
                Health::Unwell(why) => Some(why),
                _ => None,
            };
            let why = found.failed.as_ref().or(unwell)?;
            let name = &self.targets.get(usize::try_from(*id).ok()?)?.name;
            Some(format!("{name}: {}", cut(why)))
        });
        said.take(MAX_HINDERED).collect::<Vec<_>>().join("; ")
    }

    /// Whether the target says that it has given up what it was told last.
    fn gave_up(&self, id: TargetId, found: Option<&Observation>) -> bool {
        let (Some(found), Some(target)) = (found, self.open.state.targets.get(&id)) else {
            return false;
        };
        found.failed.is_some() && found.generation == target.desired.generation
    }
}
