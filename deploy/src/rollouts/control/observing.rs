//! What targets run, found out without believing what was said of them.

use super::driver::Driver;
use super::preview::down;
use crate::rollouts::machine::{Generation, Input, Phase, Running, TargetId};
use crate::rollouts::parts::{Health, Observation};

impl Driver {
    fn names(&self, ids: impl Iterator<Item = TargetId>) -> Vec<(TargetId, String)> {
        let name = |id: TargetId| {
            let target = self.targets.get(usize::try_from(id).ok()?)?;
            Some((id, target.name.clone()))
        };
        ids.filter_map(name).collect()
    }

    /// What the targets that were touched run. Where nobody can say, nothing is known anew.
    pub(super) async fn observe(&mut self) -> Vec<Input> {
        let Some(from) = self.control.parts.targets.get(&self.declared.driving.from) else {
            return Vec::new();
        };
        let state = &self.open.state;
        // Where only a few may be down at once, all count.
        let waves = state.spec.unavailable.is_some() && matches!(state.phase, Phase::Applying(_));
        let named = match waves {
            true => self.names((0..).take(self.targets.len())),
            false => self.names(state.targets.keys().copied()),
        };
        if named.is_empty() {
            return Vec::new();
        }
        let names: Vec<_> = named.iter().map(|(_, name)| name.clone()).collect();
        let found = match from.observe(&self.open.rollout.place, &names).await {
            Ok(found) => found,
            Err(error) => {
                tracing::warn!(rollout = self.open.rollout.id, %error, "targets cannot be observed");
                return Vec::new();
            }
        };
        let mut inputs = Vec::with_capacity(found.len());
        let mut are_down = Vec::new();
        for ((id, _), found) in named.into_iter().zip(found) {
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
        inputs.extend(waves.then_some(Input::Fleet(are_down)));
        inputs
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

    /// Whether it says that it has given up what it was told last.
    fn gave_up(&self, id: TargetId, found: Option<&Observation>) -> bool {
        let (Some(found), Some(target)) = (found, self.open.state.targets.get(&id)) else {
            return false;
        };
        found.failed.is_some() && found.generation == target.desired.generation
    }
}
