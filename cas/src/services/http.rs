//! The HTTP cache protocol (Bazel's `--remote_cache=http://…`): GET, HEAD and PUT of
//! `/{instance}/cas/{hash}` and `/{instance}/ac/{hash}`, SHA-256 only.
//!
//! Its names carry no size, where REAPI's digests do. A blob put here is the same blob that
//! gRPC sees, and its size is kept in records so that a GET finds it; blobs that came over
//! gRPC alone are not found here. Action results put here are answered here only.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{FromRequestParts, RawPathParams, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use bytes::Bytes;
use futures_util::{StreamExt, TryStreamExt};
use http::request::Parts;
use http::{Extensions, HeaderMap, HeaderValue, StatusCode, header};
use tonic::{Code, Status};

use super::action_cache::store_result;
use super::fields::check_size;
use super::guard::Guard;
use super::opaque::{self, OpaqueInstances};
use super::quotas::Quotas;
use super::rpc::{add, decode};
use super::status::{budget_status, digest_status, records_status, store_status};
use crate::access::Right;
use crate::action_cache::{ActionKey, SharedActionCache};
use crate::blob::{MAX_WHOLE_BLOB, SharedBlobStore};
use crate::budget::Charge;
use crate::digest::{Digest, DigestFunction};
use crate::error::StoreError;
use crate::records::{Expect, Record, SharedRecords, Write};
use crate::result::MAX_ACTION_RESULT;

/// Most segments of an instance name in a URL.
pub const MAX_INSTANCE_SEGMENTS: usize = 6;

/// Bytes of one blob that wait to be written, or to be sent.
const IN_FLIGHT: u64 = MAX_WHOLE_BLOB;

pub struct HttpCache {
    pub blobs: SharedBlobStore,
    pub actions: SharedActionCache,
    pub records: SharedRecords,
    pub guard: Guard,
    pub quotas: Arc<Quotas>,
    pub opaque: OpaqueInstances,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
}

impl HttpCache {
    /// Routes for instance names of up to [`MAX_INSTANCE_SEGMENTS`] segments.
    pub fn router(self) -> Router {
        let mut router = Router::new();
        let mut prefix = String::new();
        for segment in 0..=MAX_INSTANCE_SEGMENTS {
            router = router
                .route(&format!("{prefix}/cas/{{hash}}"), get(get_blob).put(put_blob))
                .route(&format!("{prefix}/ac/{{hash}}"), get(get_result).put(put_result));
            prefix.push_str(&format!("/{{i{segment}}}"));
        }
        router.with_state(Arc::new(self))
    }
}

type Cache = State<Arc<HttpCache>>;

/// The extensions of a request, which say who sent it.
struct Caller(Extensions);

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(parts.extensions.clone()))
    }
}

/// Clients of this protocol can send a name and a password; the latter may be a token.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Basic realm=\"kiln\"");

/// A status as an HTTP answer.
struct Refusal(Status);

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self(status)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let code = match self.0.code() {
            Code::NotFound => StatusCode::NOT_FOUND,
            Code::InvalidArgument | Code::OutOfRange => StatusCode::BAD_REQUEST,
            Code::FailedPrecondition => StatusCode::PRECONDITION_FAILED,
            Code::Cancelled => StatusCode::REQUEST_TIMEOUT,
            Code::Unauthenticated => StatusCode::UNAUTHORIZED,
            Code::PermissionDenied => StatusCode::FORBIDDEN,
            Code::ResourceExhausted => StatusCode::INSUFFICIENT_STORAGE,
            Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Code::Unimplemented => StatusCode::LENGTH_REQUIRED,
            _ => StatusCode::INTERNAL_SERVER_ERROR,
        };
        let mut response = (code, format!("{}\n", self.0.message())).into_response();
        if code == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, CHALLENGE);
        }
        response
    }
}

/// Instance name and hash of the path.
struct Name {
    instance: String,
    hash: String,
}

impl Name {
    fn new(params: &RawPathParams) -> Self {
        let mut name = Self { instance: String::new(), hash: String::new() };
        for (key, value) in params {
            if key == "hash" {
                name.hash = value.to_owned();
                continue;
            }
            if !name.instance.is_empty() {
                name.instance.push('/');
            }
            name.instance.push_str(value);
        }
        name
    }

    fn digest(&self, size: u64) -> Result<Digest, Status> {
        Digest::of_any_size(self.hash.as_bytes(), size, DigestFunction::Sha256)
            .map_err(|error| digest_status("hash in the path", &error))
    }

    /// The size of an action is not known here, and 0 is no action's size: results of this
    /// protocol have keys of their own.
    fn action(&self) -> Result<ActionKey, Status> {
        Ok(ActionKey { instance: self.instance.as_str().into(), action: self.digest(0)? })
    }
}

async fn get_blob(
    State(cache): Cache,
    params: RawPathParams,
    caller: Caller,
) -> Result<Response, Refusal> {
    let name = Name::new(&params);
    cache.guard.check(&caller.0, Right::Read, &name.instance)?;
    let size = cache.size_of(&name).await?;
    cache.blob(&name.digest(size)?, &caller).await
}

async fn put_blob(
    State(cache): Cache,
    params: RawPathParams,
    headers: HeaderMap,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let name = Name::new(&params);
    cache.guard.check(&caller.0, Right::WriteBlobs, &name.instance)?;
    name.digest(0)?;
    let mut charge = Charge::of(&caller.0);
    let blobs = cache.quotas.store(&cache.blobs, &cache.guard, &caller.0, &name.instance);
    let digest = match content_length(&headers) {
        Some(size) => cache.put_sized(&blobs, name.digest(size)?, body, &mut charge).await?,
        None => put_unsized(&blobs, &name, body, &mut charge).await?,
    };
    cache.remember_size(&digest).await?;
    Ok(StatusCode::OK)
}

async fn get_result(
    State(cache): Cache,
    params: RawPathParams,
    caller: Caller,
) -> Result<Response, Refusal> {
    let key = Name::new(&params).action()?;
    cache.guard.check(&caller.0, Right::Read, &key.instance)?;
    let result = cache.actions.get(&key).await.map_err(|e| store_status("hash", &e))?;
    let unknown = || Status::not_found("no result is cached for this action");
    let result = result.ok_or_else(unknown)?;
    if cache.opaque.contains(&key.instance) {
        let value = opaque::unwrap(&result).ok_or_else(unknown)?;
        return cache.blob(&value, &caller).await;
    }
    Ok((octets(result.len() as u64), result).into_response())
}

async fn put_result(
    State(cache): Cache,
    params: RawPathParams,
    caller: Caller,
    body: Body,
) -> Result<StatusCode, Refusal> {
    let key = Name::new(&params).action()?;
    cache.guard.check(&caller.0, Right::WriteResults, &key.instance)?;
    let mut charge = Charge::of(&caller.0);
    let result = if cache.opaque.contains(&key.instance) {
        opaque::wrap(&cache.put_value(&key.instance, &caller, body, &mut charge).await?)
    } else {
        let body = collect(body, MAX_ACTION_RESULT, &mut charge).await?;
        decode("the body", body, &mut charge).await?
    };
    store_result(&cache.blobs, &cache.actions, &key, result, &mut charge).await?;
    Ok(StatusCode::OK)
}

impl HttpCache {
    async fn blob(&self, digest: &Digest, caller: &Caller) -> Result<Response, Refusal> {
        let mut charge = Charge::of(&caller.0);
        add(&mut charge, digest.size.min(IN_FLIGHT)).await?;
        let blob = self.blobs.read(digest, 0, None).await.map_err(|e| store_status("hash", &e))?;
        // What is not read yet stays charged.
        let pieces = blob.into_stream().map_err(std::io::Error::other);
        let body = Body::from_stream(pieces.inspect(move |_| _ = &charge));
        Ok((octets(digest.size), body).into_response())
    }

    /// Stores the body as a blob.
    async fn put_value(
        &self,
        instance: &str,
        caller: &Caller,
        body: Body,
        charge: &mut Charge,
    ) -> Result<Digest, Status> {
        let mut value = opaque::Incoming::new();
        let mut stream = body.into_data_stream();
        while let Some(data) = stream.next().await {
            value.push(&data.map_err(|e| broken(&e))?)?;
            charge.grow_to(value.size()).await.map_err(|error| budget_status(&error))?;
        }
        let (digest, pieces) = value.finish();
        check_size(|| "the body".into(), &digest, self.max_blob_size)?;
        let blobs = self.quotas.store(&self.blobs, &self.guard, &caller.0, instance);
        write_pieces(&blobs, &digest, pieces).await?;
        Ok(digest)
    }

    async fn size_of(&self, name: &Name) -> Result<u64, Status> {
        let unknown = || Status::not_found("no blob of this hash was put over HTTP");
        let digest = name.digest(0)?;
        if digest.is_empty_blob() {
            return Ok(0);
        }
        let record = self.records.get(&size_key(&digest)).await;
        let record = record.map_err(|e| records_status("hash", &e))?.ok_or_else(unknown)?;
        let size: [u8; 8] = record.value.as_ref().try_into().map_err(|_| unknown())?;
        Ok(u64::from_le_bytes(size))
    }

    async fn remember_size(&self, digest: &Digest) -> Result<(), Status> {
        let key = size_key(digest);
        let known = self.records.get(&key).await.map_err(|e| records_status("hash", &e))?;
        let value = size_value(digest);
        if digest.is_empty_blob() || known.is_some_and(|record| record.value == value) {
            return Ok(());
        }
        let write = Write { key, expect: Expect::Anything, value: Some(value) };
        let written = self.records.write(vec![write]).await;
        written.map(drop).map_err(|e| records_status("hash", &e))
    }

    async fn put_sized(
        &self,
        blobs: &SharedBlobStore,
        digest: Digest,
        body: Body,
        charge: &mut Charge,
    ) -> Result<Digest, Status> {
        let refuse = |error: StoreError| store_status("body", &error);
        check_size(|| "Content-Length".into(), &digest, self.max_blob_size)?;
        if digest.size <= MAX_WHOLE_BLOB {
            let data = collect(body, MAX_WHOLE_BLOB as usize, charge).await?;
            write(blobs, &digest, data).await?;
            return Ok(digest);
        }
        add(charge, digest.size.min(IN_FLIGHT)).await?;
        let mut writer = blobs.writer(&digest).await.map_err(refuse)?;
        let mut stream = body.into_data_stream();
        while let Some(data) = stream.next().await {
            writer.write(data.map_err(|e| broken(&e))?).await.map_err(refuse)?;
        }
        writer.commit().await.map_err(refuse)?;
        Ok(digest)
    }
}

/// Stores a body without a Content-Length: its size is known at the end only.
async fn put_unsized(
    blobs: &SharedBlobStore,
    name: &Name,
    body: Body,
    charge: &mut Charge,
) -> Result<Digest, Status> {
    let data = collect(body, MAX_WHOLE_BLOB as usize, charge).await;
    let data = data.map_err(|status| match status.code() {
        Code::InvalidArgument => {
            Status::unimplemented("send a Content-Length header with bodies of more than 1 MiB")
        }
        _ => status,
    })?;
    let digest = name.digest(data.len() as u64)?;
    write(blobs, &digest, data).await?;
    Ok(digest)
}

async fn write_pieces(
    blobs: &SharedBlobStore,
    digest: &Digest,
    mut pieces: Vec<Bytes>,
) -> Result<(), Status> {
    let refuse = |error: StoreError| store_status("body", &error);
    if pieces.len() <= 1 {
        return blobs.write(digest, pieces.pop().unwrap_or_default()).await.map_err(refuse);
    }
    let mut writer = blobs.writer(digest).await.map_err(refuse)?;
    for piece in pieces {
        writer.write(piece).await.map_err(refuse)?;
    }
    writer.commit().await.map_err(refuse)
}

async fn write(blobs: &SharedBlobStore, digest: &Digest, data: Bytes) -> Result<(), Status> {
    if data.len() as u64 != digest.size {
        let error = StoreError::SizeMismatch { expected: *digest, actual: data.len() as u64 };
        return Err(store_status("body", &error));
    }
    blobs.write(digest, data).await.map_err(|e| store_status("body", &e))
}

/// What the keys of remembered sizes begin with.
pub const SIZES: &str = "httpcas/";

fn size_key(digest: &Digest) -> String {
    format!("{SIZES}{}", digest.hex())
}

fn size_value(digest: &Digest) -> Bytes {
    Bytes::copy_from_slice(&digest.size.to_le_bytes())
}

/// The blob that a record of a size is about.
pub fn owner(record: &Record) -> Option<Digest> {
    let hash = record.key.strip_prefix(SIZES)?;
    let size = u64::from_le_bytes(record.value.as_ref().try_into().ok()?);
    Digest::from_hex(hash.as_bytes(), size, DigestFunction::Sha256).ok()
}

#[cfg(test)]
pub fn remembered(digest: &Digest) -> (String, Vec<u8>) {
    (size_key(digest), size_value(digest).into())
}

fn octets(size: u64) -> [(header::HeaderName, String); 2] {
    [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, size.to_string()),
    ]
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// `InvalidArgument` when there is more than `limit`.
async fn collect(body: Body, limit: usize, charge: &mut Charge) -> Result<Bytes, Status> {
    let mut stream = body.into_data_stream();
    let mut all = Vec::new();
    while let Some(data) = stream.next().await {
        let data = data.map_err(|e| broken(&e))?;
        if all.len() + data.len() > limit {
            return Err(Status::invalid_argument(format!("body: more than {limit} bytes")));
        }
        let held = (all.len() + data.len()) as u64;
        charge.grow_to(held).await.map_err(|error| budget_status(&error))?;
        all.extend_from_slice(&data);
    }
    Ok(all.into())
}

fn broken(error: &axum::Error) -> Status {
    Status::cancelled(format!("the request broke off: {error}"))
}
