//! What a runner says. Its words count while no other runner has taken the queue; each step is one write with that as
//! its condition, so that what is sent again, late or by the wrong one changes nothing.

use super::error::HostedError;
use super::head::{Head, Take};
use super::news::{News, news};
use super::{Queues, keys};
use crate::queue::serving::{LaneName, MAX_LOG, MAX_TAKEN, Pending, Ran, Step, Verdict, decode};
use crate::queue::{ChangeId, Lane, RunId};
use crate::storage::{Expect, MAX_BATCH, MAX_VALUE, StorageError, Write};

/// Queues of a server.
const MAX_QUEUES: usize = 100;
/// How often something is tried that others change, too.
const TRIES: u32 = 32;
/// Steps of which is kept what they meant.
const MAX_NEWS: u64 = 500;
/// Most that leaves a queue in one step, answers of one, and runs that end with it.
const MAX_ENDED: usize = 700;
const MAX_ANSWERED: usize = MAX_TAKEN;
const MAX_RAN: usize = 64;
/// Members that are named of a run.
const MAX_MEMBERS: usize = 1_000;

/// What a runner that has taken a queue goes by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    pub fence: u64,
}

impl Queues {
    /// Gives a queue to a runner; there is one from then on.
    pub async fn take(&self, queue: &LaneName, take: &Take) -> Result<Taken, HostedError> {
        let lane = self.kept(queue).lane().await?.0;
        if let Some(known) = lane.filter(|it| it.target.as_str() != take.about.target) {
            let (known, asked) = (known.target.to_string(), take.about.target.clone());
            return Err(HostedError::OtherTarget { known, asked });
        }
        for _ in 0..TRIES {
            let key = keys::head(queue);
            let found = self.records.get(&key).await?;
            let expect = found.as_ref().map_or(Expect::Absent, |it| Expect::Version(it.version));
            let mut head: Head = match &found {
                Some(it) => decode(&key, &it.value)?,
                None => self.first().await?,
            };
            let before = head.about.name.clone();
            if !head.take(take, self.clock.now()) {
                let (queue, holder) = (queue.as_str().to_owned(), before);
                return Err(HostedError::Busy { queue, holder });
            }
            let mut writes = Vec::new();
            if before != head.about.name {
                let name = head.about.name.clone();
                writes = self.told(queue, &mut head, &[News::Runner { name }])?;
            }
            writes.push(Write { value: Some(self.encoded(&key, &head)?), key, expect });
            match self.records.write(writes).await {
                Err(StorageError::Conflict(_)) => {}
                written => return Ok(written.map(|()| Taken { fence: head.fence })?),
            }
        }
        Err(HostedError::Restless)
    }

    async fn first(&self) -> Result<Head, HostedError> {
        match self.records.list(keys::HEADS, None, false, MAX_QUEUES).await?.len() {
            MAX_QUEUES.. => Err(HostedError::Full(MAX_QUEUES)),
            _ => Ok(Head::new(self.clock.now())),
        }
    }

    /// The head of a queue that this runner has, and what its next write expects.
    async fn held(&self, queue: &LaneName, fence: u64) -> Result<(Head, Expect), HostedError> {
        let key = keys::head(queue);
        let found = self.records.get(&key).await?;
        let found = found.ok_or_else(|| HostedError::NoQueue(queue.as_str().to_owned()))?;
        let head: Head = decode(&key, &found.value)?;
        match head.holds(fence) {
            true => Ok((head, Expect::Version(found.version))),
            false => Err(HostedError::Lost(queue.as_str().to_owned())),
        }
    }

    /// The lane as it was written last.
    pub async fn lane(&self, queue: &LaneName, fence: u64) -> Result<Option<Lane>, HostedError> {
        self.held(queue, fence).await?;
        Ok(self.kept(queue).lane().await?.0)
    }

    /// What the runner is asked for, oldest first. It has been heard.
    pub async fn pending(&self, queue: &LaneName, fence: u64) -> Result<Vec<Pending>, HostedError> {
        let (mut head, expect) = self.held(queue, fence).await?;
        if head.hear(self.clock.now()) {
            self.noted(queue, &head, expect).await?;
        }
        self.to_take(queue, MAX_TAKEN).await
    }

    /// The runner ends: another one may have the queue at once.
    pub async fn leave(&self, queue: &LaneName, fence: u64) -> Result<(), HostedError> {
        let (mut head, expect) = self.held(queue, fence).await?;
        head.left = true;
        head.seen = self.clock.now();
        self.noted(queue, &head, expect).await
    }

    /// Whoever wrote meanwhile has noted it as well, or has taken the queue.
    async fn noted(
        &self,
        queue: &LaneName,
        head: &Head,
        expect: Expect,
    ) -> Result<(), HostedError> {
        let key = keys::head(queue);
        let write = Write { value: Some(self.encoded(&key, head)?), key, expect };
        match self.records.write(vec![write]).await {
            Err(StorageError::Conflict(_)) => Ok(()),
            written => Ok(written?),
        }
    }

    /// Writes a step. `number`: from 1 for each runner; the same again is the same step.
    pub async fn step(
        &self,
        queue: &LaneName,
        fence: u64,
        number: u64,
        step: &Step,
    ) -> Result<(), HostedError> {
        check(step)?;
        for _ in 0..TRIES {
            let (mut head, expect) = self.held(queue, fence).await?;
            if number == head.steps {
                return Ok(());
            }
            if number != head.steps + 1 {
                let message = format!("step {number} does not follow step {}", head.steps);
                return Err(HostedError::Invalid(message));
            }
            let writes = self.writes(queue, &mut head, step).await?;
            let key = keys::head(queue);
            let own = Write { value: Some(self.encoded(&key, &head)?), key, expect };
            let all: Vec<Write> = writes.into_iter().chain([own]).collect();
            match self.records.write(all).await {
                Err(StorageError::Conflict(_)) => {}
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    self.count(step);
                    return Ok(());
                }
            }
        }
        Err(HostedError::Restless)
    }

    /// What a step writes besides the head, which it counts in.
    async fn writes(
        &self,
        queue: &LaneName,
        head: &mut Head,
        step: &Step,
    ) -> Result<Vec<Write>, HostedError> {
        let kept = self.kept(queue);
        let (before, expect) = kept.lane().await?;
        if let Some(known) = before.as_ref().filter(|it| it.target != step.lane.target) {
            let (known, asked) = (known.target.to_string(), step.lane.target.to_string());
            return Err(HostedError::OtherTarget { known, asked });
        }
        head.steps += 1;
        head.seen = self.clock.now();
        head.totals.step(step);
        let mut others = Vec::new();
        for ran in &step.ran {
            others.extend(self.run(queue, head, ran)?);
        }
        for (id, reply) in &step.answered {
            others.extend(self.answer(queue, *id, reply).await?);
        }
        let rejected = step.ended.iter().any(|it| it.end.rejects());
        let failed = if rejected { self.failures(queue, &step.ran).await? } else { Vec::new() };
        let last = |id: ChangeId| failed.iter().find(|it| it.1.contains(&id)).map(|it| it.0);
        let all = news(before.as_ref(), &step.lane, &step.ended, last);
        others.extend(self.told(queue, head, &all)?);
        // The head comes behind these.
        let writes = kept.writes(&step.lane, expect, &step.ended, others).await?;
        let most = writes.iter().filter_map(|it| it.value.as_ref()).map(|it| it.len()).max();
        match writes.len() < MAX_BATCH && most.is_none_or(|it| it <= MAX_VALUE) {
            true => Ok(writes),
            false => Err(HostedError::Invalid("the step is larger than is kept".to_owned())),
        }
    }

    /// A run that ended, without the oldest of those that are kept.
    fn run(&self, queue: &LaneName, head: &mut Head, ran: &Ran) -> Result<Vec<Write>, HostedError> {
        let put = |key: String, value| Write { key, expect: Expect::Anything, value: Some(value) };
        let (key, log) = (keys::run(queue, ran.run), keys::log(queue, ran.run));
        let short = Ran { log: String::new(), ..ran.clone() };
        let written = self.encoded(&log, &ran.log)?;
        let mut writes = vec![put(key.clone(), self.encoded(&key, &short)?), put(log, written)];
        if let Some(old) = head.ran(ran) {
            let gone = |key| Write { key, expect: Expect::Anything, value: None };
            writes.extend([gone(keys::run(queue, old)), gone(keys::log(queue, old))]);
        }
        Ok(writes)
    }

    /// News under the next number, without the oldest.
    fn told(
        &self,
        queue: &LaneName,
        head: &mut Head,
        news: &[News],
    ) -> Result<Vec<Write>, HostedError> {
        if news.is_empty() {
            return Ok(Vec::new());
        }
        head.news += 1;
        let key = keys::news(queue, head.news);
        let value = Some(self.encoded(&key, &(self.clock.now(), news))?);
        let mut writes = vec![Write { key, expect: Expect::Anything, value }];
        if let Some(old) = head.news.checked_sub(MAX_NEWS) {
            let key = keys::news(queue, old);
            writes.push(Write { key, expect: Expect::Anything, value: None });
        }
        Ok(writes)
    }

    /// Runs that failed with their members, newest first: those of this step, and those that are kept.
    async fn failures(
        &self,
        queue: &LaneName,
        now: &[Ran],
    ) -> Result<Vec<(RunId, Vec<ChangeId>)>, HostedError> {
        let kept = self.ran(queue).await?;
        let failed = |it: &&Ran| matches!(it.verdict, Verdict::Failed { .. });
        let members = |it: &Ran| (it.run, it.members.iter().map(|it| it.id).collect());
        Ok(now.iter().rev().chain(&kept).filter(failed).map(members).collect())
    }
}

/// What a server takes from a runner; its types have been checked where they were read.
fn check(step: &Step) -> Result<(), HostedError> {
    let invalid = |what: &str| Err(HostedError::Invalid(format!("a step has too many {what}")));
    if step.ended.len() > MAX_ENDED {
        return invalid("changes that left");
    }
    if step.answered.len() > MAX_ANSWERED {
        return invalid("answers");
    }
    if step.ran.len() > MAX_RAN || step.ran.iter().any(|it| it.members.len() > MAX_MEMBERS) {
        return invalid("runs, or members of one");
    }
    if step.ran.iter().any(|it| it.log.len() > 4 * MAX_LOG) {
        return invalid("bytes of a log");
    }
    step.lane.check().map_err(HostedError::Invalid)
}
