//! Rollouts, as programs see them.

use kiln_deploy::rollouts::control::{Listed, Looked, Rollout, Series, Shown, phase, words};
use kiln_deploy::rollouts::machine::{End, Event, Logged, Phase, RolloutState};
use kiln_deploy::rollouts::parts::Target;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::drill::{DrillShown, DrillState};
use super::moment::at;
use super::rollout_plan::RolloutSets;
use super::rollout_step::{RolloutStep, steps};

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutRequest {
    /// The declaration of the rollout, in TOML.
    pub declared: String,
    /// The name of the release, such as `team/app:1.4.2`.
    pub release: String,
    pub environment: String,
    pub reason: String,
    /// A rollout that runs there is reverted first.
    #[serde(default)]
    pub supersede: bool,
    /// Whether the release may be rolled out although it was reverted there before.
    #[serde(default)]
    pub again: bool,
    /// Whether this is a drill, which only proves that its canary would be reverted.
    #[serde(default)]
    pub drill: bool,
    /// Whether the release may be rolled out although a drill is overdue there.
    #[serde(default)]
    pub without_drill: bool,
    /// The release that the rollout returns to, where no rollout has ended well there yet.
    #[serde(default)]
    pub previous: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RolloutSaid {
    Pause,
    Resume,
    /// Lets it into the step at whose gate it waits.
    Promote,
    Abort,
}

/// A rollout whose records cannot be read is given up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutAbandon {
    pub id: String,
    pub reason: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RolloutSay {
    pub id: String,
    pub what: RolloutSaid,
    pub reason: String,
}

/// A rollout in short.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSummary {
    pub id: String,
    pub service: String,
    pub environment: String,
    pub release: String,
    pub digest: String,
    /// The release that the rollout returns to; null: there is nothing.
    pub previous: Option<String>,
    /// `verifying`, `waiting`, `gate`, `applying`, `baking`, `soaking`, `rolling_back`, `succeeded`, `rolled_back`,
    /// `rollback_failed`, `rejected` or `overtaken`.
    pub phase: String,
    pub paused: bool,
    pub ended: bool,
    /// Seconds within which a drill has to be reverted; null: this rollout is no drill.
    pub drill_s: Option<f64>,
    pub targets: usize,
    /// Targets that were told to run the release.
    pub changed: usize,
    pub by: String,
    pub reason: String,
    pub started: String,
    pub updated: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Rollouts {
    /// Rollouts, newest first.
    pub rollouts: Vec<RolloutSummary>,
    /// The state of drills in the places of these rollouts.
    pub drills: Vec<DrillState>,
    /// Ask with it as `before` for those before.
    pub next_before: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutTarget {
    pub name: String,
    /// How the target stands: `settled`, `waits`, `stuck` or `lost`.
    pub standing: String,
    /// The digest of the version that the target is to run.
    pub desired: String,
}

/// One answer of the judge: what was compared, and what followed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutLook {
    pub at: String,
    pub from: String,
    pub step: Option<usize>,
    /// Targets that were compared with as many of the old version.
    pub canary: usize,
    pub baseline: usize,
    /// What the judge said: `promote`, `hold` or `rollback`.
    pub verdict: String,
    pub breach: bool,
    pub reasons: Vec<String>,
    /// The judgement as `kiln judge --json` prints it; null: no signal is declared.
    pub judgement: Value,
    /// The values that were measured of each metric, oldest first; only in the latest look.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub series: Vec<RolloutSeries>,
}

/// A metric's values over the time that was looked at, thinned to at most 120 each.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RolloutSeries {
    pub metric: String,
    /// Values of the canary, one for each moment; null: none was measured then.
    pub canary: Vec<Option<f64>>,
    pub baseline: Vec<Option<f64>>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutEvent {
    pub number: u64,
    pub at: String,
    /// The event as the rollout's log has it.
    pub event: Value,
    /// The event in words; null: it says that something was carried out, which is of no interest by itself.
    pub text: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct RolloutShown {
    #[serde(flatten)]
    pub rollout: RolloutSummary,
    /// The server's clock, by which all times here are.
    #[serde(default)]
    pub now: String,
    pub steps: Vec<RolloutStep>,
    /// When the phase began that the rollout is in.
    pub since: String,
    /// When the next decision is due at the earliest; null: nothing waits for a time.
    pub next: Option<String>,
    pub deadline: Option<String>,
    /// Who has the deploy lock that the rollout waits for, in words; null: it waits for nobody.
    #[serde(default)]
    pub waits_for: Option<String>,
    /// Why the rollout is reverted, in words; null: it is not.
    pub why: Option<String>,
    /// Why the rollout is paused, in words; null: it is not.
    pub paused_why: Option<String>,
    pub extensions: u32,
    /// Seconds from the decision to revert until all targets ran the old version again; null: they do not.
    pub reverted_s: Option<f64>,
    /// How the drill went; null: this rollout is no drill, or has not ended.
    pub drill: Option<DrillShown>,
    /// How many targets may be down or switching at once; null: all of a step.
    #[serde(default)]
    pub unavailable: Option<usize>,
    /// How many targets are down while the next ones wait for that; null: nothing waits for it.
    #[serde(default)]
    pub crowded: Option<usize>,
    /// The two sets of targets, where one serves and the other gets the release; null: there is one.
    #[serde(default)]
    pub sets: Option<RolloutSets>,
    /// Targets that were told to run anything by this rollout.
    pub told: Vec<RolloutTarget>,
    /// The judge's last answers, newest first.
    pub judgements: Vec<RolloutLook>,
    /// The latest look at the signals, whether or not the judge was asked.
    pub latest: Option<RolloutLook>,
    /// The last events of the rollout, oldest first.
    pub events: Vec<RolloutEvent>,
}

impl RolloutSummary {
    fn new(it: &Rollout, state: (String, bool, bool), changed: usize, updated: u64) -> Self {
        let (phase, paused, ended) = state;
        Self {
            id: it.id.clone(),
            service: it.place.service.clone(),
            environment: it.place.environment.clone(),
            release: it.release.to_string(),
            digest: it.spec.new.to_string(),
            previous: it.previous.as_ref().map(|it| it.release.to_string()),
            phase,
            paused,
            ended,
            drill_s: it.drill.map(|budget| budget as f64 / 1_000.0),
            targets: it.targets,
            changed,
            by: it.by.clone(),
            reason: it.reason.clone(),
            started: at(it.at),
            updated: at(updated),
        }
    }
}

impl From<&Listed> for RolloutSummary {
    fn from(Listed { rollout, head }: &Listed) -> Self {
        let state = (head.phase.clone(), head.paused, head.ended);
        Self::new(rollout, state, head.changed, head.updated)
    }
}

impl From<&Looked> for RolloutLook {
    fn from(it: &Looked) -> Self {
        let verdict = serde_json::to_value(it.verdict).unwrap_or_default();
        Self {
            at: at(it.at),
            from: at(it.from),
            step: it.step,
            canary: it.canary,
            baseline: it.baseline,
            verdict: verdict.as_str().unwrap_or_default().to_owned(),
            breach: it.breach,
            reasons: it.reasons.clone(),
            judgement: it.judgement.clone(),
            series: Vec::new(),
        }
    }
}

impl RolloutLook {
    /// A look with the values that were measured, which are too much for each of many looks.
    fn drawn(it: &Looked) -> Self {
        let series = |it: &Series| RolloutSeries {
            metric: it.metric.clone(),
            canary: it.canary.clone(),
            baseline: it.baseline.clone(),
        };
        Self { series: it.series.iter().map(series).collect(), ..Self::from(it) }
    }
}

impl From<&Shown> for RolloutShown {
    fn from(it: &Shown) -> Self {
        let state = &it.state;
        let ended = matches!(state.phase, Phase::Ended(_));
        let of = (phase(state.phase), state.paused.is_some(), ended);
        let updated = it.log.last().map_or(it.rollout.at, |logged| logged.at);
        let deadline = (state.is_forward() && state.paused.is_none()).then(|| at(state.deadline));
        Self {
            rollout: RolloutSummary::new(&it.rollout, of, state.changed(), updated),
            now: at(it.now),
            steps: steps(it),
            since: at(state.since),
            next: next(state).map(at),
            deadline,
            waits_for: it.waits_for.clone(),
            why: state.why.as_ref().map(|why| words::why(why, &it.targets)),
            paused_why: state.paused.and_then(|_| paused_why(&it.log)),
            extensions: state.extensions,
            reverted_s: reverted(&it.log),
            drill: it.drill.as_ref().map(DrillShown::from),
            unavailable: state.spec.unavailable,
            crowded: state.crowded,
            sets: it.rollout.sets.as_ref().map(RolloutSets::from),
            told: told(state, &it.targets),
            judgements: it.judgements.iter().map(RolloutLook::from).collect(),
            latest: it.latest.as_ref().map(RolloutLook::drawn),
            events: events(it),
        }
    }
}

fn paused_why(log: &[Logged]) -> Option<String> {
    log.iter().rev().find_map(|logged| match &logged.event {
        Event::Paused(why) | Event::Frozen(why) => Some(why.clone()),
        _ => None,
    })
}

fn events(it: &Shown) -> Vec<RolloutEvent> {
    let event = |(number, logged): (u64, &Logged)| {
        let event = serde_json::to_value(&logged.event).unwrap_or_default();
        let text = words::event(&logged.event, &it.rollout, &it.targets);
        RolloutEvent { number, at: at(logged.at), event, text }
    };
    (it.first..).zip(&it.log).map(event).collect()
}

/// Seconds that the revert took, from its decision to its end; `None`: it did not end, or there was none.
fn reverted(log: &[Logged]) -> Option<f64> {
    let of = |wanted: fn(&Event) -> bool| log.iter().find(|it| wanted(&it.event)).map(|it| it.at);
    let began = of(|event| matches!(event, Event::RollbackBegan(_)))?;
    let ended = of(|event| matches!(event, Event::Ended(End::RolledBack)))?;
    Some(ended.saturating_sub(began) as f64 / 1_000.0)
}

/// When time alone may change something, in Unix milliseconds; `None`: nothing waits for a time.
fn next(state: &RolloutState) -> Option<u64> {
    if state.paused.is_some() {
        return None;
    }
    match state.phase {
        Phase::Baking(step) => Some(state.since.saturating_add(state.spec.steps.get(step)?.bake)),
        Phase::Soaking => Some(state.since.saturating_add(state.spec.soak)),
        _ => None,
    }
}

fn told(state: &RolloutState, targets: &[Target]) -> Vec<RolloutTarget> {
    let target = |(id, target): (&u32, &kiln_deploy::rollouts::machine::Target)| {
        let name = usize::try_from(*id).ok().and_then(|at| targets.get(at));
        let standing = match target {
            it if it.is_settled() => "settled",
            it if it.is_lost() => "lost",
            it if it.is_stuck() => "stuck",
            _ => "waits",
        };
        RolloutTarget {
            name: name.map(|it| it.name.clone()).unwrap_or_default(),
            standing: standing.to_owned(),
            desired: target.desired.version.to_string(),
        }
    };
    state.targets.iter().map(target).collect()
}
