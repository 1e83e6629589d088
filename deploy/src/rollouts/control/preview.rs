//! What a rollout would do with the targets that are there: nothing is changed or kept.

use super::Control;
use super::asked::check_environment;
use super::error::ControlError;
use super::fit::place;
use super::kept::Sets;
use crate::rollouts::parts::{Health, Observation, Target};
use crate::rollouts::plan::{self, Plan};

/// A plan with names.
#[derive(Debug, Clone, PartialEq)]
pub struct Preview {
    pub plan: Plan,
    /// Targets in the order in which they get the release; of two sets those that serve come last.
    pub targets: Vec<Target>,
    /// For each step the names of targets that are started anew with the old version, to be compared with.
    pub fresh: Vec<Vec<String>>,
    /// Targets that are down now, with why.
    pub down: Vec<(String, String)>,
    pub sets: Option<Sets>,
}

/// Why a target is no help to those that serve; `None`: it is up.
pub fn down(found: Option<&Observation>) -> Option<String> {
    let Some(found) = found else { return Some("it is not heard".to_owned()) };
    match (&found.health, &found.version) {
        (Health::Unwell(why), _) => Some(super::notice::cut(why)),
        (_, None) => Some("it runs nothing".to_owned()),
        _ => None,
    }
}

impl Control {
    /// What a declaration would do in an environment now.
    pub async fn preview(
        &self,
        declared: &str,
        environment: &str,
    ) -> Result<Preview, ControlError> {
        check_environment(environment)?;
        let declared = self.floored(plan::read(declared)?, environment);
        self.known(&declared)?;
        let (targets, sets) = self.listed(&declared, environment).await?;
        let mut plan = plan::plan(&declared);
        let all = targets.len();
        let names = |range: std::ops::Range<usize>| -> Vec<String> {
            targets.get(range).unwrap_or_default().iter().map(|it| it.name.clone()).collect()
        };
        let fresh = plan.steps.iter().map(|step| names(step.anew(all))).collect();
        for step in &mut plan.steps {
            step.names = names(step.targets.saturating_sub(step.added)..step.targets);
        }
        let all: Vec<String> = targets.iter().map(|it| it.name.clone()).collect();
        let place = place(&declared, environment);
        let seen = self.seen(&declared, &place, &all).await?;
        let pairs = all.into_iter().zip(seen);
        let down = pairs.filter_map(|(name, found)| Some((name, down(found.as_ref())?))).collect();
        Ok(Preview { plan, targets, fresh, down, sets })
    }
}
