//! Blobs: read whole and in parts, and deleted.

use axum::body::Body;
use axum::response::Response;
use futures_util::{StreamExt, TryStreamExt};
use http::header::{
    ACCEPT_RANGES, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG, HeaderName, RANGE,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};
use kiln_cas::access::Right;
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::registry::{Code, Span, Wanted, wanted};

use super::answers::Failure;
use super::requests::{Request, no_digest, not_allowed, tag_of};

pub const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCTETS: HeaderValue = HeaderValue::from_static("application/octet-stream");
/// Bytes of a blob that wait to be sent.
const IN_FLIGHT: u64 = 1 << 20;

pub async fn answer(
    request: &Request<'_>,
    digest: Option<&ContentDigest>,
) -> Result<Response, Failure> {
    match request.parts.method {
        Method::GET | Method::HEAD => {
            request.check(Right::Read)?;
            let digest = digest.ok_or_else(no_digest)?;
            if request.has(digest) {
                request.registry().blob_size(request.repository, digest).await?;
                return Ok(unchanged(digest));
            }
            match request.is_head() {
                true => head(request, digest).await,
                false => get(request, digest).await,
            }
        }
        Method::DELETE => {
            request.check_delete()?;
            let digest = digest.ok_or_else(no_digest)?;
            request.registry().delete_blob(request.repository, digest).await?;
            Ok(empty(StatusCode::ACCEPTED))
        }
        _ => Err(not_allowed()),
    }
}

async fn head(request: &Request<'_>, digest: &ContentDigest) -> Result<Response, Failure> {
    let size = request.registry().blob_size(request.repository, digest).await?;
    let mut response = empty(StatusCode::OK);
    describe(response.headers_mut(), digest, size);
    Ok(response)
}

async fn get(request: &Request<'_>, digest: &ContentDigest) -> Result<Response, Failure> {
    let (registry, repository) = (request.registry(), request.repository);
    let range = request.headers().get(RANGE).and_then(|it| it.to_str().ok());
    let content = registry.link(repository, digest).await?;
    let size = content.size;
    let part = match range.map_or(Wanted::Whole, |range| wanted(range, size)) {
        Wanted::Whole => None,
        Wanted::Part(span) => Some(span),
        Wanted::Nothing => return Ok(unsatisfiable(size)),
    };
    let span = part.map_or((0, size), |span| (span.first, span.length()));
    let charge = request.charge(span.1.min(IN_FLIGHT)).await?;
    let blob = registry.read_blob(digest, &content, span.0, part.map(Span::length)).await?;
    // What is not read yet stays charged.
    let pieces = blob.into_stream().map_err(std::io::Error::other);
    let mut response = Response::new(Body::from_stream(pieces.inspect(move |_| _ = &charge)));
    describe(response.headers_mut(), digest, span.1);
    if let Some(Span { first, last }) = part {
        *response.status_mut() = StatusCode::PARTIAL_CONTENT;
        insert(response.headers_mut(), CONTENT_RANGE, format!("bytes {first}-{last}/{size}"));
    }
    Ok(response)
}

fn describe(headers: &mut HeaderMap, digest: &ContentDigest, length: u64) {
    headers.insert(CONTENT_TYPE, OCTETS);
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    insert(headers, CONTENT_LENGTH, length.to_string());
    insert(headers, CONTENT_DIGEST, digest.to_string());
    insert(headers, ETAG, tag_of(digest));
}

/// The answer to who has the content already.
pub fn unchanged(digest: &ContentDigest) -> Response {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    insert(response.headers_mut(), CONTENT_DIGEST, digest.to_string());
    insert(response.headers_mut(), ETAG, tag_of(digest));
    response
}

fn unsatisfiable(size: u64) -> Response {
    let mut response = super::answers::failure(
        StatusCode::RANGE_NOT_SATISFIABLE,
        Code::SizeInvalid,
        &format!("the blob has {size} bytes, and none of those that are asked for"),
    );
    insert(response.headers_mut(), CONTENT_RANGE, format!("bytes */{size}"));
    response
}

pub fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// Sets a header. Values here are names, digests and numbers, which always fit; any other is left
/// out.
pub fn insert(headers: &mut HeaderMap, name: HeaderName, value: String) {
    if let Ok(value) = HeaderValue::try_from(value) {
        headers.insert(name, value);
    }
}
