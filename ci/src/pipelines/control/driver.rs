//! Drives one run: what is found out is decided about and appended, and only then is done what follows. It may be stopped between
//! any two of these, and another goes on from the history.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, Instant};

use kiln_net::Backoff;
use kiln_net::causes::chain;
use tokio::sync::mpsc;

use super::Control;
use super::append::Appended;
use super::attempt::{Attempt, Told};
use super::error::ControlError;
use super::kept::Stands;
use super::log::AttemptLog;
use super::open::Open;
use super::task::task;
use crate::model::Time;
use crate::pipelines::machine::{Input, Phase, StopWhy};
use crate::pipelines::runner::{Ended, TaskKey};

/// Between two rounds while something runs, and while nothing can be done but wait.
const PACE: Duration = Duration::from_secs(1);
const SLOW: Duration = Duration::from_secs(5);
/// After the records could not be used, which all runs find at the same moment.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(2));
/// After a run could not be read: it may stay so until a person has mended it.
const UNREAD: Backoff = Backoff::new(Duration::from_secs(2), Duration::from_secs(30));
/// How far a clock may be off from how long something took before it is not believed.
const JUMP: Duration = Duration::from_secs(5);
/// Ends that wait for being taken in.
const MAX_TOLD: usize = 256;

/// A clock that goes on evenly while one process drives: where the machine's clock jumps, it is not followed.
struct Steady {
    wall: Time,
    since: Instant,
}

impl Steady {
    fn new(wall: Time) -> Self {
        Self { wall, since: Instant::now() }
    }

    fn now(&mut self, wall: Time) -> Time {
        let even = self.wall.plus(self.since.elapsed());
        if even.since(wall).max(wall.since(even)) <= JUMP {
            *self = Self::new(wall);
            return wall;
        }
        even
    }
}

pub struct Driver {
    control: Arc<Control>,
    open: Open,
    /// By the index of a stage and the number of the attempt.
    attempts: HashMap<(u32, u32), Attempt>,
    sender: mpsc::Sender<Told>,
    told: mpsc::Receiver<Told>,
    /// Bytes of logs.
    logged: Arc<AtomicU64>,
}

impl Driver {
    pub async fn load(control: Arc<Control>, id: &str) -> Result<Self, ControlError> {
        let open = control.open(id).await?;
        let (sender, told) = mpsc::channel(MAX_TOLD);
        let (attempts, logged) = (HashMap::new(), Arc::default());
        Ok(Self { control, open, attempts, sender, told, logged })
    }

    /// Drives until the run has ended.
    pub async fn keep(control: Arc<Control>, id: String) {
        let mut steady = Steady::new(control.now());
        let mut failures: u32 = 0;
        let mut driver = loop {
            match Self::load(control.clone(), &id).await {
                Ok(driver) => break driver,
                Err(error) => {
                    if control.troubles.is_news(&id, &error) {
                        tracing::warn!(run = id, error = %chain(&error), "a run cannot be read");
                    }
                    failures = failures.saturating_add(1);
                    tokio::time::sleep(UNREAD.pause(failures)).await;
                }
            }
        };
        loop {
            match driver.round(steady.now(control.now())).await {
                Ok(None) => return control.troubles.end(&id),
                Ok(Some(pause)) => {
                    control.troubles.end(&id);
                    driver.pause(pause).await;
                }
                Err(error) => {
                    if control.troubles.is_news(&id, &error) {
                        tracing::warn!(run = id, error = %chain(&error), "a run waits");
                    }
                    tokio::time::sleep(AGAIN.pause(1)).await;
                    // What was written is not known. What runs goes on.
                    driver.open.version = 0;
                }
            }
        }
    }

    /// Waits, or until there may be something to do.
    pub async fn pause(&mut self, pause: Duration) {
        let woken = self.control.wake.notified();
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = woken => {}
            Some(told) = self.told.recv() => take(&mut self.attempts, told),
        }
    }

    /// `None`: there is nothing left to do for anybody.
    pub async fn round(&mut self, now: Time) -> Result<Option<Duration>, ControlError> {
        self.refresh().await?;
        let mut inputs = self.turn().await?;
        inputs.extend(self.ended());
        inputs.push(Input::Tick);
        if self.control.append(&mut self.open, &inputs, now).await? == Appended::Conflict {
            self.open.version = 0;
            return Ok(Some(Duration::ZERO));
        }
        self.work(now).await?;
        self.tell_lines();
        Ok(match self.open.state.phase {
            Phase::Ended(_) => None,
            Phase::Queued => Some(SLOW),
            // Maybe for days. What they say here wakes it.
            Phase::Running if Stands::of(&self.open.state) == Stands::Asking => Some(SLOW),
            Phase::Running => Some(PACE),
        })
    }

    /// Reads all again if somebody else wrote.
    async fn refresh(&mut self) -> Result<(), ControlError> {
        let head = self.control.store.head(&self.open.run.id).await?;
        if head.is_none_or(|(_, version)| version != self.open.version) {
            self.open = self.control.open(&self.open.run.id).await?;
        }
        Ok(())
    }

    /// Whose turn it is in its group.
    async fn turn(&self) -> Result<Vec<Input>, ControlError> {
        if self.open.state.is_over() || self.open.state.stop.is_some() {
            return Ok(Vec::new());
        }
        let Some(name) = &self.open.run.group else { return Ok(vec![Input::Turn]) };
        let (group, _) = self.control.store.group(name).await?;
        let id = &self.open.run.id;
        if let Some(run) = group.superseded(id) {
            return Ok(vec![Input::Stop(StopWhy::Superseded { run: run.to_owned() })]);
        }
        let turn = self.open.state.phase == Phase::Queued && group.has_turn(id);
        Ok(turn.then_some(Input::Turn).into_iter().collect())
    }

    /// Ends of attempts, each told until it is part of the history.
    fn ended(&mut self) -> Vec<Input> {
        // Those that are over by now have told how, or never will.
        let over = |it: &Attempt| it.working.0.is_finished();
        let over: Vec<_> =
            self.attempts.iter().filter(|(_, it)| over(it)).map(|(key, _)| *key).collect();
        while let Ok(told) = self.told.try_recv() {
            take(&mut self.attempts, told);
        }
        for key in over {
            let lost = || Ended::infrastructure("it stopped without an answer");
            if let Some(attempt) = self.attempts.get_mut(&key) {
                attempt.ended.get_or_insert_with(lost);
            }
        }
        let input = |(key, attempt): (&(u32, u32), &Attempt)| {
            let Ended { outcome, links } = attempt.ended.clone()?;
            let (stage, attempt) = *key;
            Some(Input::Ended { stage, attempt, outcome, links })
        };
        self.attempts.iter().filter_map(input).collect()
    }

    /// Each attempt that runs has a runner, and no other one has.
    async fn work(&mut self, now: Time) -> Result<(), ControlError> {
        let running: Vec<_> = self.open.state.running().collect();
        let key = |at: usize, attempt: u32| (u32::try_from(at).unwrap_or(u32::MAX), attempt);
        self.attempts.retain(|known, _| {
            running.iter().any(|(at, running)| key(*at, running.attempt) == *known)
        });
        for (at, running) in running {
            let key = key(at, running.attempt);
            if !self.attempts.contains_key(&key) {
                let name = TaskKey { run: self.open.run.id.clone(), stage: key.0, attempt: key.1 };
                let records = &*self.control.store.records;
                let log = AttemptLog::open(name, records, self.logged.clone()).await?;
                match task(&self.open.run, &self.open.state, (at, running), now) {
                    Ok(task) => {
                        let (control, sender) = (self.control.clone(), self.sender.clone());
                        self.attempts.insert(key, Attempt::begin(control, task, log, sender));
                    }
                    Err(reason) => {
                        let told = (key, Ended::failed(reason));
                        self.fail(told, now).await?;
                        continue;
                    }
                }
            }
            if running.cancelled.is_some()
                && let Some(attempt) = self.attempts.get_mut(&key)
            {
                attempt.cancel(&self.control);
            }
        }
        Ok(())
    }

    fn tell_lines(&self) {
        let line = |(key, attempt): (&(u32, u32), &Attempt)| (key.0, attempt.log.line());
        let lines = self.attempts.iter().map(line).filter(|(_, line)| !line.is_empty());
        self.control.lines().insert(self.open.run.id.clone(), lines.collect());
    }

    /// An attempt that nobody can do.
    async fn fail(&mut self, told: Told, now: Time) -> Result<(), ControlError> {
        let ((stage, attempt), Ended { outcome, links }) = told;
        let input = Input::Ended { stage, attempt, outcome, links };
        if self.control.append(&mut self.open, &[input], now).await? == Appended::Conflict {
            self.open.version = 0;
        }
        self.control.wake.notify_waiters();
        Ok(())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.control.lines().remove(&self.open.run.id);
    }
}

fn take(attempts: &mut HashMap<(u32, u32), Attempt>, (key, ended): Told) {
    if let Some(attempt) = attempts.get_mut(&key) {
        attempt.ended = Some(ended);
    }
}
