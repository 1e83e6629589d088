//! The Build Event Service over [`Publisher`].

use std::sync::Arc;

use async_trait::async_trait;
use futures_util::FutureExt;
use kiln_net::causes::chain;
use kiln_protos::bes::publish_build_event_server::PublishBuildEvent;
use kiln_protos::bes::{
    PublishBuildToolEventStreamRequest, PublishBuildToolEventStreamResponse,
    PublishLifecycleEventRequest, StreamId,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Extensions, Request, Response, Status, Streaming};

use crate::attempts::Attempt;
use crate::events::{
    EventLog, FileRef, Publisher, PublisherError, Refusal, StreamKey, Taken, decode,
};
use crate::history::History;
use crate::model::Time;

/// Acknowledgements that a client has not taken. One that takes none is not read any further.
const MAX_ANSWERS: usize = 1024;

type Answer = Result<PublishBuildToolEventStreamResponse, Status>;

/// Who may publish for an instance: refuses, or says what the instance is called.
pub trait Admit: Send + Sync + 'static {
    fn admit(&self, caller: &Extensions, project: &str) -> Result<String, Status>;
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
}

#[async_trait]
impl PublishBuildEvent for BuildEvents {
    /// The stream of the build tool says all that these say: nothing of them is kept.
    async fn publish_lifecycle_event(
        &self,
        request: Request<PublishLifecycleEventRequest>,
    ) -> Result<Response<kiln_protos::protobuf::Empty>, Status> {
        let (_, extensions, request) = request.into_parts();
        self.admit.admit(&extensions, &request.project_id)?;
        let event = request.build_event.ok_or_else(|| missing("build_event"))?;
        event.stream_id.ok_or_else(|| missing("build_event.stream_id"))?;
        Ok(Response::new(kiln_protos::protobuf::Empty {}))
    }

    type PublishBuildToolEventStreamStream = ReceiverStream<Answer>;

    async fn publish_build_tool_event_stream(
        &self,
        request: Request<Streaming<PublishBuildToolEventStreamRequest>>,
    ) -> Result<Response<Self::PublishBuildToolEventStreamStream>, Status> {
        let (_, extensions, inbound) = request.into_parts();
        let (answers, outbound) = mpsc::channel(MAX_ANSWERS);
        let connection = Connection {
            service: self.clone(),
            caller: extensions,
            answers: answers.clone(),
            stream: None,
        };
        tokio::spawn(async move {
            if let Err(status) = connection.serve(inbound).await {
                // Nobody is there to hear it where this fails.
                answers.send(Err(status)).await.ok();
            }
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
    caller: Extensions,
    answers: mpsc::Sender<Answer>,
    stream: Option<Open>,
}

impl Connection {
    /// Takes what is at hand, makes it durable, acknowledges it.
    async fn serve(
        mut self,
        mut inbound: Streaming<PublishBuildToolEventStreamRequest>,
    ) -> Result<(), Status> {
        let mut is_due = false;
        loop {
            let next = match is_due {
                true => inbound.message().now_or_never(),
                false => Some(inbound.message().await),
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
        let id = event.stream_id.clone().ok_or_else(|| missing("stream_id"))?;
        let instance = match &self.stream {
            Some(open) => open.publisher.stream().instance.clone(),
            None => self.service.admit.admit(&self.caller, &request.project_id)?,
        };
        let event = decode(&instance, event).ok_or_else(|| missing("stream_id"))?;
        let open = match &mut self.stream {
            Some(open) => open,
            None => {
                let publisher = self.service.open(event.stream.clone()).await?;
                self.stream.insert(Open { publisher, id })
            }
        };
        open.publisher.receive(event).map_err(status)
    }

    async fn commit(&mut self) -> Result<(), Status> {
        let Some(open) = &mut self.stream else { return Ok(()) };
        let now = self.service.clock.now();
        let committed = open.publisher.commit(now).await.map_err(status)?;
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
        Ok(())
    }
}

impl BuildEvents {
    async fn open(&self, stream: StreamKey) -> Result<Publisher, Status> {
        Publisher::open(self.log.clone(), self.history.clone(), stream).await.map_err(status)
    }
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
        PublisherError::Full => Status::resource_exhausted(message),
        PublisherError::Log(_) | PublisherError::History(_) => Status::unavailable(message),
    }
}
