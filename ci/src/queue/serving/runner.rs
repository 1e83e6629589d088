//! Runs one lane: takes events in, writes, and has done what follows. Any error ends it; whoever begins again goes
//! on from what is written.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use kiln_net::causes::chain;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::arrivals::{Arrival, Arrivals};
use super::away::Away;
use super::costing::Costing;
use super::desk::Request;
use super::error::QueueError;
use super::ledger::{Ledger, Ran, Reply, RequestId, Step, Tested};
use super::passed::{Measure, Passed};
use super::proving::Proof;
use super::tasks::Tasks;
use super::work::{Tools, Wanted};
use crate::queue::git::{Check, GitError, Method, Piece, Repository, Slots};
use crate::queue::{
    Add, Branch, Commit, Effect, Ended, Event, Lane, Member, Options, Outcome, RunId,
};
use crate::services::Clock;

#[derive(Clone, Debug)]
pub struct Settings {
    /// What the queue is called.
    pub lane: String,
    /// A URL or a path.
    pub remote: String,
    pub target: Branch,
    pub method: Method,
    pub check: Check,
    /// Says what a change affects; `None`: nobody does.
    pub impact: Option<Check>,
    /// Says what the check of a change alone is expected to cost; `None`: nobody does.
    pub cost: Option<Check>,
    pub options: Options,
    /// How long the head of one branch may take to come here.
    pub fetch_limit: Duration,
    /// How often the repository is asked where its branches are.
    pub poll: Duration,
}

#[derive(Clone)]
pub struct Parts {
    pub ledger: Arc<dyn Ledger>,
    pub clock: Arc<dyn Clock>,
    /// The directory of the clone, the trees and the logs.
    pub directory: PathBuf,
}

/// What is written in one step with an event.
#[derive(Default)]
pub(super) struct Along {
    /// The request that it answers, and why that changes nothing where that is known already.
    request: Option<(RequestId, Option<String>)>,
    ran: Option<Ran>,
}

pub struct Runner {
    pub(super) settings: Settings,
    clock: Arc<dyn Clock>,
    ledger: Arc<dyn Ledger>,
    pub(super) tools: Tools,
    pub(super) lane: Lane,
    /// What runs; it ends with this.
    tasks: Tasks,
    tell: UnboundedSender<Event>,
    told: UnboundedReceiver<Event>,
    pub(super) polled: Option<Instant>,
    arrivals: Arrivals,
    pub(super) away: Away,
    costing: Costing,
}

impl Runner {
    /// Reads the lane back, or begins one, and takes up what is outstanding.
    pub async fn begin(settings: Settings, parts: Parts) -> Result<Self, QueueError> {
        let Parts { ledger, clock, directory } = parts;
        let absolute = std::path::absolute(&directory);
        let directory = absolute.map_err(|source| GitError::Path { path: directory, source })?;
        let logs = directory.join("logs");
        make(&logs)?;
        let repository =
            Repository::open(&directory.join("repository.git"), &settings.remote).await?;
        let slots = Slots::new(directory.join("trees"));
        // Nobody else runs this queue here; what the last one began may go on.
        if slots.are_free()? {
            repository.unlock_all().await?;
        }
        let lane = ledger.lane().await?;
        let mut lane =
            lane.unwrap_or_else(|| Lane::new(settings.target.clone(), settings.options.clone()));
        if lane.target != settings.target {
            let (queue, target) = (settings.lane.clone(), lane.target.to_string());
            return Err(QueueError::OtherTarget { queue, target });
        }
        lane.options = settings.options.clone();
        let compares = settings.impact.as_ref().filter(|_| settings.options.independent);
        let measure = Measure::of(&settings.target, &settings.check, compares);
        lane.measure_by(measure.as_str());
        let tools = Tools {
            repository,
            slots,
            method: settings.method,
            check: settings.check.clone(),
            impact: settings.impact.clone(),
            target: settings.target.clone(),
            logs,
            passed: Passed::read(directory.join("passed"), measure)?,
        };
        let (tell, told) = unbounded_channel();
        let tasks = Tasks::new(tell.clone());
        let arrivals = Arrivals::new(tools.repository.clone(), settings.fetch_limit);
        let away = Away::of(&lane, settings.fetch_limit);
        let costing = Costing::new(settings.cost.clone(), tell.clone());
        let polled = None;
        let mut it = Self {
            settings,
            clock,
            ledger,
            tools,
            lane,
            tasks,
            tell,
            told,
            polled,
            arrivals,
            away,
            costing,
        };
        let before = it.lane.outstanding();
        // Heads are brought here before anything is put together, and what has changed since is taken in.
        it.poll().await?;
        let still = it.lane.still_outstanding(&before);
        still.into_iter().for_each(|effect| it.carry_out(effect));
        Ok(it)
    }

    pub fn lane(&self) -> &Lane {
        &self.lane
    }

    /// Works until `stop`, or with `until_idle` until nothing waits that could go on by itself.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        until_idle: bool,
    ) -> Result<(), QueueError> {
        while !stop.is_cancelled() {
            let taken = match self.take_requests().await {
                Err(QueueError::Git(error)) => {
                    tracing::warn!(error = chain(&error), "a request cannot be taken in for now");
                    self.polled = None;
                    false
                }
                other => other?,
            };
            if self.polled.is_none_or(|it| it.elapsed() >= self.settings.poll) {
                if !self.reach(&stop).await? {
                    break;
                }
                self.take(Event::Tick, Along::default()).await?;
            }
            self.costing.ask(&self.lane, &self.tools, self.clock.now());
            if until_idle && taken && self.is_idle() {
                return Ok(());
            }
            tokio::select! {
                biased;
                // First: to take in what was told may fetch and push, for which whoever ends the process would wait.
                () = stop.cancelled() => break,
                Some(event) = self.told.recv() => self.heard(event, &stop).await?,
                () = tokio::time::sleep(self.ledger.look()) => {}
            }
        }
        Ok(())
    }

    fn is_idle(&self) -> bool {
        let held =
            |it: &crate::queue::Change| matches!(it.standing, crate::queue::Standing::Held(_));
        let waits = self.lane.changes.values().any(|it| !held(it));
        self.lane.runs.is_empty() && !self.away.goes_on() && (!waits || self.lane.paused.is_some())
    }

    async fn heard(&mut self, event: Event, stop: &CancellationToken) -> Result<(), QueueError> {
        let mut along = Along::default();
        if let Event::Finished { run, outcome } = &event {
            self.tasks.ended(*run);
            along.ran = self.ran(*run, outcome);
        }
        if let Event::Proven { run, .. } | Event::Compared { run, .. } = &event {
            self.tasks.ended(*run);
        }
        // What is about to land is looked at once more: a head that was pushed since was not tested.
        let passed = matches!(
            event,
            Event::Finished { outcome: Outcome::Passed, .. }
                | Event::Proven { commit: Some(_), .. }
                | Event::Compared { clear: true, .. }
        );
        if passed && !self.reach(stop).await? {
            return Ok(());
        }
        let moved = matches!(event, Event::NotLanded { .. });
        self.take(event, along).await?;
        if moved {
            self.reach(stop).await?;
        }
        Ok(())
    }

    /// How a run ended that the lane still waits for.
    fn ran(&self, run: RunId, outcome: &Outcome) -> Option<Ran> {
        let known = self.lane.runs.get(&run)?;
        let tested = |it: &Member| {
            let branch = self.lane.changes.get(&it.id)?.branch.clone();
            Some(Tested { id: it.id, branch, head: it.head.clone() })
        };
        Some(Ran {
            run,
            base: known.base.clone(),
            commit: known.commit.clone(),
            members: known.members.iter().filter_map(tested).collect(),
            began: known.began,
            ended: self.clock.now(),
            verdict: outcome.into(),
            log: self.tools.log_end(run),
        })
    }

    /// Takes one event, in one step with what comes along, and then does what follows from it.
    pub(super) async fn take(&mut self, event: Event, along: Along) -> Result<(), QueueError> {
        let before = self.lane.clone();
        let (effects, mut reply) = match self.lane.apply(event, self.clock.now()) {
            Ok(effects) => (effects, Reply::Done),
            Err(refused) => {
                tracing::info!(%refused, "nothing changes");
                (Vec::new(), Reply::Refused(refused.to_string()))
            }
        };
        let tell = |it: &Effect| match it {
            Effect::Tell(ended) => Some(ended.clone()),
            _ => None,
        };
        let ended: Vec<Ended> = effects.iter().filter_map(tell).collect();
        let mut answered = Vec::new();
        if let Some((id, refused)) = along.request {
            if let Some(why) = refused {
                reply = Reply::Refused(why);
            }
            answered.push((id, reply));
        }
        let ran: Vec<Ran> = along.ran.into_iter().collect();
        let says = !answered.is_empty() || !ended.is_empty() || !ran.is_empty();
        if self.lane != before || says {
            let lane = self.lane.clone();
            self.ledger.write(Step { lane, ended, answered, ran }).await?;
        }
        effects.into_iter().for_each(|effect| self.carry_out(effect));
        Ok(())
    }

    fn carry_out(&mut self, effect: Effect) {
        match effect {
            Effect::Check { run, base, members } => {
                let piece = |it: &Member| {
                    let branch = self.lane.changes.get(&it.id).map(|it| it.branch.clone());
                    Some((it.id, Piece { branch: branch?, head: it.head.clone() }))
                };
                let pieces = members.iter().filter_map(piece).collect();
                let first = self.lane.tested_first(&members);
                let wanted = Wanted { run, base, pieces, first };
                let work = self.tools.clone().check(wanted, self.tell.clone());
                self.tasks.check(run, work);
            }
            Effect::Prove { run, base, tested, members } => {
                let lost = Event::Proven { run, base: base.clone(), commit: None };
                let proof = Proof::of(&self.lane, base, tested, &members);
                let work = self.tools.clone().prove(run, proof, self.tell.clone());
                self.tasks.compare(run, work, lost);
            }
            Effect::Compare { run, with, base, other, members } => {
                let lost = Event::Compared { run, with, clear: false };
                let proof = Proof::of(&self.lane, base, other, &members);
                let work = self.tools.clone().compare((run, with), proof, self.tell.clone());
                self.tasks.compare(run, work, lost);
            }
            Effect::Cancel(run) => self.tasks.cancel(run),
            Effect::Land { run, base, commit } => {
                let work = self.tools.clone().land(run, base, commit, self.tell.clone());
                self.tasks.land(run, work);
            }
            Effect::Tell(ended) => {
                tracing::info!(branch = %ended.branch, end = %ended.end, "a change has left the queue");
            }
        }
    }

    /// Answers whether all were taken in. A branch that has not come yet holds up what else is asked of it, and nothing
    /// of others.
    async fn take_requests(&mut self) -> Result<bool, QueueError> {
        let all = self.ledger.pending().await?;
        self.arrivals.keep(&all);
        let mut late = BTreeSet::new();
        for pending in all {
            let (id, request) = (pending.id, pending.request);
            if let Request::Add { branch, .. } | Request::Remove { branch } = &request
                && late.contains(branch)
            {
                continue;
            }
            let (event, refused) = match request {
                Request::Add { branch, priority } => match self.arrivals.look(id, &branch).await? {
                    Arrival::Waits => {
                        late.insert(branch);
                        continue;
                    }
                    Arrival::Here(head) => self.added(branch, head, priority),
                    Arrival::Never(why) => {
                        (Event::Tick, Some(format!("{branch} cannot be fetched: {why}")))
                    }
                },
                Request::Remove { branch } => self.removed(branch),
                Request::Pause { why } => (Event::Pause(why), None),
                Request::Resume => (Event::Resume, None),
                Request::Mode(mode) => (Event::Mode(mode), None),
            };
            self.take(event, Along { request: Some((id, refused)), ran: None }).await?;
        }
        Ok(late.is_empty())
    }

    /// What a request means now, and why it changes nothing.
    fn removed(&self, branch: Branch) -> (Event, Option<String>) {
        match self.lane.changes.values().find(|it| it.branch == branch) {
            Some(it) => (Event::Remove(it.id), None),
            None => (Event::Tick, Some(QueueError::Unknown(branch.into()).to_string())),
        }
    }

    fn added(
        &mut self,
        branch: Branch,
        head: Option<Commit>,
        priority: u8,
    ) -> (Event, Option<String>) {
        self.away.forget(&branch);
        match head {
            Some(head) => (Event::Add(Add { branch, head, priority, impact: None }), None),
            None => {
                let why = format!("there is no branch {branch} in the repository");
                (Event::Absent(branch), Some(why))
            }
        }
    }
}

fn make(directory: &Path) -> Result<(), QueueError> {
    let made = std::fs::create_dir_all(directory);
    Ok(made.map_err(|source| GitError::Path { path: directory.to_owned(), source })?)
}
