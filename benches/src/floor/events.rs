//! Build events that are decoded, acknowledged one by one, and thrown away.

use std::pin::Pin;

use kiln_protos::bes::publish_build_event_server::PublishBuildEvent;
use kiln_protos::bes::{
    PublishBuildToolEventStreamRequest, PublishBuildToolEventStreamResponse,
    PublishLifecycleEventRequest,
};
use kiln_protos::protobuf::Empty;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

#[derive(Clone)]
pub struct Events;

type Acknowledgement = Result<PublishBuildToolEventStreamResponse, Status>;

#[tonic::async_trait]
impl PublishBuildEvent for Events {
    async fn publish_lifecycle_event(
        &self,
        _: Request<PublishLifecycleEventRequest>,
    ) -> Result<Response<Empty>, Status> {
        Ok(Response::new(Empty {}))
    }

    type PublishBuildToolEventStreamStream = Pin<Box<dyn Stream<Item = Acknowledgement> + Send>>;

    async fn publish_build_tool_event_stream(
        &self,
        request: Request<Streaming<PublishBuildToolEventStreamRequest>>,
    ) -> Result<Response<Self::PublishBuildToolEventStreamStream>, Status> {
        let answer = |request: PublishBuildToolEventStreamRequest| {
            let event = request.ordered_build_event.unwrap_or_default();
            PublishBuildToolEventStreamResponse {
                sequence_number: event.sequence_number,
                stream_id: event.stream_id,
            }
        };
        let answers = request.into_inner().map(move |it| it.map(answer));
        Ok(Response::new(Box::pin(answers)))
    }
}
