//! The conversation with a scheduler: takes leases, has them worked on, reports.

use std::time::Duration;

use kiln_net::clock::until;
use kiln_protos::worker::{
    Draining, Heartbeat, Hello, Lease, Paused, Property, SchedulerMessage, WorkerMessage,
    scheduler_message, worker_message,
};
use tokio::sync::mpsc;
use tokio::time::{Instant, Interval, MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use crate::platform;
use crate::report;
use crate::work::{Outcome, Work};

/// The interval between heartbeats until the scheduler's Welcome says another.
const FIRST_HEARTBEAT: Duration = Duration::from_secs(5);
const SHORTEST_HEARTBEAT: Duration = Duration::from_millis(50);

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SessionEnd {
    /// Either side asked for the end, and everything that ran has been reported.
    Drained,
    /// The connection to the scheduler was lost: what ran goes on for a while.
    Lost,
}

pub struct Session<'a> {
    work: &'a mut Work,
    outgoing: mpsc::Sender<WorkerMessage>,
    /// Whether the scheduler has said something: a session may begin before its connection.
    heard: bool,
    /// The reason for taking no leases that the scheduler was told last; `None`: as far as it
    /// knows, the worker takes them.
    said_paused: Option<String>,
}

/// The error that the scheduler's side of the session does not listen any more.
struct Gone;

impl<'a> Session<'a> {
    pub fn new(work: &'a mut Work, outgoing: mpsc::Sender<WorkerMessage>) -> Self {
        Self { work, outgoing, heard: false, said_paused: None }
    }

    pub async fn run(
        mut self,
        incoming: mpsc::Receiver<SchedulerMessage>,
        shutdown: &CancellationToken,
    ) -> SessionEnd {
        let end = match self.converse(incoming, shutdown).await {
            Ok(()) => SessionEnd::Drained,
            Err(Gone) => SessionEnd::Lost,
        };
        self.work.disconnect();
        end
    }

    async fn converse(
        &mut self,
        mut incoming: mpsc::Receiver<SchedulerMessage>,
        shutdown: &CancellationToken,
    ) -> Result<(), Gone> {
        self.begin().await?;
        let mut heartbeat = heartbeat_every(FIRST_HEARTBEAT);
        let mut told = false;
        while !self.is_done() {
            let (deadline, trial) = (self.work.deadline(), self.work.trial_at());
            tokio::select! {
                message = incoming.recv() => {
                    let kind = message.ok_or(Gone)?.kind;
                    self.heard = true;
                    self.work.heard();
                    if let Some(interval) = self.handle(kind).await? {
                        heartbeat = heartbeat_every(interval);
                    }
                }
                Some(ended) = self.work.ended() => self.report(ended).await?,
                _ = heartbeat.tick() => self.send_heartbeat().await?,
                () = shutdown.cancelled(), if !told => {
                    told = true;
                    let first = self.work.drain();
                    self.say_draining(first).await?;
                }
                () = until(deadline) => self.work.expire(),
                () = until(trial) => self.work.try_itself().await,
            }
            self.say_paused().await?;
        }
        Ok(())
    }

    /// Sends Hello, and then what has happened since the session before.
    async fn begin(&mut self) -> Result<(), Gone> {
        self.work.look_for_room();
        let hello = hello(self.work);
        self.said_paused = self.work.paused().map(str::to_owned);
        let told_more = !hello.lease_ids.is_empty();
        self.send(worker_message::Kind::Hello(hello)).await?;
        // First: what is given back is no failure only where it is known that the worker drains.
        if self.work.is_draining() {
            self.send(worker_message::Kind::Draining(Draining {})).await?;
        }
        for message in self.work.connect(self.outgoing.clone()) {
            self.send_message(message).await?;
        }
        // Nobody has to answer a worker that has nothing to tell.
        self.heard = !told_more;
        Ok(())
    }

    fn is_done(&self) -> bool {
        self.work.is_draining() && self.work.is_idle() && self.heard
    }

    /// Does what a message asks for. Returns the heartbeat interval when it changes.
    async fn handle(
        &mut self,
        kind: Option<scheduler_message::Kind>,
    ) -> Result<Option<Duration>, Gone> {
        match kind {
            Some(scheduler_message::Kind::Welcome(welcome)) => {
                let interval = Duration::from_millis(welcome.heartbeat_interval_ms.into());
                return Ok(Some(interval.max(SHORTEST_HEARTBEAT)));
            }
            Some(scheduler_message::Kind::Lease(lease)) => self.take(lease).await?,
            Some(scheduler_message::Kind::Cancel(cancel)) => self.work.cancel(&cancel.lease_id),
            Some(scheduler_message::Kind::Drain(_)) => {
                let first = self.work.drain_as_asked();
                self.say_draining(first).await?;
            }
            // Of a scheduler newer than this worker.
            None => {}
        }
        Ok(None)
    }

    async fn take(&mut self, lease: Lease) -> Result<(), Gone> {
        let id = lease.lease_id.clone();
        match self.work.start(lease) {
            Ok(()) => Ok(()),
            Err(failure) => {
                // First, so that nothing else is sent instead.
                self.say_paused().await?;
                let holds = self.work.lease_ids();
                self.send_message(report::refused(id, &failure, holds)).await
            }
        }
    }

    /// Tells the scheduler whether the worker takes leases, where it was told otherwise last.
    async fn say_paused(&mut self) -> Result<(), Gone> {
        if self.work.paused() == self.said_paused.as_deref() {
            return Ok(());
        }
        let now = self.work.paused().map(str::to_owned);
        self.said_paused.clone_from(&now);
        self.send(worker_message::Kind::Paused(Paused { reason: now.unwrap_or_default() })).await
    }

    async fn report(&mut self, ended: Option<Outcome>) -> Result<(), Gone> {
        let Some(outcome) = ended else { return Ok(()) };
        self.work.saying(outcome.clone());
        self.send_message(outcome.message).await
    }

    async fn say_draining(&mut self, first: bool) -> Result<(), Gone> {
        match first {
            true => self.send(worker_message::Kind::Draining(Draining {})).await,
            false => Ok(()),
        }
    }

    async fn send_heartbeat(&mut self) -> Result<(), Gone> {
        let lease_ids = self.work.running_ids().map(str::to_owned).collect();
        self.send(worker_message::Kind::Heartbeat(Heartbeat { lease_ids })).await
    }

    async fn send(&mut self, kind: worker_message::Kind) -> Result<(), Gone> {
        self.send_message(report::message(kind)).await
    }

    async fn send_message(&mut self, message: WorkerMessage) -> Result<(), Gone> {
        self.outgoing.send(message).await.map_err(|_| Gone)
    }
}

fn hello(work: &Work) -> Hello {
    let config = &work.executor().config;
    let property = |(name, value): (String, String)| Property { name, value };
    let own = config.properties.iter().cloned();
    let images = !config.images.allow.is_empty();
    Hello {
        worker_id: config.worker_id.clone(),
        host_name: config.host_name.clone(),
        slots: config.slots,
        properties: own
            .chain(platform::offers(&config.root_fs, config.allow_network, images))
            .map(property)
            .collect(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        not_enforced: work.not_enforced(),
        lease_ids: work.lease_ids(),
        paused: work.paused().unwrap_or_default().to_owned(),
    }
}

fn heartbeat_every(interval: Duration) -> Interval {
    let mut heartbeat = tokio::time::interval_at(Instant::now() + interval, interval);
    heartbeat.set_missed_tick_behavior(MissedTickBehavior::Delay);
    heartbeat
}
