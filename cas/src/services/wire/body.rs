//! Request bodies as messages, and messages as response bodies.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::HeaderMap;
use http_body::{Body, Frame};
use http_body_util::BodyExt;
use tonic::{Code, Status};

use super::{Assembler, FrameError, PREFIX};

/// Any request body that the services take.
pub trait RequestBody:
    Body<Data = Bytes, Error: std::fmt::Display + Send> + Send + Unpin + 'static
{
}

impl<B> RequestBody for B where
    B: Body<Data = Bytes, Error: std::fmt::Display + Send> + Send + Unpin + 'static
{
}

/// The messages of a request body in order.
pub struct Messages<B> {
    body: B,
    assembler: Assembler,
    /// The message's type, for errors.
    name: &'static str,
}

impl<B: RequestBody> Messages<B> {
    pub fn new(body: B, name: &'static str, limit: usize) -> Self {
        Self { body, assembler: Assembler::new(limit), name }
    }

    /// `None`: the client has ended its side.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Status> {
        loop {
            if let Some(message) = self.assembler.next_message().map_err(|e| self.refuse(e))? {
                return Ok(Some(message));
            }
            let Some(frame) = self.body.frame().await else {
                self.assembler.finish().map_err(|e| self.refuse(e))?;
                return Ok(None);
            };
            let frame = frame
                .map_err(|error| Status::cancelled(format!("the request broke off: {error}")))?;
            if let Ok(data) = frame.into_data() {
                self.assembler.push(data);
            }
        }
    }

    /// The one message of a unary call.
    pub async fn single(mut self) -> Result<Bytes, Status> {
        let Some(message) = self.next().await? else {
            return Err(Status::invalid_argument(format!("{}: no message came", self.name)));
        };
        if self.next().await?.is_some() {
            return Err(Status::invalid_argument(format!(
                "{}: a second message came where one belongs",
                self.name
            )));
        }
        Ok(message)
    }

    fn refuse(&self, error: FrameError) -> Status {
        let code = match error {
            FrameError::TooLarge { .. } => Code::ResourceExhausted,
            FrameError::Compressed => Code::Unimplemented,
            FrameError::Truncated => Code::InvalidArgument,
        };
        Status::new(code, format!("{}: {error}", self.name))
    }
}

/// Payloads up to this size are copied behind their head: one frame is cheaper than two.
const JOIN_UP_TO: usize = 8 << 10;

/// One message as it goes out: gRPC's prefix, a head, and a payload that is not copied.
pub struct Encoded {
    head: Bytes,
    payload: Bytes,
}

impl Encoded {
    pub fn new(head: &[u8], payload: Bytes) -> Self {
        let join = payload.len() <= JOIN_UP_TO;
        let room = PREFIX + head.len() + if join { payload.len() } else { 0 };
        let mut buffer = BytesMut::with_capacity(room);
        put_prefix(&mut buffer, head.len() + payload.len());
        buffer.extend_from_slice(head);
        if join {
            buffer.extend_from_slice(&payload);
            return Self { head: buffer.freeze(), payload: Bytes::new() };
        }
        Self { head: buffer.freeze(), payload }
    }

    /// A message that is encoded already.
    pub fn whole(message: Bytes) -> Self {
        Self::new(&[], message)
    }

    pub fn message(message: &impl prost::Message) -> Self {
        let size = message.encoded_len();
        let mut buffer = BytesMut::with_capacity(PREFIX + size);
        put_prefix(&mut buffer, size);
        let encoded = message.encode(&mut buffer);
        debug_assert!(encoded.is_ok(), "the buffer grows as needed");
        Self { head: buffer.freeze(), payload: Bytes::new() }
    }

    pub fn size(&self) -> usize {
        self.head.len() + self.payload.len()
    }
}

fn put_prefix(buffer: &mut BytesMut, size: usize) {
    buffer.extend_from_slice(&[0]);
    // Responses are far below 4 GiB: blobs are cut into chunks.
    buffer.extend_from_slice(&u32::try_from(size).unwrap_or(u32::MAX).to_be_bytes());
}

fn trailers(status: &Status) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(4);
    if status.add_header(&mut map).is_err() {
        map.clear();
        map.insert(Status::GRPC_STATUS, (Code::Internal as i32).into());
    }
    map
}

fn ok_trailers() -> HeaderMap {
    let mut map = HeaderMap::with_capacity(1);
    map.insert(Status::GRPC_STATUS, http::HeaderValue::from_static("0"));
    map
}

/// The body of a response with exactly one message.
pub struct Reply {
    message: Option<Encoded>,
    payload: Bytes,
    done: bool,
}

impl Reply {
    pub fn new(message: Encoded) -> Self {
        Self { message: Some(message), payload: Bytes::new(), done: false }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(message) = self.message.take() {
            self.payload = message.payload;
            return Poll::Ready(Some(Ok(Frame::data(message.head))));
        }
        if !self.payload.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.payload)))));
        }
        if self.done {
            return Poll::Ready(None);
        }
        self.done = true;
        Poll::Ready(Some(Ok(Frame::trailers(ok_trailers()))))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}

/// The body of a response with any number of messages; an error ends it.
pub struct StreamReply<S> {
    messages: S,
    payload: Bytes,
    done: bool,
}

impl<S> StreamReply<S> {
    pub fn new(messages: S) -> Self {
        Self { messages, payload: Bytes::new(), done: false }
    }
}

impl<S> Body for StreamReply<S>
where
    S: Stream<Item = Result<Encoded, Status>> + Unpin,
{
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if self.done {
            return Poll::Ready(None);
        }
        if !self.payload.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(std::mem::take(&mut self.payload)))));
        }
        let next = std::task::ready!(Pin::new(&mut self.messages).poll_next(context));
        let frame = match next {
            Some(Ok(message)) => {
                self.payload = message.payload;
                Frame::data(message.head)
            }
            Some(Err(status)) => {
                self.done = true;
                Frame::trailers(trailers(&status))
            }
            None => {
                self.done = true;
                Frame::trailers(ok_trailers())
            }
        };
        Poll::Ready(Some(Ok(frame)))
    }

    fn is_end_stream(&self) -> bool {
        self.done
    }
}
