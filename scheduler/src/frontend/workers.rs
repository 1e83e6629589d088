//! Workers' sessions and reports, as calls of the queue.

use std::sync::Arc;

use bytes::Bytes;
use kiln_net::panics::caught;
use kiln_protos::worker::{Hello, SchedulerMessage, Welcome, scheduler_message::Kind};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::Instant;

use crate::api::{Report, Seat, Unavailable};
use crate::job::Outcome;
use crate::names::ForeignLeases;
use crate::queue::platform::Offer;
use crate::queue::{Event, Joined, LeaseId, WorkerId};
use crate::session::pause_reason;

use super::engine::{Call, Engine};
use super::go_on::begin;
use super::inner::Inner;
use super::local::{Running, Session};
use super::react::{FollowUp, Own};
use super::told::{Told, WorkerInfo};

impl<E: Engine> Inner<E> {
    pub(super) async fn join(
        self: &Arc<Self>,
        hello: Hello,
        outbound: mpsc::Sender<SchedulerMessage>,
    ) -> Seat {
        let (seat, taken_away) = oneshot::channel();
        let mut foreign = ForeignLeases::default();
        let leases = foreign.list(&self.names, hello.lease_ids);
        let session = Session {
            name: hello.worker_id.as_str().into(),
            outbound,
            heard: None,
            foreign,
            strays: leases.iter().copied().collect(),
            reports: Arc::new(watch::Sender::new(0)),
            _seat: seat,
        };
        let joined = Joined {
            // The engine gives it one.
            worker: WorkerId(0),
            name: session.name.clone(),
            slots: hello.slots,
            offer: Offer::new(hello.properties.into_iter().map(|p| (p.name, p.value))),
            leases,
            paused: pause_reason(&hello.paused),
        };
        let info = WorkerInfo {
            host_name: hello.host_name,
            version: hello.version,
            not_enforced: hello.not_enforced,
        };
        let call = Call::Join(joined, info);
        let _news_is_kept = self.under_way();
        match self.engine.call(call, |told| self.seated(session, told)).await {
            Ok((worker, after)) => {
                self.follow_up(after);
                if self.is_draining() {
                    self.report(Event::WorkerDraining { worker }).await;
                }
                Seat { worker, taken_away }
            }
            Err(error) => {
                // The seat is taken away at once: the worker comes back later.
                tracing::warn!(%error, worker = %hello.worker_id, "a worker could not join");
                Seat { worker: WorkerId(0), taken_away }
            }
        }
    }

    fn seated(self: &Arc<Self>, session: Session, told: Vec<Told>) -> (WorkerId, Vec<FollowUp>) {
        let welcome = Welcome { heartbeat_interval_ms: self.worker_heartbeat_ms };
        // A full or closed channel shows when the first lease is sent.
        let welcome = SchedulerMessage { kind: Some(Kind::Welcome(welcome)) };
        let _ = session.outbound.try_send(welcome);
        let (mut session, mut seated) = (Some(session), WorkerId(0));
        let mut after = Vec::new();
        let mut local = self.lock();
        for told in told {
            if let Told::Joined { worker } = &told
                && let Some(session) = session.take()
            {
                seated = *worker;
                local.sessions.insert(seated, session);
                continue;
            }
            self.react_to(&mut local, told, Some(&mut Own::default()), &mut after);
        }
        for early in local.early.take(None, Some(seated)) {
            self.react_to(&mut local, early, None, &mut after);
        }
        self.end_if_closed(&mut local);
        self.count_busy(&local);
        (seated, after)
    }

    pub(super) async fn reported(self: &Arc<Self>, worker: WorkerId, report: Report) {
        match report {
            Report::Heartbeat(listed) => self.heartbeat(worker, listed).await,
            Report::Paused(reason) => self.report(Event::WorkerPaused { worker, reason }).await,
            Report::Refused { lease, message, holds } => {
                self.refused(worker, lease, message, holds).await;
            }
            Report::Draining => self.report(Event::WorkerDraining { worker }).await,
            Report::Progress { lease, phase } => {
                if self.is_long(lease) {
                    self.report(Event::Progress { worker, lease, phase }).await;
                }
            }
            Report::Output { lease, stderr, offset, data } => {
                self.append_output(worker, lease, stderr, offset, &data);
            }
            Report::Completed { lease, outcome } => {
                let inner = self.clone();
                self.aside(worker, async move { inner.completed(worker, lease, outcome).await });
            }
            Report::Failed { lease, message } => {
                self.given_back(worker, lease, Event::Failed { worker, lease, message });
            }
            Report::Returned { lease, message } => {
                self.given_back(worker, lease, Event::Returned { worker, lease, message });
            }
        }
    }

    /// Takes in the leases that a worker runs. The engine hears of them at once only where they
    /// differ from what it believes, else later together with those of other workers.
    async fn heartbeat(self: &Arc<Self>, worker: WorkerId, listed: Vec<String>) {
        let leases = {
            let mut local = self.lock();
            let (leases, news) = local.listed(&self.names, worker, listed, self.heartbeat_timeout);
            self.count_busy(&local);
            let Some(session) = local.sessions.get_mut(&worker) else { return };
            if E::HEARTBEATS_TOGETHER && !news {
                session.heard = Some((leases, Instant::now()));
                return;
            }
            leases
        };
        // What the worker has answered before is heard before.
        self.all_reported(worker).await;
        self.report(Event::Heartbeat { worker, leases }).await;
    }

    async fn refused(
        self: &Arc<Self>,
        worker: WorkerId,
        lease: LeaseId,
        message: String,
        holds: Vec<String>,
    ) {
        let (holds, _) = self.lock().listed(&self.names, worker, holds, self.heartbeat_timeout);
        self.all_reported(worker).await;
        self.lock().runs.remove(&lease);
        self.report(Event::Refused { worker, lease, message, holds }).await;
    }

    fn given_back(self: &Arc<Self>, worker: WorkerId, lease: LeaseId, event: Event) {
        let inner = self.clone();
        self.aside(worker, async move {
            inner.lock().runs.remove(&lease);
            inner.report(event).await;
        });
    }

    async fn completed(self: &Arc<Self>, worker: WorkerId, lease: LeaseId, outcome: Outcome) {
        let Some(running) = self.take_to_publish(worker, lease) else {
            // Nothing is known here of what should be published. When this frontend goes, its workers say it to
            // another one.
            if !self.is_closed() {
                let message = "its answer came when its session was over".to_owned();
                self.report(Event::Failed { worker, lease, message }).await;
            }
            return;
        };
        let (task, run) = (running.task, running.run());
        let call = Call::Completed { worker, lease, task: Some(task) };
        let own = Own { outcome: Some(outcome), running: Some(running), ..Own::default() };
        let told = caught(self.tell(call, own)).await;
        if told.is_err() {
            // It runs again, if the engine has not heard of the answer; else that is to be published, and is not here
            // any more.
            let message = "the server failed when it took its answer".to_owned();
            self.report(Event::Failed { worker, lease, message }).await;
            self.lose_answer(task, lease, &run).await;
        }
        if let Err(error) = told.map_err(Unavailable::from).flatten() {
            tracing::error!(%error, "a worker's answer is lost: the queue cannot be told");
            let mut local = self.lock();
            local.publishing.remove(&lease);
            self.count_busy(&local);
        }
    }

    /// The run that the worker has answered. Whatever becomes of the session meanwhile, it is there when the
    /// engine says that it is to be published.
    fn take_to_publish(&self, worker: WorkerId, lease: LeaseId) -> Option<Running> {
        let mut local = self.lock();
        local.runs.get(&lease).filter(|run| run.worker == worker)?;
        let running = local.runs.remove(&lease)?;
        // Until it is published or known not to be: what drains waits for it.
        local.publishing.insert(lease, running.task);
        Some(running)
    }

    /// Does not keep the worker waiting, who has more to say: no more of these are under way than
    /// it has slots.
    fn aside(
        self: &Arc<Self>,
        worker: WorkerId,
        report: impl Future<Output = ()> + Send + 'static,
    ) {
        let inner = self.clone();
        let heard = async move {
            if let Err(error) = caught(report).await {
                tracing::error!(%error, ?worker, "what a worker said is lost");
                inner.look_again().await;
            }
        };
        let Err(rest) = begin(heard) else { return };
        let reports = self.lock().sessions.get(&worker).map(|session| session.reports.clone());
        let count = move |more: bool| {
            if let Some(reports) = &reports {
                reports.send_modify(|count| *count = if more { *count + 1 } else { *count - 1 });
            }
        };
        count(true);
        tokio::spawn(async move {
            rest.await;
            count(false);
        });
    }

    async fn all_reported(&self, worker: WorkerId) {
        let reports = self.lock().sessions.get(&worker).map(|session| session.reports.clone());
        if let Some(reports) = reports {
            let _ = reports.subscribe().wait_for(|count| *count == 0).await;
        }
    }

    fn is_long(&self, lease: LeaseId) -> bool {
        let mut local = self.lock();
        let Some(run) = local.runs.get_mut(&lease) else { return false };
        let now = Instant::now();
        let long = now - run.extended > self.prolong_after;
        if long {
            run.extended = now;
        }
        long
    }

    fn append_output(
        &self,
        worker: WorkerId,
        lease: LeaseId,
        stderr: bool,
        offset: u64,
        data: &Bytes,
    ) {
        let output = {
            let local = self.lock();
            let run = local.runs.get(&lease).filter(|run| run.worker == worker);
            run.and_then(|run| run.output.clone())
        };
        if let Some(output) = output {
            output.append(stderr, offset, data);
        }
    }

    pub(super) async fn leave(self: &Arc<Self>, worker: WorkerId) {
        // What it has answered is heard before it is gone.
        self.all_reported(worker).await;
        // When this frontend goes, its workers take what they run to another one.
        if !self.is_closed() && self.lock().close_session(worker).is_some() {
            self.report(Event::WorkerLeft { worker }).await;
        }
    }

    pub(super) async fn drain_worker(self: &Arc<Self>, name: &str) -> Result<bool, Unavailable> {
        let call = Call::DrainWorker(name.to_owned());
        let (known, after) = self
            .engine
            .call(call, |told| {
                let known = told.iter().any(|told| matches!(told, Told::Drain { .. }));
                (known, self.react(told, Own::default()))
            })
            .await?;
        self.follow_up(after);
        Ok(known)
    }
}
