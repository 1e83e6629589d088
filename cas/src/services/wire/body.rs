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
use crate::budget::Charge;
use crate::services::status::budget_status;

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
    /// What has arrived of the largest message.
    charge: Charge,
}

impl<B: RequestBody> Messages<B> {
    /// `charge` pays for the bytes of a message while it is put together, and afterwards.
    pub fn new(body: B, name: &'static str, limit: usize, charge: Charge) -> Self {
        Self { body, assembler: Assembler::new(limit), name, charge }
    }

    /// Adds `bytes` to what this request holds.
    pub async fn charge(&mut self, bytes: u64) -> Result<(), Status> {
        self.charge.add(bytes).await.map_err(|error| budget_status(&error))
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
                let held = (self.assembler.held() + data.len()) as u64;
                self.charge.grow_to(held).await.map_err(|error| budget_status(&error))?;
                self.assembler.push(data);
            }
        }
    }

    /// The one message of a unary call, and what it is charged.
    pub async fn single(mut self) -> Result<(Bytes, Charge), Status> {
        let Some(message) = self.next().await? else {
            return Err(Status::invalid_argument(format!("{}: no message came", self.name)));
        };
        if self.next().await?.is_some() {
            return Err(Status::invalid_argument(format!(
                "{}: a second message came where one belongs",
                self.name
            )));
        }
        Ok((message, self.charge))
    }

    fn refuse(&self, error: FrameError) -> Status {
        let code = match error {
            // As the services answer that do not read messages here. Bazel tries RESOURCE_EXHAUSTED
            // again, and no second try makes a message smaller.
            FrameError::TooLarge { .. } => Code::OutOfRange,
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
    /// What the message is charged until it has been sent.
    charge: Charge,
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
            return Self::of(buffer.freeze(), Bytes::new());
        }
        Self::of(buffer.freeze(), payload)
    }

    fn of(head: Bytes, payload: Bytes) -> Self {
        Self { head, payload, charge: Charge::default() }
    }

    /// Keeps `charge` for as long as the message is not sent.
    pub fn charged(self, charge: Charge) -> Self {
        Self { charge, ..self }
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
        Self::of(buffer.freeze(), Bytes::new())
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
    head: Option<Bytes>,
    payload: Bytes,
    _charge: Charge,
    done: bool,
}

impl Reply {
    pub fn new(message: Encoded) -> Self {
        let Encoded { head, payload, charge } = message;
        Self { head: Some(head), payload, _charge: charge, done: false }
    }
}

impl Body for Reply {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(head) = self.head.take() {
            return Poll::Ready(Some(Ok(Frame::data(head))));
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
