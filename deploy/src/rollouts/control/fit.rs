//! What is found out before a rollout begins: whether its declaration can be driven, and with which targets.

use std::collections::HashMap;
use std::sync::Arc;

use super::asked::Start;
use super::error::{ControlError, unasked};
use super::kept::{Good, Rollout, Sets};
use super::{Control, drill, notice};
use crate::oci::ContentDigest;
use crate::rollouts::machine::{Millis, Spec, StepSpec, TargetId};
use crate::rollouts::parts::{Observation, Place, Selector, Standing, Target};
use crate::rollouts::plan::{self, By, Declared, Plan, Strategy};

/// Targets of one rollout that a server drives.
pub const MAX_TARGETS: usize = 20_000;

/// What has been found out before anything is written.
pub struct Fit {
    pub declared: Declared,
    pub plan: Plan,
    /// Targets in the order in which they get the release; of two sets the idle one comes first.
    pub targets: Vec<Target>,
    pub sets: Option<Sets>,
    pub version: ContentDigest,
    /// When the release was made; `None`: that is not known.
    pub made: Option<Millis>,
}

pub fn place(declared: &Declared, environment: &str) -> Place {
    let service = declared.driving.service.clone();
    Place { service, environment: environment.to_owned() }
}

fn unfit<T>(text: &str) -> Result<T, ControlError> {
    Err(ControlError::Unfit(text.to_owned()))
}

impl Control {
    /// Reads the declaration, asks for the targets and after the release.
    pub(super) async fn fit(&self, ask: &Start) -> Result<Fit, ControlError> {
        let declared = self.floored(plan::read(&ask.declared)?, &ask.environment);
        self.known(&declared)?;
        let version = match self.standing(&ask.release, &ask.environment).await? {
            Standing::Free(version) => version,
            Standing::Frozen(_, why) => return Err(ControlError::Frozen(why)),
            Standing::Refused(why) | Standing::Unlisted(why) => {
                return Err(ControlError::Refused(why));
            }
        };
        // What a drill delivers was not promoted, and is bad on purpose.
        self.verified(&ask.release, &ask.environment, !ask.drill).await?;
        let (targets, sets) = self.listed(&declared, &ask.environment).await?;
        if let Some(why) = sets.as_ref().and_then(Sets::lacks) {
            return Err(ControlError::Refused(why));
        }
        let plan = plan::plan(&declared);
        let whole = plan.steps.first().is_none_or(|it| it.targets >= plan.targets);
        if ask.drill && plan.targets > 1 && whole && sets.is_none() {
            let message = "a drill needs a first step of fewer than all targets";
            return Err(ControlError::Refused(message.to_owned()));
        }
        let made = self.parts.releases.made(&ask.release).await.map_err(unasked)?;
        Ok(Fit { declared, plan, targets, sets, version, made })
    }

    /// The operator's floor holds besides what is declared. Beside those that serve nothing that is up is touched.
    pub(super) fn floored(&self, mut declared: Declared, environment: &str) -> Declared {
        let floor = self.parts.stay_up.get(environment);
        if let Some(floor) = floor.filter(|_| !declared.strategy.is_beside()) {
            declared.pace.stay_up = declared.pace.stay_up.max(*floor);
        }
        declared
    }

    /// Checks that everything that the declaration names is there, and can be driven.
    pub(super) fn known(&self, declared: &Declared) -> Result<(), ControlError> {
        let driving = &declared.driving;
        let unknown = |what: &str, name: &str, known: Vec<&String>| {
            let known = known.into_iter().map(String::as_str).collect::<Vec<_>>().join(", ");
            let known = if known.is_empty() { "none".to_owned() } else { known };
            ControlError::NoPart(format!(
                "this server has no {what} {:?}; it has {known}",
                notice::cut(name)
            ))
        };
        if !self.parts.targets.contains_key(&driving.from) {
            let known = self.parts.targets.keys().collect();
            return Err(unknown("targets", &driving.from, known));
        }
        if let Some(name) =
            driving.traffic.as_ref().filter(|it| !self.parts.traffic.contains_key(*it))
        {
            return Err(unknown("traffic", name, self.parts.traffic.keys().collect()));
        }
        for asked in &declared.judging.asked {
            if !self.parts.signals.contains_key(&asked.source) {
                let known = self.parts.signals.keys().collect();
                return Err(unknown("signals", &asked.source, known));
            }
        }
        let splits = driving.traffic.is_some();
        match &declared.strategy {
            Strategy::Canary { by: By::Both, .. } if !splits => {
                unfit("by = \"both\" needs traffic: who splits the requests")
            }
            it if it.is_beside() && !splits => {
                unfit("blue-green and by = \"traffic\" need traffic: who switches the requests")
            }
            it if it.is_beside() && declared.sets.is_none() => unfit(
                "blue-green and by = \"traffic\" need colour: the label of targets that tells the two sets apart",
            ),
            _ => Ok(()),
        }
    }

    /// The targets that are there, in the order in which they get the release.
    pub(super) async fn listed(
        &self,
        declared: &Declared,
        environment: &str,
    ) -> Result<(Vec<Target>, Option<Sets>), ControlError> {
        let driving = &declared.driving;
        let place = place(declared, environment);
        let selector = Selector { place: place.clone(), labels: driving.labels.clone() };
        let Some(from) = self.parts.targets.get(&driving.from) else {
            return Ok((Vec::new(), None));
        };
        let listed = from.list(&selector).await.map_err(|source| ControlError::Part {
            what: format!("the targets of {:?}", driving.from),
            source,
        })?;
        if listed.len() > MAX_TARGETS {
            let message = format!("{} targets; at most {MAX_TARGETS} are driven", listed.len());
            return Err(ControlError::Unfit(message));
        }
        if listed.is_empty() && !driving.labels.is_empty() {
            let message = format!("no target of {} has all of these labels", selector.place);
            return Err(ControlError::Unfit(message));
        }
        if let Some(sets) = &declared.sets {
            let (targets, found) = self.two_sets(declared, sets, &place, listed).await?;
            return Ok((targets, Some(found)));
        }
        let targets = match &declared.targets {
            plan::Targets::Count(count) if *count == listed.len() => Ok(listed),
            plan::Targets::Count(count) => Err(ControlError::Unfit(format!(
                "the declaration says {count} targets, and {:?} has {} of {}: name them, or correct the number",
                driving.from,
                listed.len(),
                selector.place,
            ))),
            plan::Targets::Named(names) => named(names, listed),
        };
        Ok((targets?, None))
    }

    /// How the targets of these names are, as far as they answer.
    pub(super) async fn seen(
        &self,
        declared: &Declared,
        place: &Place,
        names: &[String],
    ) -> Result<Vec<Option<Observation>>, ControlError> {
        let from = &declared.driving.from;
        let Some(part) = self.parts.targets.get(from) else { return Ok(Vec::new()) };
        part.observe(place, names).await.map_err(|source| ControlError::Part {
            what: format!("the targets of {from:?}"),
            source,
        })
    }
}

/// The targets of these names, each of which has to be there.
fn named(names: &[String], listed: Vec<Target>) -> Result<Vec<Target>, ControlError> {
    let mut known: HashMap<String, Target> =
        listed.into_iter().map(|it| (it.name.clone(), it)).collect();
    let missing =
        |name: &String| ControlError::Unfit(format!("there is no target {:?}", notice::cut(name)));
    names.iter().map(|name| known.remove(name).ok_or_else(|| missing(name))).collect()
}

/// The rollout that is begun.
pub fn made(
    fit: &Fit,
    ask: &Start,
    previous: Option<Good>,
    (id, at): (String, Millis),
) -> Result<Rollout, ControlError> {
    let drill = ask.drill.then(|| {
        let budget = fit.declared.driving.drill_budget;
        u64::try_from(budget.as_millis()).unwrap_or(u64::MAX)
    });
    let whole = spec(fit, previous.as_ref())?;
    let spec = match drill {
        Some(budget) => drill::shortened(whole, budget),
        None => whole,
    };
    Ok(Rollout {
        id,
        place: place(&fit.declared, &ask.environment),
        release: ask.release.clone(),
        spec: Arc::new(spec),
        previous,
        steps: fit.plan.steps.iter().map(|step| step.name.clone()).collect(),
        declared: ask.declared.clone(),
        targets: fit.targets.len(),
        by: ask.by.clone(),
        reason: ask.reason.clone(),
        at,
        made: fit.made,
        drill,
        sets: fit.sets.clone(),
    })
}

fn spec(fit: &Fit, previous: Option<&Good>) -> Result<Spec, ControlError> {
    let millis = |seconds: u64| seconds.saturating_mul(1_000);
    let id = |at: usize| TargetId::try_from(at).unwrap_or(TargetId::MAX);
    let all = fit.targets.len();
    let mut next = 0;
    let steps = fit.plan.steps.iter().map(|step| {
        let first = next;
        next += step.added;
        StepSpec {
            targets: (first..next).map(id).collect(),
            bake: millis(step.bake_s),
            gate: step.gate,
            // From 0 to 10,000.
            traffic: step.traffic.map(|share| (share * 100.0).round().clamp(0.0, 10_000.0) as u32),
            fresh: step.anew(all).map(id).collect(),
        }
    });
    let steps = steps.collect();
    let allowed = fit.declared.pace.allowed(all);
    let unavailable = allowed.map_err(|none| ControlError::Unfit(none.to_string()))?;
    Ok(Spec {
        old: previous.map(|it| it.version.clone()),
        new: fit.version.to_string().into(),
        steps,
        soak: millis(fit.plan.soak_s),
        deadline: millis(fit.plan.deadline_s),
        limits: fit.declared.driving.limits,
        unavailable,
        beside: fit.plan.beside,
    })
}
