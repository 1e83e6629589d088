//! The gRPC service `kiln.worker.v1.Workers`.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::{Stream, StreamExt, future};
use kiln_cas::access::Right;
use kiln_cas::services::refused_status;
use kiln_protos::worker::workers_server::Workers;
use kiln_protos::worker::{SchedulerMessage, WorkerMessage};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use crate::session::{OUTBOUND_CAPACITY, handshake, known_as, serve};
use crate::shared::Core;

#[derive(Clone)]
pub struct WorkersService {
    pub(crate) core: Arc<Core>,
}

#[tonic::async_trait]
impl Workers for WorkersService {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SchedulerMessage, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<WorkerMessage>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        // Actions of any instance may come its way.
        let access = &self.core.parts.access;
        access.check_everywhere(request.extensions(), Right::Work).map_err(refused_status)?;
        let credential = access.name(request.extensions());
        // A broken connection ends the session as its orderly end does.
        let inbound = request.into_inner();
        let mut inbound = inbound
            .take_while(|message| future::ready(message.is_ok()))
            .filter_map(|message| future::ready(message.ok()));
        let mut hello = handshake(&mut inbound).await.map_err(Status::invalid_argument)?;
        hello.worker_id = known_as(&hello.worker_id, credential.as_deref());
        let (sender, receiver) = mpsc::channel(OUTBOUND_CAPACITY);
        tokio::spawn(serve(self.core.queue.clone(), hello, inbound, sender));
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver).map(Ok))))
    }
}
