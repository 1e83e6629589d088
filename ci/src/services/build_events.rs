//! The Build Event Service over [`Publisher`].

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use kiln_net::causes::chain;
use kiln_net::panics::caught;
use kiln_protos::bes::publish_build_event_server::PublishBuildEvent;
use kiln_protos::bes::{
    PublishBuildToolEventStreamRequest, PublishBuildToolEventStreamResponse,
    PublishLifecycleEventRequest, StreamId,
};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::attempts::Attempt;
use crate::events::{
    EventLog, FileRef, Publisher, PublisherError, Refusal, StreamKey, StreamLimits, Taken, Terms,
    decode,
};
use crate::history::History;
use crate::model::Time;

/// Acknowledgements that a client has not taken. One that takes none is not read any further.
const MAX_ANSWERS: usize = 1024;

type Acknowledgement = Result<PublishBuildToolEventStreamResponse, Status>;

/// Most bytes of one message of a stream.
pub const MAX_MESSAGE: usize = 16 << 20;
/// What an event may take once it is decoded, for each byte of it.
const DECODED: u64 = 8;
/// What is put together of a build takes so much for each byte of the events that it is from.
const KEPT: u64 = 2;
/// Streams that are put into few chunks at the same time; the others wait for the next look at all of them.
const MAX_COMPACTING: usize = 2;
static COMPACTING: Semaphore = Semaphore::const_new(MAX_COMPACTING);

/// Who may publish for an instance: refuses, or says what the instance is called.
pub trait Admit: Send + Sync + 'static {
    fn admit(&self, caller: &Extensions, project: &str) -> Result<String, Status>;

    /// What the caller's credential is called; nothing where nobody is asked for one.
    fn name(&self, caller: &Extensions) -> Option<String>;

    /// What a stream of this caller holds in memory is charged to.
    fn charge(&self, caller: &Extensions) -> Box<dyn Charge>;
}

/// The memory of one stream, given back when it is dropped.
pub trait Charge: Send {
    /// Sees to it that so many bytes are counted in all. Errors: there is no room for them.
    fn hold(&mut self, bytes: u64) -> Result<(), Status>;
}

pub trait Clock: Send + Sync + 'static {
    fn now(&self) -> Time;
}

/// Reads the reports of attempts that build events name, and commits their cases. It must not wait.
pub trait Reports: Send + Sync + 'static {
    fn offer(&self, attempt: Attempt, report: FileRef);
}

#[derive(Clone)]
pub struct BuildEvents {
    pub log: Arc<EventLog>,
    pub history: Arc<History>,
    pub admit: Arc<dyn Admit>,
    pub clock: Arc<dyn Clock>,
    pub reports: Arc<dyn Reports>,
    /// Whether anything is taken in.
    pub records: bool,
    /// What streams may take.
    pub limits: StreamLimits,
    /// Ends streams where it is cancelled, once what they received is durable.
    pub stop: CancellationToken,
}

#[async_trait]
impl PublishBuildEvent for BuildEvents {
    /// The stream of the build tool says all that these say: nothing of them is kept.
    async fn publish_lifecycle_event(
        &self,
        request: Request<PublishLifecycleEventRequest>,
    ) -> Result<Response<kiln_protos::protobuf::Empty>, Status> {
        let (_, extensions, request) = request.into_parts();
        self.admit(&extensions, &request.project_id)?;
        let event = request.build_event.ok_or_else(|| missing("build_event"))?;
        event.stream_id.ok_or_else(|| missing("build_event.stream_id"))?;
        Ok(Response::new(kiln_protos::protobuf::Empty {}))
    }

    type PublishBuildToolEventStreamStream = ReceiverStream<Acknowledgement>;

    async fn publish_build_tool_event_stream(
        &self,
        request: Request<Streaming<PublishBuildToolEventStreamRequest>>,
    ) -> Result<Response<Self::PublishBuildToolEventStreamStream>, Status> {
        let (_, extensions, inbound) = request.into_parts();
        let (answers, outbound) = mpsc::channel(MAX_ANSWERS);
        let connection = Connection {
            service: self.clone(),
            charge: self.admit.charge(&extensions),
            caller: extensions,
            answers: answers.clone(),
            stream: None,
        };
        tokio::spawn(async move {
            let status = match caught(connection.serve(inbound)).await {
                Ok(Ok(())) => return,
                Ok(Err(status)) => status,
                // A stream that ended well would have its client believe that all was taken.
                Err(panicked) => Status::internal(panicked.to_string()),
            };
            // Nobody is there to hear it where this fails.
            answers.send(Err(status)).await.ok();
        });
        Ok(Response::new(ReceiverStream::new(outbound)))
    }
}

/// A stream, once its first event has said which one it is.
struct Open {
    publisher: Publisher,
    id: StreamId,
}

struct Connection {
    service: BuildEvents,
    charge: Box<dyn Charge>,
    caller: Extensions,
    answers: mpsc::Sender<Acknowledgement>,
    stream: Option<Open>,
}

impl Connection {
    /// Takes what is at hand, makes it durable, acknowledges it.
    async fn serve(
        mut self,
        mut inbound: Streaming<PublishBuildToolEventStreamRequest>,
    ) -> Result<(), Status> {
        let stop = self.service.stop.clone();
        let mut is_due = false;
        loop {
            let next = match is_due {
                true => inbound.message().now_or_never(),
                false => tokio::select! {
                    message = inbound.message() => Some(message),
                    () = stop.cancelled() => return Err(stopping()),
                },
            };
            let taken = match next {
                Some(Ok(Some(request))) => self.take(request).await?,
                // What was taken is durable even where the connection broke.
                Some(end) => {
                    self.commit().await?;
                    return end.map(|_| ());
                }
                None => Taken::Commit,
            };
            is_due = taken == Taken::More;
            if !is_due {
                self.commit().await?;
            }
        }
    }

    async fn take(&mut self, request: PublishBuildToolEventStreamRequest) -> Result<Taken, Status> {
        let event = request.ordered_build_event.ok_or_else(|| missing("ordered_build_event"))?;
        let admitted;
        let (instance, first) = match &self.stream {
            Some(open) => (open.publisher.stream().instance.as_str(), None),
            None => {
                admitted = self.service.admit(&self.caller, &request.project_id)?;
                (admitted.as_str(), event.stream_id.clone())
            }
        };
        let event = decode(instance, event).ok_or_else(|| missing("stream_id"))?;
        let open = match &mut self.stream {
            Some(open) => open,
            None => {
                let id = first.ok_or_else(|| missing("stream_id"))?;
                let owner = self.service.admit.name(&self.caller);
                let charge = &mut self.charge;
                let mut room = |kept: u64| charge.hold(kept.saturating_mul(KEPT)).is_ok();
                let publisher = self.service.open(event.stream.clone(), owner, &mut room).await?;
                self.stream.insert(Open { publisher, id })
            }
        };
        let taken = open.publisher.receive(event).map_err(status)?;
        let waits = open.publisher.pending_bytes().saturating_mul(DECODED);
        let kept = open.publisher.build().kept_bytes().saturating_mul(KEPT);
        if self.charge.hold(waits.saturating_add(kept)).is_err() {
            // The build goes on all the same; its page says that it is not whole.
            open.publisher.keep_no_more();
            self.charge.hold(waits)?;
        }
        Ok(taken)
    }

    async fn commit(&mut self) -> Result<(), Status> {
        let Some(open) = &mut self.stream else { return Ok(()) };
        let now = self.service.clock.now();
        let committed = open.publisher.commit(now).await.map_err(status)?;
        let has_ended = committed.is_finished && !committed.acknowledge.is_empty();
        for (attempt, report) in committed.reports {
            self.service.reports.offer(attempt, report);
        }
        for sequence_number in committed.acknowledge {
            let stream_id = Some(open.id.clone());
            let answer = PublishBuildToolEventStreamResponse { stream_id, sequence_number };
            self.answers
                .send(Ok(answer))
                .await
                .map_err(|_| Status::cancelled("the client left"))?;
        }
        if has_ended && let Ok(turn) = COMPACTING.try_acquire() {
            let compact = open.publisher.compact();
            // The client waits for the end of its stream, and not for this.
            tokio::spawn(async move {
                let _turn = turn;
                if let Err(error) = compact.await {
                    tracing::warn!(error = chain(&error), "a stream stays in many chunks for now");
                }
            });
        }
        Ok(())
    }
}

impl BuildEvents {
    /// Errors: the caller may not, or nobody may.
    pub fn admit(&self, caller: &Extensions, project: &str) -> Result<String, Status> {
        let instance = self.admit.admit(caller, project)?;
        match self.records {
            true => Ok(instance),
            false => {
                Err(Status::failed_precondition("runs of tests are not kept here (tests.record)"))
            }
        }
    }

    async fn open(
        &self,
        stream: StreamKey,
        owner: Option<String>,
        room: &mut (dyn FnMut(u64) -> bool + Send),
    ) -> Result<Publisher, Status> {
        let terms = Terms { owner, limits: self.limits };
        let (log, history) = (self.log.clone(), self.history.clone());
        Publisher::open(log, history, stream, terms, room).await.map_err(status)
    }
}

/// Nothing that was received waits any more; the client sends the rest elsewhere, or later.
fn stopping() -> Status {
    Status::unavailable("the server ends: send what was not acknowledged again")
}

fn missing(field: &str) -> Status {
    Status::invalid_argument(format!("{field} is missing"))
}

/// Clients repeat what is not their own fault, from the first event that was not acknowledged on.
fn status(error: PublisherError) -> Status {
    let message = chain(&error);
    match error {
        PublisherError::Refused(Refusal::Gap { .. }) => Status::aborted(message),
        PublisherError::Refused(_) | PublisherError::OtherStream => {
            Status::invalid_argument(message)
        }
        PublisherError::Foreign => Status::permission_denied(message),
        PublisherError::Full | PublisherError::Large(_) | PublisherError::Crowded(_) => {
            Status::resource_exhausted(message)
        }
        PublisherError::Busy | PublisherError::Log(_) | PublisherError::History(_) => {
            Status::unavailable(message)
        }
    }
}
