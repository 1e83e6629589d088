//! Looks at both versions: when the judge is asked, and in between for what needs none.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;

use super::Control;
use super::burn::{STANDARD, burn};
use super::driver::{Driver, Looking};
use super::judging::{CRASH_LOOP, Sight, judged};
use super::kept::Looked;
use crate::judge;
use crate::oci::ContentDigest;
use crate::rollouts::machine::{Effect, Millis, Phase, TargetId};
use crate::rollouts::parts::{Asked, Cohort, Cohorts, Health, Measured, Place, Target, Window};
use crate::rollouts::plan::{self, Declared};

/// Intervals that are asked for at most: metrics servers refuse more of a series.
const MAX_INTERVALS: Millis = 10_000;
/// All requests, in hundredths of a percent.
const WHOLE: u32 = 10_000;

impl Driver {
    /// Begins to look, if it is time to and nobody looks. It holds nothing up.
    pub(super) fn begin_look(&mut self, now: Millis) {
        let state = &self.open.state;
        let judge = state.pending.iter().find(|(_, effect)| **effect == Effect::Judge);
        let judge = judge.map(|(id, _)| *id);
        let watch = u64::try_from(self.declared.driving.watch.as_millis()).unwrap_or(u64::MAX);
        let due = judge.is_some() || now >= self.looked_at.saturating_add(watch);
        if self.looking.is_some() || !state.is_forward() || state.watched == 0 || !due {
            return;
        }
        let Some(sight) = self.sight(now) else { return };
        self.looked_at = now;
        let (control, declared) = (self.control.clone(), self.declared.clone());
        let place = self.open.rollout.place.clone();
        let (answered, answer) = oneshot::channel();
        let looked = self.looked.clone();
        let task = tokio::spawn(async move {
            // Whoever asked may be gone.
            let _ = answered.send(look(&control, &declared, place, sight).await);
            looked.notify_one();
        });
        self.looking = Some(Looking { task, answer, judge });
    }

    /// The step that is, or was last, watched.
    fn watched_step(&self) -> Option<usize> {
        match self.open.state.phase {
            Phase::Gate(step) | Phase::Applying(step) => step.checked_sub(1),
            Phase::Baking(step) => Some(step),
            Phase::Soaking => self.open.rollout.spec.steps.len().checked_sub(1),
            _ => None,
        }
    }

    /// Says which targets are compared with which.
    fn sight(&self, now: Millis) -> Option<Sight> {
        let rollout = &self.open.rollout;
        let step = self.watched_step()?;
        let steps = rollout.spec.steps.get(..=step)?;
        let ids: Vec<_> = steps.iter().flat_map(|step| step.targets.iter().copied()).collect();
        let target = |id: &u32| self.targets.get(usize::try_from(*id).ok()?).cloned();
        let canary: Vec<Target> = ids.iter().filter_map(target).collect();
        let version = rollout.spec.new.parse::<ContentDigest>().ok()?;
        let old = rollout.spec.old.as_ref().and_then(|old| old.parse::<ContentDigest>().ok());
        let share = rollout.spec.steps.get(step).and_then(|step| step.traffic);
        let share = share.filter(|_| rollout.spec.beside);
        let baseline = match old {
            // Nobody is asked there any more.
            Some(_) if share != Some(WHOLE) => self.baseline(step, canary.len()),
            _ => Vec::new(),
        };
        let known = ids.iter().filter_map(|id| Some((id, self.known.get(id)?)));
        let unwell = known.clone().filter_map(|(id, found)| match &found.health {
            Health::Unwell(why) => Some(format!("{} is not well: {why}", target(id)?.name)),
            _ => None,
        });
        let crashes = known.clone().map(|(_, found)| found.crashes).max().unwrap_or(0);
        // What a drill finds is what a canary would be that does not stay up.
        let crashes = rollout.drill.map_or(crashes, |_| CRASH_LOOP);
        Some(Sight {
            now,
            from: self.open.state.watched,
            step,
            crashes,
            unwell: unwell.collect(),
            quiet: share == Some(0),
            cohorts: Cohorts {
                baseline: Cohort {
                    version: old.unwrap_or_else(|| version.clone()),
                    targets: baseline,
                },
                canary: Cohort { version, targets: canary },
            },
        })
    }

    /// Targets with the old version, as many as the canary has: those that were started anew with it where that is
    /// declared, else the first that are untouched.
    fn baseline(&self, step: usize, most: usize) -> Vec<Target> {
        let (spec, touched) = (&self.open.rollout.spec, &self.open.state.targets);
        let ids: Vec<TargetId> = match spec.is_fresh() {
            true => {
                let anew = |id: &TargetId| {
                    touched.get(id).is_some_and(|it| it.is_settled() && !it.was_new)
                };
                spec.cohort(step).into_iter().filter(anew).collect()
            }
            false => {
                (0..).take(self.targets.len()).filter(|id| !touched.contains_key(id)).collect()
            }
        };
        let target = |id: TargetId| self.targets.get(usize::try_from(id).ok()?).cloned();
        ids.into_iter().filter_map(target).take(most).collect()
    }
}

/// The interval that is declared, or a longer one where a time is too long for that: a soak of days is judged as well.
fn interval(declared: Duration, time: Millis) -> Duration {
    declared.max(Duration::from_millis(time.div_ceil(MAX_INTERVALS)))
}

/// Asks every signal at once.
async fn look(control: &Arc<Control>, declared: &Declared, place: Place, sight: Sight) -> Looked {
    let judging = &declared.judging;
    if sight.quiet {
        return judged(judging, &sight, Vec::new(), Vec::new());
    }
    let step = interval(judging.interval, sight.now.saturating_sub(sight.from));
    let window = Window { from: sight.from, to: sight.now, step };
    let question = |of: &plan::Asked| Asked {
        place: place.clone(),
        metric: of.metric.clone(),
        query: of.query.clone(),
        cohorts: sight.cohorts.clone(),
        window,
    };
    let mut asking = Vec::with_capacity(judging.asked.len());
    for of in &judging.asked {
        asking.push(measured(control, of, question(of)));
    }
    let answers = futures_util::future::join_all(asking).await;
    let (measured, burns): (Vec<_>, Vec<_>) = answers.into_iter().unzip();
    judged(judging, &sight, measured, burns.into_iter().flatten().collect())
}

/// What one signal says, and how its budget burns where it has one.
async fn measured(
    control: &Control,
    of: &plan::Asked,
    question: Asked,
) -> (Measured, Vec<judge::Burn>) {
    let Some(source) = control.parts.signals.get(&of.source) else {
        let why = format!("the server has no signals {:?}", of.source);
        return (Measured::Failed(why), Vec::new());
    };
    let measured = source.measure(&question).await;
    let Some(objective) = of.objective else { return (measured, Vec::new()) };
    match burn(&**source, &question, objective, &STANDARD).await {
        Ok(burns) => (measured, burns),
        Err(why) => (Measured::Failed(why), Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_soak_has_longer_intervals() {
        let ten = Duration::from_secs(10);
        assert_eq!(interval(ten, 3_600_000), ten);
        let week: Millis = 7 * 86_400_000;
        let longer = interval(ten, week);
        assert!(week / longer.as_millis() as u64 <= MAX_INTERVALS, "{longer:?}");
    }
}
