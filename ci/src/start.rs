//! What a server runs of this crate: the history of tests, and the streams of build events.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use kiln_protos::bes::publish_build_event_server::PublishBuildEventServer;
use kiln_protos::events::Execution;
use tokio::sync::broadcast;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::service::RoutesBuilder;
use tonic::{Extensions, Status};

use crate::events::{EventLog, StreamLimits};
use crate::history::{History, Policy, Tap};
use crate::recording::{Recorder, RecorderParts};
use crate::services::{Admit, BuildEvents, Clock, MAX_MESSAGE};
use crate::storage::{Blobs, Records, Segments};
use crate::upkeep::Upkeep;

const DAY: Duration = Duration::from_secs(24 * 3600);

/// Settings of everything that this crate runs.
#[derive(Clone, Debug)]
pub struct CiOptions {
    /// Whether anything is taken in. What is there is shown, and ages, all the same.
    pub records: bool,
    pub policy: Policy,
    /// How long streams of build events stay after their last event.
    pub keep_streams: Duration,
    /// What they may take.
    pub streams: StreamLimits,
}

impl Default for CiOptions {
    fn default() -> Self {
        let (policy, streams) = (Policy::default(), StreamLimits::default());
        Self { records: true, policy, keep_streams: 30 * DAY, streams }
    }
}

/// What the services of this crate stand on.
pub struct CiParts {
    /// Segments of the history.
    pub segments: Arc<dyn Segments>,
    /// Chunks of event streams. They are others than those of the history: what neither of both names is
    /// removed in each by itself.
    pub chunks: Arc<dyn Segments>,
    pub records: Arc<dyn Records>,
    pub blobs: Arc<dyn Blobs>,
    pub admit: Arc<dyn Admit>,
    pub clock: Arc<dyn Clock>,
    /// What is executed from now on.
    pub executions: broadcast::Receiver<Arc<Execution>>,
    /// Who else is to hear of committed attempts.
    pub tap: Option<Arc<dyn Tap>>,
}

/// The services of this crate. Clones share them.
#[derive(Clone)]
pub struct CiServices {
    pub history: Arc<History>,
    pub streams: Arc<EventLog>,
    pub recorder: Recorder,
    pub clock: Arc<dyn Clock>,
    /// Whether anything is taken in.
    pub records: bool,
    build_events: BuildEvents,
    upkeep: Arc<Background>,
}

/// A task, and what ends it.
struct Background {
    stop: CancellationToken,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl CiServices {
    /// Must be called within a Tokio runtime.
    pub fn start(options: CiOptions, parts: CiParts) -> Self {
        let CiParts { segments, chunks, records, blobs, admit, clock, executions, tap } = parts;
        let history = History::new(segments, records.clone(), options.policy).tapped(tap);
        let history = Arc::new(history);
        let streams = Arc::new(EventLog::new(chunks, records));
        let recorder = Recorder::start(RecorderParts {
            history: history.clone(),
            blobs,
            clock: clock.clone(),
            executions: options.records.then_some(executions),
        });
        let upkeep = Upkeep {
            history: history.clone(),
            streams: streams.clone(),
            clock: clock.clone(),
            keep_streams: options.keep_streams,
            limits: options.streams,
        };
        let build_events = BuildEvents {
            log: streams.clone(),
            history: history.clone(),
            admit,
            clock: clock.clone(),
            reports: Arc::new(recorder.clone()),
            records: options.records,
            limits: options.streams,
            stop: CancellationToken::new(),
        };
        let upkeep = Arc::new(Background::spawn(upkeep));
        let records = options.records;
        Self { history, streams, recorder, clock, records, build_events, upkeep }
    }

    /// Adds the service PublishBuildEvent to the server's routes.
    pub fn add_to(&self, routes: &mut RoutesBuilder) {
        let service = PublishBuildEventServer::new(self.build_events.clone());
        routes.add_service(service.max_decoding_message_size(MAX_MESSAGE));
    }

    /// Whether somebody may write history of an instance, and what that is called.
    pub fn admit(&self, caller: &Extensions, instance: &str) -> Result<String, Status> {
        self.build_events.admit(caller, instance)
    }

    /// Ends streams of build events: what was received becomes durable and is acknowledged, the rest is sent
    /// again elsewhere.
    pub fn end_streams(&self) {
        self.build_events.stop.cancel();
    }

    /// Ends in order, after everything that executes or publishes: what happened before is in the history.
    pub async fn shutdown(&self) {
        self.end_streams();
        self.recorder.shutdown().await;
        self.upkeep.end().await;
    }
}

impl Background {
    fn spawn(upkeep: Upkeep) -> Self {
        let stop = CancellationToken::new();
        let task = tokio::spawn(upkeep.run(stop.clone()));
        Self { stop, task: Mutex::new(Some(task)) }
    }

    async fn end(&self) {
        self.stop.cancel();
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            // An error means that it panicked, which has been told.
            task.await.ok();
        }
    }
}
