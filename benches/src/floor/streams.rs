//! ByteStream with constant answers.

use std::sync::Arc;

use futures_util::stream;
use kiln_protos::bytestream::byte_stream_server::ByteStream;
use kiln_protos::bytestream::{
    QueryWriteStatusRequest, QueryWriteStatusResponse, ReadRequest, ReadResponse, WriteRequest,
    WriteResponse,
};
use tonic::{Request, Response, Status, Streaming};

use crate::sample::{Key, LARGE, Pattern, SMALL};

type Messages = Arc<[ReadResponse]>;

#[derive(Clone)]
pub struct Streams {
    small: Messages,
    large: Messages,
}

impl Streams {
    /// `chunk`: bytes of data in a message.
    pub fn new(chunk: usize) -> Self {
        Self { small: messages(SMALL, chunk), large: messages(LARGE, chunk) }
    }
}

fn messages(size: usize, chunk: usize) -> Messages {
    let pieces = Pattern::new(size).pieces(Key::FIRST, chunk);
    pieces.into_iter().map(|piece| ReadResponse { data: piece.into() }).collect()
}

/// The messages of one read; each is copied when its turn comes, as the generated type demands.
type Reading = stream::Iter<Replies>;

pub struct Replies {
    messages: Messages,
    next: usize,
}

impl Iterator for Replies {
    type Item = Result<ReadResponse, Status>;

    fn next(&mut self) -> Option<Self::Item> {
        let message = self.messages.get(self.next)?.clone();
        self.next += 1;
        Some(Ok(message))
    }
}

#[tonic::async_trait]
impl ByteStream for Streams {
    type ReadStream = Reading;

    async fn read(&self, request: Request<ReadRequest>) -> Result<Response<Reading>, Status> {
        let name = &request.get_ref().resource_name;
        let size = name.rsplit('/').next().and_then(|size| size.parse().ok());
        let messages = match size {
            Some(SMALL) => &self.small,
            Some(LARGE) => &self.large,
            _ => return Err(Status::not_found("the floor holds 4 KiB and 64 MiB only")),
        };
        Ok(Response::new(stream::iter(Replies { messages: messages.clone(), next: 0 })))
    }

    async fn write(
        &self,
        request: Request<Streaming<WriteRequest>>,
    ) -> Result<Response<WriteResponse>, Status> {
        let mut messages = request.into_inner();
        let mut committed_size = 0;
        while let Some(message) = messages.message().await? {
            committed_size += i64::try_from(message.data.len()).unwrap_or(i64::MAX);
        }
        Ok(Response::new(WriteResponse { committed_size }))
    }

    async fn query_write_status(
        &self,
        _: Request<QueryWriteStatusRequest>,
    ) -> Result<Response<QueryWriteStatusResponse>, Status> {
        Err(Status::not_found("the floor keeps nothing"))
    }
}
