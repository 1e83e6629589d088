//! Answers to requests that no service knows.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode, header};
use tonic::Status;

/// gRPC clients get UNIMPLEMENTED with the method's name, others 404, browsers as a page.
pub async fn of_server(request: Request) -> Response<Body> {
    let wants_page = request.headers().get(header::ACCEPT).is_some_and(|accepted| {
        accepted.to_str().is_ok_and(|accepted| accepted.contains("text/html"))
    });
    if wants_page && !is_grpc(request.headers()) {
        return kiln_web::no_page(request.uri().path());
    }
    unknown(&request, "There is nothing here; the web pages start at /\n")
}

/// Answers requests of no service at a worker's status server: gRPC clients get UNIMPLEMENTED,
/// others 404.
pub async fn of_worker(request: Request) -> Response<Body> {
    unknown(&request, "This is a worker: it answers /healthz, /readyz and /metrics\n")
}

fn unknown(request: &Request, words: &'static str) -> Response<Body> {
    if is_grpc(request.headers()) {
        return unknown_method(request.uri().path()).into_http();
    }
    let mut response = Response::new(Body::from(words));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

pub fn unknown_method(path: &str) -> Status {
    Status::unimplemented(format!("Kiln does not know the method {path}"))
}

const GRPC: &[u8] = b"application/grpc";

/// `application/grpc`, also with a codec (`+proto`); not `application/grpc-web`, which browsers speak.
pub fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    kind.split_at_checked(GRPC.len()).is_some_and(|(kind, rest)| {
        kind.eq_ignore_ascii_case(GRPC) && matches!(rest, [] | [b'+' | b';' | b' ', ..])
    })
}
