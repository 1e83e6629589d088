//! Calls that are made on behalf of the invocations that they name: the promises that the stores make
//! while they answer are attributed to these.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::invocation_id::invocation_id;
use crate::promises::{Invocations, Presence, on_behalf_now};

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
    type Future = AttributedFuture<S::Future>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let presence = invocation_id(request.headers(), |id| self.invocations.begin(id));
        AttributedFuture { inner: self.inner.call(request), presence, streams: self.streams }
    }
}

/// A call until its response begins.
pub struct AttributedFuture<F> {
    inner: F,
    presence: Option<Presence>,
    streams: bool,
}

impl<F> Future for AttributedFuture<F>
where
    F: Future<Output = Result<Response<Body>, Infallible>> + Unpin,
{
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(presence) = &this.presence else { return Pin::new(&mut this.inner).poll(context) };
        let polled = on_behalf_now(presence, || Pin::new(&mut this.inner).poll(context));
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
        on_behalf_now(&this.presence, poll)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
