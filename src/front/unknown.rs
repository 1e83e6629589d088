//! What a request gets that no service knows.

use axum::body::Body;
use axum::extract::Request;
use axum::http::{Response, StatusCode, header};

/// gRPC clients get UNIMPLEMENTED with the method's name, others 404.
pub async fn unknown(request: Request) -> Response<Body> {
    let grpc = request
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if grpc {
        let message = format!("Kiln does not know the method {}", request.uri().path());
        return tonic::Status::unimplemented(message).into_http();
    }
    let mut response =
        Response::new(Body::from("There is nothing here; the web pages start at /\n"));
    *response.status_mut() = StatusCode::NOT_FOUND;
    response
}
