//! Whose calls a task answers: promises that it makes are attributed to them.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::invocations::{Invocations, Presence};
use crate::services::{MAX_METADATA, REQUEST_METADATA, wire::take_varint};

/// Tag of `RequestMetadata.tool_invocation_id`.
const TOOL_INVOCATION_ID: u64 = 3 << 3 | 2;
/// Encoded metadata of usual length is decoded without asking for memory.
const USUAL_METADATA: usize = 1024;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

tokio::task_local! {
    /// Bits of the seats of those for whom a task works.
    static HOLDERS: u32;
}

/// Bits of the seats to which promises are attributed that this task makes now; 0: nobody's.
pub fn holders() -> u32 {
    HOLDERS.try_with(|holders| *holders).unwrap_or(0)
}

/// Attributes the promises that `work` makes on its own task to whoever is present.
pub async fn on_behalf<F: Future>(present: Option<&Presence>, work: F) -> F::Output {
    HOLDERS.scope(present.map_or(0, Presence::holders), work).await
}

/// The invocation that a request names, without decoding the rest of its metadata.
pub fn invocation_id<T>(headers: &HeaderMap, found: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let encoded = headers.get(REQUEST_METADATA)?.as_bytes();
    if encoded.len() > MAX_METADATA {
        return None;
    }
    let mut usual = [0; USUAL_METADATA];
    if let Ok(length) = BASE64.decode_slice(encoded, &mut usual) {
        return found(find_invocation(&usual[..length])?);
    }
    found(find_invocation(&BASE64.decode(encoded).ok()?)?)
}

fn find_invocation(mut data: &[u8]) -> Option<&[u8]> {
    let mut id = None;
    while !data.is_empty() {
        let tag = take_varint(&mut data)?;
        let skip = match tag & 7 {
            0 => take_varint(&mut data).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(take_varint(&mut data)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = data.split_at_checked(skip)?;
        if tag == TOOL_INVOCATION_ID {
            id = Some(value);
        }
        data = rest;
    }
    id
}

/// A gRPC service whose calls are attributed to the invocations that they name.
#[derive(Clone)]
pub struct Attributed<S> {
    inner: S,
    invocations: Invocations,
    streams: bool,
}

impl<S> Attributed<S> {
    /// An invocation is present until its call is answered.
    pub fn calls(inner: S, invocations: Invocations) -> Self {
        Self { inner, invocations, streams: false }
    }

    /// An invocation is present until the last message of an answer was taken, and answers are
    /// made on its behalf too.
    pub fn streams(inner: S, invocations: Invocations) -> Self {
        Self { inner, invocations, streams: true }
    }
}

impl<S: NamedService> NamedService for Attributed<S> {
    const NAME: &'static str = S::NAME;
}

impl<S, B> Service<Request<B>> for Attributed<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible, Future: Unpin>,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Answer<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let presence = invocation_id(request.headers(), |id| self.invocations.begin(id));
        Answer { inner: self.inner.call(request), presence, streams: self.streams }
    }
}

/// A call until its response begins.
pub struct Answer<F> {
    inner: F,
    presence: Option<Presence>,
    streams: bool,
}

impl<F> Future for Answer<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(presence) = &this.presence else { return Pin::new(&mut this.inner).poll(context) };
        let polled =
            HOLDERS.sync_scope(presence.holders(), || Pin::new(&mut this.inner).poll(context));
        let Ok(response) = ready!(polled);
        Poll::Ready(Ok(match this.presence.take().filter(|_| this.streams) {
            Some(presence) => response.map(|inner| Body::new(Held { inner, presence })),
            None => response,
        }))
    }
}

/// A response body during which an invocation is present.
struct Held {
    inner: Body,
    presence: Presence,
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = <Body as http_body::Body>::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        let poll = || Pin::new(&mut this.inner).poll_frame(context);
        HOLDERS.sync_scope(this.presence.holders(), poll)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
