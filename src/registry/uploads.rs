//! Blobs that are pushed: whole, in parts, or from another repository.

use axum::response::Response;
use http::header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderName, LOCATION, RANGE};
use http::{HeaderValue, Method, StatusCode};
use kiln_cas::access::Right;
use kiln_deploy::oci::{ContentDigest, Repository};
use kiln_deploy::registry::store::{Ending, RegistryError};
use kiln_deploy::registry::{Code, PIECE, PartError, Span, Upload};

use super::answers::Failure;
use super::blobs::{CONTENT_DIGEST, empty, insert};
use super::requests::{Request, no_digest, not_allowed};

const UPLOAD_ID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// Pieces that an upload has in memory: one that fills, and those that are hashed and written.
const PIECES_HELD: u64 = 5;
const HELD: u64 = PIECES_HELD * PIECE as u64;
/// Hash functions that blobs may be named by.
const ALGORITHMS: [&str; 2] = ["sha256", "sha512"];

/// Answers a request that begins an upload.
pub async fn begin(request: &Request<'_>) -> Result<Response, Failure> {
    if request.parts.method != Method::POST {
        return Err(not_allowed());
    }
    admit(request).await?;
    let algorithm = request.parameters.get("digest-algorithm");
    if algorithm.is_some_and(|it| !ALGORITHMS.contains(&it)) {
        return Err(no_digest());
    }
    if let Some(digest) = request.parameters.digest("mount")?
        && mounted(request, &digest).await?
    {
        return Ok(created(request.repository, &digest));
    }
    if let Some(digest) = request.parameters.digest("digest")? {
        let _held = request.charge(HELD).await?;
        let (store, length) = (request.store(), request.length());
        let (registry, body) = (request.registry(), request.body.body());
        registry.push_blob(&store, request.repository, &digest, length, body).await?;
        return Ok(created(request.repository, &digest));
    }
    let id = request.registry().begin_upload(request.repository).await?;
    Ok(under_way(StatusCode::ACCEPTED, request.repository, &id, &Upload::begun(0)))
}

/// Checks that the registry takes pushes at all, and this one from the caller.
async fn admit(request: &Request<'_>) -> Result<(), Failure> {
    request.check(Right::WriteBlobs)?;
    Ok(request.registry().admit_push(request.repository, None).await?)
}

async fn mounted(request: &Request<'_>, digest: &ContentDigest) -> Result<bool, Failure> {
    let registry = request.registry();
    let mut sources: Vec<Repository> = match request.parameters.get("from") {
        Some(name) => name.parse().into_iter().collect(),
        None => registry.sources(digest).await?,
    };
    sources.retain(|source| request.state.may_read(&request.parts.extensions, source));
    Ok(registry.mount(request.repository, digest, &sources).await?)
}

/// An upload that has begun.
pub async fn answer(request: &Request<'_>, id: &str) -> Result<Response, Failure> {
    let (registry, repository) = (request.registry(), request.repository);
    match request.parts.method {
        Method::GET | Method::HEAD => {
            request.check(Right::WriteBlobs)?;
            let upload = registry.upload(repository, id).await?;
            Ok(under_way(StatusCode::NO_CONTENT, repository, id, &upload))
        }
        Method::DELETE => {
            request.check(Right::WriteBlobs)?;
            registry.cancel_upload(repository, id).await?;
            Ok(empty(StatusCode::NO_CONTENT))
        }
        Method::PATCH => {
            admit(request).await?;
            let span = span(request)?;
            let _held = request.charge(HELD).await?;
            let (store, body) = (request.store(), request.body.body());
            let upload = registry.add_part(&store, repository, id, span, body).await?;
            Ok(under_way(StatusCode::ACCEPTED, repository, id, &upload))
        }
        Method::PUT => {
            admit(request).await?;
            let digest = request.parameters.digest("digest")?.ok_or_else(no_digest)?;
            let span = span(request)?;
            let _held = request.charge(HELD).await?;
            let (length, body) = (request.length(), request.body.body());
            let ending = Ending { digest: &digest, span, length, body };
            registry.finish_upload(&request.store(), repository, id, ending).await?;
            Ok(created(repository, &digest))
        }
        _ => Err(not_allowed()),
    }
}

/// The range of the upload that this request's body is for; `None`: the request does not say.
fn span(request: &Request<'_>) -> Result<Option<Span>, Failure> {
    let Some(header) = request.headers().get(CONTENT_RANGE) else { return Ok(None) };
    let span = header.to_str().ok().and_then(Span::of_chunk).ok_or_else(|| {
        let message = "Content-Range says FIRST-LAST of the bytes that are sent";
        Failure::new(StatusCode::RANGE_NOT_SATISFIABLE, Code::BlobUploadInvalid, message)
    })?;
    match request.length().filter(|sent| *sent != span.length()) {
        Some(sent) => {
            let error = PartError::Length { said: span.length(), sent };
            Err(RegistryError::Part(error).into())
        }
        None => Ok(Some(span)),
    }
}

fn created(repository: &Repository, digest: &ContentDigest) -> Response {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    insert(headers, LOCATION, format!("/v2/{repository}/blobs/{digest}"));
    insert(headers, CONTENT_DIGEST, digest.to_string());
    headers.insert(CONTENT_LENGTH, HeaderValue::from_static("0"));
    response
}

fn under_way(status: StatusCode, repository: &Repository, id: &str, upload: &Upload) -> Response {
    let mut response = empty(status);
    let headers = response.headers_mut();
    insert(headers, LOCATION, format!("/v2/{repository}/blobs/uploads/{id}"));
    insert(headers, RANGE, upload.range());
    insert(headers, UPLOAD_ID, id.to_owned());
    response
}
