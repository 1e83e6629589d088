//! What a run is, after the events that happened.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::event::{End, Event, Logged, Skip, StopWhy};
use super::spec::{Spec, index};
use crate::model::Time;
use crate::pipelines::runner::Outcome;
use crate::pipelines::stage::{RetryOn, Stage, Work};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// The run waits for its turn.
    Queued,
    Running,
    Ended(End),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    pub why: StopWhy,
    pub at: Time,
}

/// An attempt that may run somewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Running {
    pub attempt: u32,
    pub since: Time,
    /// Since when the attempt is to end; `None`: it goes on.
    pub cancelled: Option<Time>,
    pub timed_out: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Standing {
    /// The stage waits for what it needs, or for room.
    Waiting,
    Running(Running),
    /// The stage waits for people.
    Asking {
        since: Time,
    },
    /// The stage waits for its next attempt.
    Pausing {
        until: Time,
        reason: String,
    },
    Passed,
    Failed {
        reason: String,
    },
    Skipped(Skip),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StageState {
    pub standing: Standing,
    /// Stages that it needs and that have not ended.
    pub open: u32,
    /// Attempts that were started.
    pub attempts: u32,
    /// How many of these were before the run was resumed.
    pub before: u32,
    /// When the first attempt since then began; `None`: none has.
    pub started: Option<Time>,
    pub ended: Option<Time>,
    /// What the stage told when it passed.
    pub told: BTreeMap<String, String>,
    pub links: Vec<(String, String)>,
    /// Accounts that have approved of the stage.
    pub approved: Vec<String>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunState {
    pub spec: Arc<Spec>,
    /// How many events of the run have happened.
    pub length: u64,
    pub phase: Phase,
    pub stop: Option<Stop>,
    pub stages: Vec<StageState>,
    pub began: Option<Time>,
    pub ended: Option<Time>,
    pub resumed: u32,
    /// Stages whose needs have all ended, and that wait.
    pub(super) ready: BTreeSet<usize>,
    pub(super) running: BTreeSet<usize>,
    pub(super) asking: BTreeSet<usize>,
    pub(super) pausing: BTreeSet<usize>,
    /// Stages that have not ended.
    pub(super) open: usize,
}

impl Standing {
    pub fn is_end(&self) -> bool {
        matches!(self, Self::Passed | Self::Failed { .. } | Self::Skipped(_))
    }
}

impl RunState {
    pub fn new(spec: Arc<Spec>) -> Self {
        let stage = |stage: &Stage| StageState {
            standing: Standing::Waiting,
            open: u32::try_from(stage.needs.len()).unwrap_or(u32::MAX),
            attempts: 0,
            before: 0,
            started: None,
            ended: None,
            told: BTreeMap::new(),
            links: Vec::new(),
            approved: Vec::new(),
        };
        let stages: Vec<_> = spec.stages.iter().map(stage).collect();
        let free = |(at, stage): (usize, &StageState)| (stage.open == 0).then_some(at);
        let ready = stages.iter().enumerate().filter_map(free).collect();
        Self {
            length: 0,
            phase: Phase::Queued,
            stop: None,
            began: None,
            ended: None,
            resumed: 0,
            ready,
            running: BTreeSet::new(),
            asking: BTreeSet::new(),
            pausing: BTreeSet::new(),
            open: stages.len(),
            stages,
            spec,
        }
    }

    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Ended(_))
    }

    /// Attempts that a runner has to have, with the index of their stage.
    pub fn running(&self) -> impl Iterator<Item = (usize, Running)> {
        self.running.iter().filter_map(|at| match self.stages.get(*at)?.standing {
            Standing::Running(running) => Some((*at, running)),
            _ => None,
        })
    }

    /// Whether a stage that has ended lets those behind it begin as if it had passed.
    pub fn is_good(&self, at: usize) -> bool {
        let may_fail = self.spec.stages.get(at).is_some_and(|it| it.may_fail);
        match self.stages.get(at).map(|it| &it.standing) {
            Some(Standing::Passed | Standing::Skipped(Skip::LeftOut | Skip::NotNeeded)) => true,
            Some(Standing::Failed { .. }) => may_fail,
            _ => false,
        }
    }

    pub fn apply(&mut self, logged: &Logged) {
        let at = logged.at;
        self.length += 1;
        match &logged.event {
            Event::Began => {
                self.phase = Phase::Running;
                self.began = Some(at);
            }
            Event::Started { stage, attempt } => self.start(index(*stage), *attempt, at),
            Event::Ended { stage, attempt, outcome, links } => {
                self.end_attempt(index(*stage), *attempt, outcome, links, at);
            }
            Event::Skipped { stage, why } => {
                self.end(index(*stage), Standing::Skipped(*why), at);
            }
            Event::TimedOut { stage } => self.time_out(index(*stage), at),
            Event::Approved { stage, by, .. } => self.approve(index(*stage), by, at),
            Event::Refused { stage, by, reason } => {
                let reason = format!("{by} refused: {reason}");
                self.end(index(*stage), Standing::Failed { reason }, at);
            }
            Event::Stopped(why) => {
                self.stop = Some(Stop { why: why.clone(), at });
                for stage in self.running.clone() {
                    self.cancel(stage, at, false);
                }
            }
            Event::Resumed { .. } => self.resume(),
            Event::Finished { end } => {
                self.phase = Phase::Ended(*end);
                self.ended = Some(at);
            }
        }
    }

    fn start(&mut self, at: usize, attempt: u32, now: Time) {
        self.ready.remove(&at);
        self.pausing.remove(&at);
        let asks = matches!(self.spec.stages.get(at).map(|it| &it.work), Some(Work::Approve(_)));
        let Some(stage) = self.stages.get_mut(at) else { return };
        stage.attempts = attempt;
        stage.started.get_or_insert(now);
        if asks {
            stage.standing = Standing::Asking { since: now };
            self.asking.insert(at);
            return;
        }
        let running = Running { attempt, since: now, cancelled: None, timed_out: false };
        stage.standing = Standing::Running(running);
        self.running.insert(at);
    }

    fn cancel(&mut self, at: usize, now: Time, timed_out: bool) {
        let Some(StageState { standing: Standing::Running(running), .. }) = self.stages.get_mut(at)
        else {
            return;
        };
        running.cancelled.get_or_insert(now);
        running.timed_out |= timed_out;
    }

    fn time_out(&mut self, at: usize, now: Time) {
        if self.asking.contains(&at) {
            let reason = "nobody approved it in time".to_owned();
            return self.end(at, Standing::Failed { reason }, now);
        }
        self.cancel(at, now, true);
    }

    fn approve(&mut self, at: usize, by: &str, now: Time) {
        let Some(Work::Approve(asked)) = self.spec.stages.get(at).map(|it| &it.work) else {
            return;
        };
        let count = index(asked.count);
        let Some(stage) = self.stages.get_mut(at) else { return };
        stage.approved.push(by.to_owned());
        if stage.approved.len() >= count {
            stage.told.insert("by".to_owned(), stage.approved.join(", "));
            self.end(at, Standing::Passed, now);
        }
    }

    fn end_attempt(
        &mut self,
        at: usize,
        attempt: u32,
        outcome: &Outcome,
        links: &[(String, String)],
        now: Time,
    ) {
        let spec = self.spec.clone();
        let Some(plan) = spec.stages.get(at) else { return };
        let Some(stage) = self.stages.get_mut(at) else { return };
        let Standing::Running(running) = stage.standing else { return };
        if running.attempt != attempt {
            return;
        }
        stage.links = links.to_vec();
        let (reason, is_failure) = match outcome {
            Outcome::Passed { told } => {
                stage.told = told.clone();
                return self.end(at, Standing::Passed, now);
            }
            Outcome::Failed { reason } => (reason.clone(), true),
            Outcome::Infrastructure { reason } => (reason.clone(), false),
            Outcome::Cancelled if running.timed_out => {
                (format!("it took longer than {} s", plan.timeout.as_secs()), true)
            }
            Outcome::Cancelled if self.stop.is_some() => {
                return self.end(at, Standing::Skipped(Skip::Cancelled), now);
            }
            Outcome::Cancelled => ("it was cancelled from outside".to_owned(), false),
        };
        let tried = attempt.saturating_sub(stage.before);
        let again = tried <= plan.retry.again && (!is_failure || plan.retry.on == RetryOn::Any);
        if !again || self.stop.is_some() {
            return self.end(at, Standing::Failed { reason }, now);
        }
        let until = now.plus(plan.retry.pause(tried));
        stage.standing = Standing::Pausing { until, reason };
        self.running.remove(&at);
        self.pausing.insert(at);
    }

    fn end(&mut self, at: usize, standing: Standing, now: Time) {
        self.ready.remove(&at);
        self.running.remove(&at);
        self.asking.remove(&at);
        self.pausing.remove(&at);
        let Some(stage) = self.stages.get_mut(at) else { return };
        if stage.standing.is_end() {
            return;
        }
        stage.standing = standing;
        stage.ended = Some(now);
        self.open = self.open.saturating_sub(1);
        let spec = self.spec.clone();
        for next in spec.behind.get(at).into_iter().flatten() {
            let Some(stage) = self.stages.get_mut(*next) else { continue };
            stage.open = stage.open.saturating_sub(1);
            if stage.open == 0 && stage.standing == Standing::Waiting {
                self.ready.insert(*next);
            }
        }
    }

    /// What did not pass waits again. What passed never does.
    fn resume(&mut self) {
        (self.phase, self.stop, self.began, self.ended) = (Phase::Queued, None, None, None);
        self.resumed += 1;
        for stage in &mut self.stages {
            let done =
                matches!(stage.standing, Standing::Passed | Standing::Skipped(Skip::LeftOut));
            if !done {
                stage.standing = Standing::Waiting;
                stage.before = stage.attempts;
                (stage.started, stage.ended) = (None, None);
                stage.approved.clear();
                stage.links.clear();
            }
        }
        let ended: Vec<bool> = self.stages.iter().map(|it| it.standing.is_end()).collect();
        let is_open = |need: &&u32| !ended.get(index(**need)).copied().unwrap_or(true);
        self.ready.clear();
        self.open = 0;
        for (at, stage) in self.stages.iter_mut().enumerate() {
            let needs = self.spec.stages.get(at).map(|it| it.needs.as_slice()).unwrap_or_default();
            stage.open = u32::try_from(needs.iter().filter(is_open).count()).unwrap_or(u32::MAX);
            if stage.standing == Standing::Waiting {
                self.open += 1;
                if stage.open == 0 {
                    self.ready.insert(at);
                }
            }
        }
    }
}
