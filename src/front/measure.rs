//! Counts requests: gRPC calls by the code at their end, plain HTTP by the status.

use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use axum::body::{Body, Bytes};
use http::{HeaderMap, HeaderName, Request, Response};
use http_body::{Frame, SizeHint};
use hyper::body::Incoming;
use tonic::Code;
use tower::Service as _;

use super::connection::Service;
use super::gate::Origin;
use super::unknown::is_grpc;
use crate::telemetry::requests::{Call, Lane, Route, UNKNOWN_PLACE, place};

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What a request counts as.
enum Kind {
    Call(Call),
    Http(Arc<Lane>, Route),
}

/// Answers `request`, if it may come in, and counts it.
pub async fn measured(
    service: Arc<Service>,
    origin: Arc<Origin>,
    mut request: Request<Incoming>,
) -> Result<Response<Measured>, Infallible> {
    let kind = kind(service.counters.clone(), &request);
    let admitted = match &service.gate {
        Some(gate) => gate.admit(&origin, &mut request).await,
        None => Ok(()),
    };
    let response = match admitted {
        Ok(()) => service.router.clone().call(request).await?,
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

fn kind(lane: Arc<Lane>, request: &Request<Incoming>) -> Kind {
    let path = request.uri().path();
    match place(path) {
        Some(place) => Kind::Call(lane.call(place)),
        None if is_grpc(request.headers()) => Kind::Call(lane.call(UNKNOWN_PLACE)),
        None => Kind::Http(lane, Route::of(path)),
    }
}

/// A call without a body has its code in the headers; others have it in the trailers.
fn answered(call: Call, response: Response<Body>) -> Response<Measured> {
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
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
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
        let requests = Requests::new(1);
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
