//! What a request gets that no service knows.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderMap, Response, StatusCode, header};
use tonic::Status;

/// gRPC clients get UNIMPLEMENTED with the method's name, others 404.
pub async fn unknown(request: Request) -> Response<Body> {
    if is_grpc(request.headers()) {
        return unknown_method(request.uri().path()).into_http();
    }
    let mut response =
        Response::new(Body::from("There is nothing here; the web pages start at /\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}

pub fn unknown_method(path: &str) -> Status {
    Status::unimplemented(format!("Kiln does not know the method {path}"))
}

pub fn is_grpc(headers: &HeaderMap) -> bool {
    headers
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}
