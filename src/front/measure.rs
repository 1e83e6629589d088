//! Counts requests: gRPC calls by the code at their end, plain HTTP by the status.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http::{HeaderMap, Request, Response, Version};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use kiln_cas::access::Right;
use kiln_cas::budget::Share;
use tonic::Code;
use tower::Service as _;

use super::body::Expected;
use super::gate::{Origin, turn_away};
use super::memory::charged;
use super::service::Service;
use super::site::Stranger;
use super::status::{GRPC_STATUS, correct};
use super::unknown::is_grpc;
use crate::auth::access::Caller;
use crate::auth::local::Neighbour;
use crate::auth::permissions::{Permission, is_registry, of_grpc, of_http};
use crate::registry::challenge::Realm;
use crate::telemetry::requests::{Call, Lane, Route, UNKNOWN_PLACE, place};

/// Calls of this service end with their client: an answer is worth its work only while somebody waits.
const EXECUTION: &str = "/build.bazel.remote.execution.v2.Execution/";

/// Permissions that concern everybody: running actions for others, and administering the server.
const WORK: Permission = Permission::All(Right::Work);
const ADMINISTER: Permission = Permission::All(Right::Administer);
/// The permission to write what others will rely on: results, and which tests nobody has to wait
/// for.
const RESULTS: Permission = Permission::Instance(Right::WriteResults);
const RELEASES: Permission = Permission::Instance(Right::Release);
const EXECUTES: Permission = Permission::Instance(Right::Execute);
const HOSTS: Permission = Permission::Instance(Right::Host);
const QUEUES: Permission = Permission::Instance(Right::Queue);
const LANDS: Permission = Permission::Instance(Right::Land);

/// The counters that a request belongs to: those of gRPC calls, or those of plain HTTP.
enum Kind {
    Call(Call),
    Http(Arc<Lane>, Route),
}

/// Answers `request`, if it may come in, and counts it.
pub async fn measured(
    service: Arc<Service>,
    origin: Arc<Origin>,
    share: Share,
    mut request: Request<Incoming>,
) -> Result<Response<Measured>, Infallible> {
    let kind = kind(service.counters.clone(), &request);
    if is_registry(request.uri().path()) {
        let realm = service.site.realm(&request);
        request.extensions_mut().insert(Realm(realm));
    }
    let admitted = admit(&service, &origin, &mut request).await;
    if request.uri().path().starts_with(EXECUTION) {
        request.extensions_mut().insert(origin.connection.clone());
    }
    if is_linked_to(&request)
        && let Some(url) = service.site.called(&request)
    {
        request.extensions_mut().insert(url);
    }
    let response = match admitted {
        Ok(()) => {
            let (request, _held) = charged(expecting(&service, request), &share);
            service.router.clone().call(request).await?
        }
        Err(refusal) => refusal,
    };
    Ok(match kind {
        Kind::Call(call) => answered(call, response),
        Kind::Http(lane, route) => {
            lane.answered(route, response.status().as_u16());
            response.map(|body| Measured { body, call: None })
        }
    })
}

/// Says whether the request may come further, or what to answer instead.
async fn admit(
    service: &Service,
    origin: &Origin,
    request: &mut Request<Incoming>,
) -> Result<(), Response<Body>> {
    let away = |stranger: &Stranger, request: &Request<Incoming>| {
        turn_away(stranger, origin, request, &service.failures)
    };
    let method = of_grpc(request.uri().path());
    if let Err(stranger) = service.site.check(request, method.is_some()) {
        return Err(away(&stranger, request));
    }
    match &service.gate {
        Some(gate) => gate.admit(origin, request).await?,
        None if concerns_everybody(method, request) => introduce(origin, request),
        None => {}
    }
    let is_known = |request: &Request<Incoming>| {
        request.extensions().get::<Caller>().is_some_and(|caller| caller.name().is_some())
    };
    match service.site.check_name(request) {
        Err(stranger) if !is_known(request) => Err(away(&stranger, request)),
        _ => Ok(()),
    }
}

fn concerns_everybody(method: Option<Permission>, request: &Request<Incoming>) -> bool {
    let of_http = || of_http(request.method(), request.uri().path());
    // Who pushes to the registry says what others get, and what a pipeline runs may release.
    is_registry(request.uri().path())
        || (method.is_none() && of_http() == EXECUTES)
        || matches!(
            method.unwrap_or_else(of_http),
            WORK | ADMINISTER | RESULTS | RELEASES | HOSTS | QUEUES | LANDS
        )
}

/// Whether there are links in answers to it.
fn is_linked_to(request: &Request<Incoming>) -> bool {
    let path = request.uri().path();
    path.starts_with(EXECUTION) || matches!(Route::of(path), Route::Page | Route::Api)
}

/// Tells the services which connection a request came by, where nobody is asked who calls: the user
/// at its other end can be found out by it.
fn introduce(origin: &Origin, request: &mut Request<Incoming>) {
    if let Some((client, here)) = origin.ends {
        request.extensions_mut().insert(Arc::new(Neighbour::new(client, here)));
    }
}

/// Gives the request a limit to how long its body may take.
fn expecting(service: &Service, request: Request<Incoming>) -> Request<Expected<Incoming>> {
    let (parts, body) = request.into_parts();
    let is_http2 = parts.version >= Version::HTTP_2;
    let body = Expected::new(body, parts.uri.path(), is_http2, service.limits.body);
    Request::from_parts(parts, body)
}

fn kind(lane: Arc<Lane>, request: &Request<Incoming>) -> Kind {
    let path = request.uri().path();
    match place(path) {
        Some(place) => Kind::Call(lane.call(place)),
        None if is_grpc(request.headers()) => Kind::Call(lane.call(UNKNOWN_PLACE)),
        None => Kind::Http(lane, Route::of(path)),
    }
}

/// A call without a body has its code in the headers; others have it in the trailers.
fn answered(call: Call, mut response: Response<Body>) -> Response<Measured> {
    correct(response.headers_mut());
    match code(response.headers()) {
        Some(code) => {
            call.end(code);
            response.map(|body| Measured { body, call: None })
        }
        None => response.map(|body| Measured { body, call: Some(call) }),
    }
}

fn code(headers: &HeaderMap) -> Option<Code> {
    headers.get(&GRPC_STATUS).map(|value| Code::from_bytes(value.as_bytes()))
}

/// A body that ends the call when it ends itself.
pub struct Measured {
    body: Body,
    call: Option<Call>,
}

impl Measured {
    fn end(&mut self, code: Code) {
        if let Some(call) = self.call.take() {
            call.end(code);
        }
    }
}

impl http_body::Body for Measured {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let mut frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &mut frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_mut() {
                    correct(trailers);
                    self.end(code(trailers).unwrap_or(Code::Unknown));
                }
            }
            // An answer that ends without a code is one of unknown outcome, as clients see it.
            Some(Err(_)) | None => self.end(Code::Unknown),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::telemetry::requests::Requests;

    fn start() -> (Requests, Call) {
        let requests = Requests::new(1, kiln_cas::budget::Budget::new(0));
        let call = requests.lanes()[0].clone().call(0);
        (requests, call)
    }

    fn counted(requests: &Requests, code: Code) -> u64 {
        requests.calls(0, code as usize)
    }

    #[tokio::test]
    async fn the_code_is_in_the_trailers_or_unknown() {
        for (status, code) in [(Some("5"), Code::NotFound), (None, Code::Unknown)] {
            let (requests, call) = start();
            let mut trailers = HeaderMap::new();
            if let Some(status) = status {
                trailers.insert(GRPC_STATUS, status.parse().unwrap());
            }
            let body = http_body_util::Full::new(Bytes::from("data"))
                .with_trailers(async move { Some(Ok(trailers)) });
            let response = answered(call, Response::new(Body::new(body)));
            assert_eq!(counted(&requests, code), 0);
            response.into_body().collect().await.unwrap();
            assert_eq!(counted(&requests, code), 1);
            assert_eq!(requests.in_flight(), 0);
        }
    }

    #[tokio::test]
    async fn the_code_is_in_the_headers_of_an_answer_without_body() {
        let (requests, call) = start();
        let response = tonic::Status::already_exists("there").into_http::<Body>();
        drop(answered(call, response));
        assert_eq!(counted(&requests, Code::AlreadyExists), 1);
        assert_eq!(counted(&requests, Code::Cancelled), 0);
    }

    #[tokio::test]
    async fn a_client_that_goes_away_cancels() {
        let (requests, call) = start();
        let mut body = answered(call, Response::new(Body::from("data"))).into_body();
        body.frame().await.unwrap().unwrap();
        drop(body);
        assert_eq!(counted(&requests, Code::Cancelled), 1);
    }
}
