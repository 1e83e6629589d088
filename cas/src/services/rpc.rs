//! A gRPC service as a match over method names, without what the generated ones cost.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures_util::Stream;
use http::{Extensions, HeaderValue, Request, Response, Uri};
use tonic::Status;
use tonic::body::Body;
use tonic::codegen::Service;
use tonic::server::NamedService;

use super::status::budget_status;
use super::wire::{Encoded, Messages, Reply, RequestBody, StreamReply};
use crate::budget::Charge;
use crate::counted::{self, Counted, ENTRY_BYTES};

/// Largest request message of calls that carry blobs or long lists of digests. More than is
/// advertised: some clients fill batches to the advertised size and then add framing.
pub const MAX_BATCH_MESSAGE: usize = 64 << 20;
/// Largest message of a ByteStream.
pub const MAX_STREAM_MESSAGE: usize = 16 << 20;
/// Largest message of all other calls.
pub const MAX_MESSAGE: usize = 4 << 20;

/// The methods of one service.
pub trait Handler: Send + Sync + 'static {
    /// Full name of the service.
    const NAME: &'static str;

    fn handle<B: RequestBody>(
        self: Arc<Self>,
        request: Request<B>,
    ) -> impl Future<Output = Result<Response<Body>, Status>> + Send;
}

/// A handler as a service for tonic's router.
pub struct Grpc<H>(pub Arc<H>);

impl<H> Clone for Grpc<H> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<H: Handler> NamedService for Grpc<H> {
    const NAME: &'static str = H::NAME;
}

impl<H: Handler, B: RequestBody> Service<Request<B>> for Grpc<H> {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let handler = Arc::clone(&self.0);
        Box::pin(async move {
            Ok(handler.handle(request).await.unwrap_or_else(|status| status.into_http()))
        })
    }
}

/// The method's name: what follows the last slash of the path.
pub fn method<B>(request: &Request<B>) -> &str {
    method_of(request.uri())
}

/// The method's name, by a request's URI.
pub fn method_of(uri: &Uri) -> &str {
    let path = uri.path();
    path.rsplit_once('/').map_or(path, |(_, method)| method)
}

pub fn unknown_method(service: &str, method: &str) -> Status {
    Status::unimplemented(format!("{service} has no method {method:?}"))
}

/// The only message of a unary call, and what it is charged: keep that for as long as the call
/// lasts. `caller`: the extensions of the request.
pub async fn single<B: RequestBody>(
    caller: &Extensions,
    body: B,
    name: &'static str,
    limit: usize,
) -> Result<(Bytes, Charge), Status> {
    Messages::new(body, name, limit, Charge::of(caller)).single().await
}

/// The only message of a unary call, decoded, and what it is charged.
pub async fn decode_single<M: Counted, B: RequestBody>(
    caller: &Extensions,
    body: B,
    name: &'static str,
    limit: usize,
) -> Result<(M, Charge), Status> {
    let (message, mut charge) = single(caller, body, name, limit).await?;
    let message = decode(name, message, &mut charge).await?;
    Ok((message, charge))
}

/// Decodes a message after its entries were counted and charged.
pub async fn decode<M: Counted>(
    name: &str,
    message: Bytes,
    charge: &mut Charge,
) -> Result<M, Status> {
    let invalid = |error| Status::invalid_argument(format!("{name}: {error}"));
    let entries = counted::count::<M>(&message).map_err(invalid)?;
    add(charge, entries as u64 * ENTRY_BYTES).await?;
    M::decode(message).map_err(|error| invalid(error.into()))
}

/// Charges `bytes` more.
pub async fn add(charge: &mut Charge, bytes: u64) -> Result<(), Status> {
    charge.add(bytes).await.map_err(|error| budget_status(&error))
}

/// A response of one message.
pub fn reply(message: Encoded) -> Response<Body> {
    response(Body::new(Reply::new(message)))
}

/// A response of many messages.
pub fn reply_stream<S>(messages: S) -> Response<Body>
where
    S: Stream<Item = Result<Encoded, Status>> + Send + Unpin + 'static,
{
    response(Body::new(StreamReply::new(messages)))
}

fn response(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response
        .headers_mut()
        .insert(http::header::CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    response
}
