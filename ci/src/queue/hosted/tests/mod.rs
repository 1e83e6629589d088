//! Queues of a server, with runners that die, come twice and say everything again.

mod crashes;
mod feeds;
mod leases;
mod requests;
mod words;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{About, Ask, HostedError, Queues, Take};
use crate::model::Time;
use crate::queue::serving::{LaneName, Ran, Reply, Request, RequestId, Step, Tested, Verdict};
use crate::queue::{Add, Branch, Commit, Effect, Ended, Event, Lane, Options, Outcome, RunId};
use crate::services::Clock;
use crate::storage::memory::Memory;

/// A clock that tests move.
#[derive(Debug)]
struct Hand(AtomicU64);

impl Clock for Hand {
    fn now(&self) -> Time {
        Time(self.0.load(Ordering::Relaxed))
    }
}

/// Records that several servers share.
#[derive(Clone)]
struct World {
    memory: Memory,
    clock: Arc<Hand>,
}

impl World {
    fn new() -> Self {
        Self { memory: Memory::default(), clock: Arc::new(Hand(AtomicU64::new(1_000_000))) }
    }

    fn server(&self) -> Queues {
        Queues::new(Arc::new(self.memory.clone()), self.clock.clone())
    }

    fn wait(&self, time: Duration) {
        let millis = u64::try_from(time.as_millis()).expect("a short time");
        self.clock.0.fetch_add(millis, Ordering::Relaxed);
    }
}

fn queue() -> LaneName {
    LaneName::new("app").expect("a name")
}

fn branch(name: &str) -> Branch {
    Branch::new(name).expect("a branch")
}

fn commit(digit: char) -> Commit {
    Commit::new(&digit.to_string().repeat(40)).expect("a commit")
}

fn runner(name: &str) -> Take {
    let about = About { name: name.to_owned(), target: "main".to_owned(), ..About::default() };
    Take { nonce: name.to_owned(), about }
}

fn add(name: &str) -> Ask {
    Ask { request: Request::Add { branch: branch(name), priority: 5 }, by: "ana".to_owned() }
}

fn remove(name: &str) -> Ask {
    Ask { request: Request::Remove { branch: branch(name) }, by: "ana".to_owned() }
}

fn step(lane: &Lane) -> Step {
    Step { lane: lane.clone(), ended: Vec::new(), answered: Vec::new(), ran: Vec::new() }
}

/// A runner of which tests say what it does next.
struct Driver {
    queues: Queues,
    fence: u64,
    number: u64,
    lane: Lane,
}

impl Driver {
    async fn begin(queues: Queues, name: &str) -> Result<Self, HostedError> {
        let fence = queues.take(&queue(), &runner(name)).await?.fence;
        let lane = queues.lane(&queue(), fence).await?;
        let lane = lane.unwrap_or_else(|| Lane::new(branch("main"), Options::default()));
        Ok(Self { queues, fence, number: 0, lane })
    }

    /// Takes an event in, and writes what follows.
    async fn take(
        &mut self,
        event: Event,
        answers: Option<RequestId>,
        ran: Option<Ran>,
    ) -> Result<(), HostedError> {
        let effects = self.lane.apply(event, self.queues.now());
        let reply = match &effects {
            Ok(_) => Reply::Done,
            Err(refused) => Reply::Refused(refused.to_string()),
        };
        let tell = |it: Effect| match it {
            Effect::Tell(ended) => Some(ended),
            _ => None,
        };
        let ended: Vec<Ended> = effects.unwrap_or_default().into_iter().filter_map(tell).collect();
        let step = Step {
            lane: self.lane.clone(),
            ended,
            answered: answers.map(|id| (id, reply)).into_iter().collect(),
            ran: ran.into_iter().collect(),
        };
        self.number += 1;
        self.queues.step(&queue(), self.fence, self.number, &step).await
    }

    /// Takes all requests in. Branches have heads that their names begin with.
    async fn requests(&mut self) -> Result<(), HostedError> {
        for pending in self.queues.pending(&queue(), self.fence).await? {
            let event = match pending.request {
                Request::Add { branch, priority } => {
                    let digit = branch.as_str().chars().next().unwrap_or('a');
                    Event::Add(Add { branch, head: commit(digit), priority, impact: None })
                }
                Request::Remove { branch } => {
                    let known = self.lane.changes.values().find(|it| it.branch == branch);
                    known.map_or(Event::Tick, |it| Event::Remove(it.id))
                }
                Request::Pause { why } => Event::Pause(why),
                Request::Resume => Event::Resume,
                Request::Mode(mode) => Event::Mode(mode),
            };
            self.take(event, Some(pending.id), None).await?;
        }
        Ok(())
    }

    /// Ends the check of a run.
    async fn check(&mut self, run: RunId, outcome: Outcome) -> Result<(), HostedError> {
        let built = Event::Built { run, commit: commit('e'), left_out: Vec::new() };
        self.take(built, None, None).await?;
        let known = self.lane.runs[&run].clone();
        let tested = |it: &crate::queue::Member| Tested {
            id: it.id,
            branch: self.lane.changes[&it.id].branch.clone(),
            head: it.head.clone(),
        };
        let ran = Ran {
            run,
            base: known.base,
            commit: known.commit,
            members: known.members.iter().map(tested).collect(),
            began: known.began,
            ended: self.queues.now(),
            verdict: Verdict::from(&outcome),
            log: format!("log of {}", run.0),
        };
        self.take(Event::Finished { run, outcome }, None, Some(ran)).await
    }

    /// Does what is to be done until nothing is left: every check passes.
    async fn work(&mut self) -> Result<(), HostedError> {
        if self.lane.base.is_none() {
            self.take(Event::Target(commit('0')), None, None).await?;
        }
        loop {
            self.requests().await?;
            let next = self.lane.outstanding().into_iter().next();
            match next {
                None => return Ok(()),
                Some((run, Effect::Land { .. })) => {
                    self.take(Event::Landed(run), None, None).await?;
                }
                Some((run, _)) => self.check(run, Outcome::Passed).await?,
            }
        }
    }
}
