//! Runs of pipelines, as programs see them.

use std::collections::{BTreeMap, HashSet};

use kiln_ci::model::Time;
use kiln_ci::pipelines::control::{Head, Listed, Run, Shown, Stands};
use kiln_ci::pipelines::machine::{RunState, Skip, Standing, StopWhy};
use kiln_ci::pipelines::{Stage, Work, critical_path, needs};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::moment::at;

/// What begins a run: a whole file, or the name of a pipeline that the server's operator declares.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct PipelineRequest {
    /// The file that declares the pipeline, in TOML; null: `name` says which one is meant.
    pub text: Option<String>,
    pub name: Option<String>,
    /// `push` or `webhook`, of a pipeline that is declared and waits for that; null: somebody wants it.
    pub trigger: Option<String>,
    /// The instance whose store has sources and outputs, and whose roles count.
    pub instance: String,
    /// The digest of the sources' root directory in the store, `HASH/SIZE`.
    pub root: Option<String>,
    pub repository: Option<String>,
    pub branch: String,
    pub commit: String,
    pub inputs: BTreeMap<String, String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PipelineSaid {
    Cancel,
    /// Whatever did not pass is done again.
    Resume,
    Approve,
    Refuse,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineSay {
    pub id: String,
    pub what: PipelineSaid,
    /// The stage that asks; null: the only one.
    #[serde(default)]
    pub stage: Option<String>,
    #[serde(default)]
    pub reason: String,
}

/// A run whose records cannot be read is given up.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PipelineAbandon {
    pub id: String,
    pub reason: String,
}

/// A run of a pipeline in short.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PipelineRun {
    pub id: String,
    pub pipeline: String,
    pub instance: String,
    /// `queued`, `running`, `asking`, `stopping`, `passed`, `failed`, `cancelled` or `superseded`.
    pub stands: String,
    pub ended: bool,
    /// `manual`, `push`, `schedule`, `release` or `webhook`.
    pub trigger: String,
    pub branch: String,
    pub commit: String,
    pub by: String,
    pub created: String,
    /// When the run's turn came; null: it has not.
    pub began: Option<String>,
    pub finished: Option<String>,
    /// The group whose runs take turns.
    pub group: Option<String>,
    pub stages: usize,
    pub passed: usize,
    pub failed: usize,
    pub skipped: usize,
    pub running: usize,
    /// How often the run was resumed.
    pub resumed: u32,
}

/// A pipeline that the server's operator declares.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PipelineDeclared {
    pub name: String,
    pub description: String,
    /// When a schedule is due next; null: it has none.
    pub next: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Pipelines {
    /// Runs, newest first.
    pub runs: Vec<PipelineRun>,
    pub declared: Vec<PipelineDeclared>,
    /// Ask with it as `before` for those before.
    pub next_before: Option<String>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PipelineLink {
    pub name: String,
    pub address: String,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PipelineStage {
    pub name: String,
    /// `command`, `build`, `test`, `release`, `promote`, `rollout`, `approve`, `program`, `preview` or `wait`.
    pub kind: String,
    /// `waiting`, `running`, `cancelling`, `asking`, `pausing`, `passed`, `failed`, `left_out`, `not_needed`, `blocked` or
    /// `cancelled`.
    pub stands: String,
    /// Indexes of stages that have to end before it.
    pub needs: Vec<u32>,
    /// How many attempts at the stage there were so far.
    pub attempts: u32,
    pub started: Option<String>,
    pub ended: Option<String>,
    /// Seconds that the stage took so far, from its first attempt on.
    pub took_s: f64,
    /// Seconds from the beginning of the run to that of the stage.
    pub after_s: f64,
    /// Whether the stage is on the way that makes the run take as long as it does.
    pub critical: bool,
    /// Why the stage failed, pauses or was left out; what people are asked; what it does now. Null: there is nothing to
    /// say.
    pub reason: Option<String>,
    /// Who has approved of the stage.
    pub approved: Vec<String>,
    /// What the stage told those behind it, by name.
    pub told: BTreeMap<String, String>,
    pub links: Vec<PipelineLink>,
}

#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PipelineShown {
    pub run: PipelineRun,
    pub description: String,
    pub inputs: BTreeMap<String, String>,
    /// Why the run is ended before its stages have; null: it is not.
    pub stopped: Option<String>,
    pub stages: Vec<PipelineStage>,
    /// Seconds since the run began, so far.
    pub took_s: f64,
}

/// A part of what an attempt printed.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct PipelineLog {
    pub text: String,
    /// Ask with it as `offset` for what comes next.
    pub next: u64,
    /// Whether the log is complete, so that nothing comes behind `text` any more.
    pub ended: bool,
}

impl From<&Listed> for PipelineRun {
    fn from(it: &Listed) -> Self {
        summary(&it.run, &it.head)
    }
}

fn summary(run: &Run, head: &Head) -> PipelineRun {
    let time = |it: Option<Time>| it.map(|it| at(it.0));
    PipelineRun {
        id: run.id.clone(),
        pipeline: run.pipeline.clone(),
        instance: run.instance.clone(),
        stands: head.stands.word().to_owned(),
        ended: head.stands.is_end(),
        trigger: run.trigger.clone(),
        branch: run.branch.clone(),
        commit: run.commit.clone(),
        by: run.by.clone(),
        created: at(run.at.0),
        began: time(head.began),
        finished: time(head.ended),
        group: run.group.clone(),
        stages: run.stages,
        passed: head.passed,
        failed: head.failed,
        skipped: head.skipped,
        running: head.running,
        resumed: head.resumed,
    }
}

impl From<&Shown> for PipelineShown {
    fn from(it: &Shown) -> Self {
        let state = &it.state;
        let took: Vec<u64> = (0..state.stages.len()).map(|at| millis(state, at, it.now)).collect();
        let path = critical_path(&needs(&state.spec.stages), &took);
        let path: HashSet<usize> = path.into_iter().collect();
        let stage = |(at, plan): (usize, &Stage)| {
            let line = u32::try_from(at).ok().and_then(|at| it.lines.get(&at));
            stage(state, (at, plan), path.contains(&at), line, it.now)
        };
        let began = state.began.unwrap_or(it.now);
        let ended = state.ended.unwrap_or(it.now);
        Self {
            run: summary(&it.run, &Head::of(state)),
            description: it.run.description.clone(),
            inputs: it.run.inputs.clone(),
            stopped: state.stop.as_ref().map(|it| stopped(&it.why)),
            stages: state.spec.stages.iter().enumerate().filter_map(stage).collect(),
            took_s: ended.since(began).as_secs_f64(),
        }
    }
}

fn stopped(why: &StopWhy) -> String {
    match why {
        StopWhy::Cancelled { by, reason } => format!("{by} cancelled it: {reason}"),
        StopWhy::Superseded { run } => format!("the run {run} took its place"),
        StopWhy::Late => "it took longer than it may".to_owned(),
        StopWhy::Fault { reason } => reason.clone(),
    }
}

/// A time as all answers have it.
pub fn pipeline_time(time: Time) -> String {
    at(time.0)
}

/// Milliseconds that a stage took so far. What waits counts a little, so that the way goes on to the end.
fn millis(state: &RunState, at: usize, now: Time) -> u64 {
    let Some(stage) = state.stages.get(at) else { return 0 };
    match (stage.started, &stage.standing) {
        (Some(started), _) => {
            let took = stage.ended.unwrap_or(now).since(started).as_millis();
            u64::try_from(took).unwrap_or(u64::MAX).max(1)
        }
        (None, Standing::Skipped(_)) => 0,
        (None, _) => 1,
    }
}

fn stage(
    state: &RunState,
    (at_, plan): (usize, &Stage),
    critical: bool,
    line: Option<&String>,
    now: Time,
) -> Option<PipelineStage> {
    let is = state.stages.get(at_)?;
    let began = state.began.or(is.started).unwrap_or(now);
    let started = is.started.unwrap_or(now);
    let (stands, reason) = words(plan, &is.standing);
    let link = |(name, address): &(String, String)| PipelineLink {
        name: name.clone(),
        address: address.clone(),
    };
    Some(PipelineStage {
        name: plan.name.clone(),
        kind: plan.work.kind().to_owned(),
        stands: stands.to_owned(),
        needs: plan.needs.clone(),
        attempts: is.attempts,
        started: is.started.map(|it| at(it.0)),
        ended: is.ended.map(|it| at(it.0)),
        took_s: is.ended.unwrap_or(now).since(started).as_secs_f64(),
        after_s: started.since(began).as_secs_f64(),
        critical,
        reason: reason.or_else(|| line.cloned()),
        approved: is.approved.clone(),
        told: is.told.clone(),
        links: is.links.iter().map(link).collect(),
    })
}

/// How a stage stands, as the API names it, and why.
fn words(plan: &Stage, standing: &Standing) -> (&'static str, Option<String>) {
    match standing {
        Standing::Waiting => ("waiting", None),
        Standing::Running(running) if running.cancelled.is_some() => ("cancelling", None),
        Standing::Running(_) => ("running", None),
        Standing::Asking { .. } => {
            let asked = match &plan.work {
                Work::Approve(asked) if !asked.message.is_empty() => Some(asked.message.clone()),
                _ => None,
            };
            ("asking", asked)
        }
        Standing::Pausing { until, reason } => {
            ("pausing", Some(format!("{reason}; again at {}", at(until.0))))
        }
        Standing::Passed => ("passed", None),
        Standing::Failed { reason } => ("failed", Some(reason.clone())),
        Standing::Skipped(Skip::LeftOut) => ("left_out", plan.left_out.clone()),
        Standing::Skipped(Skip::NotNeeded) => ("not_needed", None),
        Standing::Skipped(Skip::Blocked) => {
            ("blocked", Some("what it needs did not pass".to_owned()))
        }
        Standing::Skipped(Skip::Cancelled) => ("cancelled", None),
    }
}

impl PipelineShown {
    /// Whether the run ended well; `None`: it has not ended.
    pub fn passed(&self) -> Option<bool> {
        self.run.ended.then(|| self.run.stands == Stands::Passed.word())
    }
}
