//! Fetch: from what was pushed or fetched before, otherwise by download.

use std::io::SeekFrom;
use std::time::Duration;

use bytes::BytesMut;
use futures_util::StreamExt;
use kiln_protos::asset::fetch_server::Fetch;
use kiln_protos::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse, Qualifier,
};
use kiln_protos::protobuf;
use tokio::io::{AsyncReadExt, AsyncSeekExt, AsyncWriteExt};
use tonic::{Code, Request, Response, Status};

use super::sri::Integrity;
use super::stored::{Kind, StoredAsset};
use super::{AssetService, Names, complete, nanoseconds, now, timestamp};
use crate::access::Right;
use crate::digest::{Digest, DigestFunction, Hasher};
use crate::error::StoreError;
use crate::services::cas::function;
use crate::services::download::{Download, DownloadError};
use crate::services::status::{inner_status, records_status, store_status};

/// Time for a download where the request sets none, and the most it may set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);
/// Bytes moved at a time from the spool into the store.
const SPOOL_CHUNK: usize = 1 << 20;

/// What was found, and under which of the URIs.
struct Found {
    uri: String,
    digest: Digest,
    expires: Option<i64>,
}

/// A failure that belongs into the response: nobody's fault here.
struct Outside {
    uri: String,
    status: Status,
}

enum Failure {
    Outside(Outside),
    Ours(Status),
}

#[tonic::async_trait]
impl Fetch for AssetService {
    async fn fetch_blob(
        &self,
        request: Request<FetchBlobRequest>,
    ) -> Result<Response<FetchBlobResponse>, Status> {
        let (_, caller, request) = request.into_parts();
        self.guard.check(&caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            Kind::Blob,
            &request.instance_name,
            &request.uris,
            &request.qualifiers,
            function,
        )?;
        let timeout = timeout(&request.timeout)?;
        let oldest = request.oldest_content_accepted.as_ref().map(nanoseconds);
        let found = match self.known(&names, oldest).await? {
            Some(found) => Ok(found),
            None => self.download(&names, timeout).await,
        };
        let digest_function = function.to_wire().into();
        let response = match found {
            Ok(found) => FetchBlobResponse {
                status: Some(Default::default()),
                uri: found.uri,
                qualifiers: request.qualifiers,
                expires_at: found.expires.map(timestamp),
                blob_digest: Some(found.digest.to_wire()),
                digest_function,
            },
            Err(Failure::Outside(Outside { uri, status })) => FetchBlobResponse {
                status: Some(inner_status(&status)),
                uri,
                digest_function,
                ..Default::default()
            },
            Err(Failure::Ours(status)) => return Err(status),
        };
        Ok(Response::new(response))
    }

    async fn fetch_directory(
        &self,
        request: Request<FetchDirectoryRequest>,
    ) -> Result<Response<FetchDirectoryResponse>, Status> {
        let (_, caller, request) = request.into_parts();
        self.guard.check(&caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            Kind::Directory,
            &request.instance_name,
            &request.uris,
            &request.qualifiers,
            function,
        )?;
        let oldest = request.oldest_content_accepted.as_ref().map(nanoseconds);
        let digest_function = function.to_wire().into();
        let response = match self.known(&names, oldest).await? {
            Some(found) => FetchDirectoryResponse {
                status: Some(Default::default()),
                uri: found.uri,
                qualifiers: request.qualifiers,
                expires_at: found.expires.map(timestamp),
                root_directory_digest: Some(found.digest.to_wire()),
                digest_function,
            },
            None => FetchDirectoryResponse {
                status: Some(inner_status(&Status::not_found(
                    "uris: no directory is known by them; directories have to be pushed, \
                     they are not downloaded",
                ))),
                uri: names.uris[0].clone(),
                digest_function,
                ..Default::default()
            },
        };
        Ok(Response::new(response))
    }
}

impl AssetService {
    /// From an earlier push or fetch, if everything is still there.
    async fn known(&self, names: &Names<'_>, oldest: Option<i64>) -> Result<Option<Found>, Status> {
        for uri in names.uris {
            let record = self.records.get(&names.key(uri)).await;
            let record = record.map_err(|error| records_status("asset", &error))?;
            let asset = record.and_then(|record| StoredAsset::decode_record(record.value));
            let Some(asset) = asset.filter(|asset| asset.is_fresh(now(), oldest)) else {
                continue;
            };
            let Some(digest) = asset.digest(names.function) else { continue };
            if self.is_complete(names.kind, digest).await? {
                let (uri, expires) = (uri.clone(), asset.expires);
                return Ok(Some(Found { uri, digest, expires }));
            }
        }
        Ok(None)
    }

    async fn is_complete(&self, kind: Kind, digest: Digest) -> Result<bool, Status> {
        match kind {
            Kind::Blob => {
                let missing = self.blobs.find_missing(&[digest]).await;
                Ok(missing.map_err(|error| store_status("uris", &error))?.is_empty())
            }
            Kind::Directory => Ok(complete::first_missing(&self.blobs, digest).await?.is_none()),
        }
    }

    /// Tries the URIs in order.
    async fn download(&self, names: &Names<'_>, timeout: Duration) -> Result<Found, Failure> {
        let mut last = Outside { uri: names.uris[0].clone(), status: self.nothing_to_try() };
        for (i, uri) in names.uris.iter().enumerate() {
            if !self.allowed.allows(uri) {
                continue;
            }
            let wanted = Wanted::new(i, &names.qualifiers).map_err(Failure::Ours)?;
            let attempt = self.download_one(uri, &wanted, names.function);
            let result = tokio::time::timeout(timeout, attempt).await.unwrap_or_else(|_| {
                let text = format!("the download took longer than {timeout:?}");
                Err(Failure::Outside(Outside {
                    uri: uri.clone(),
                    status: Status::deadline_exceeded(text),
                }))
            });
            match result {
                Ok((digest, since)) => {
                    let asset = StoredAsset::new(&digest, since, None);
                    self.store(asset, names).await.map_err(Failure::Ours)?;
                    return Ok(Found { uri: uri.clone(), digest, expires: None });
                }
                Err(Failure::Outside(outside)) => last = outside,
                Err(ours) => return Err(ours),
            }
        }
        Err(Failure::Outside(last))
    }

    fn nothing_to_try(&self) -> Status {
        if self.allowed.is_empty() {
            return Status::not_found(
                "uris: nothing is known by them, and downloading is not enabled \
                 (no allowed prefix is configured)",
            );
        }
        Status::permission_denied(
            "uris: nothing is known by them, and the configuration allows to download none",
        )
    }

    async fn download_one(
        &self,
        uri: &str,
        wanted: &Wanted,
        function: DigestFunction,
    ) -> Result<(Digest, i64), Failure> {
        let since = now();
        let outside = |status| Failure::Outside(Outside { uri: uri.to_owned(), status });
        let download = self.downloader.download(uri, &wanted.headers, &self.allowed).await;
        let download = download.map_err(|error| outside(download_status(&error)))?;
        let mut spool = Spool::new(function).map_err(Failure::Ours)?;
        self.receive(download, wanted, &mut spool).await.map_err(outside)?;
        let digest = self.store_spooled(spool).await.map_err(Failure::Ours)?;
        Ok((digest, since))
    }

    async fn receive(
        &self,
        mut download: Download,
        wanted: &Wanted,
        spool: &mut Spool,
    ) -> Result<(), Status> {
        let mut checker = wanted.integrity.as_ref().map(Integrity::checker);
        while let Some(data) = download.body.next().await {
            let data = data.map_err(|error| download_status(&error))?;
            spool.size += data.len() as u64;
            if spool.size > self.max_size {
                let limit = self.max_size;
                return Err(Status::resource_exhausted(format!(
                    "the content is larger than the limit of {limit} bytes"
                )));
            }
            if let Some(checker) = &mut checker {
                checker.update(&data);
            }
            spool.hasher.update(&data);
            spool.file.write_all(&data).await.map_err(|e| spool_status(&e))?;
        }
        if let (Some(integrity), Some(checker)) = (&wanted.integrity, checker)
            && !integrity.accepts(checker)
        {
            return Err(Status::aborted("the content does not match the qualifier checksum.sri"));
        }
        Ok(())
    }

    async fn store_spooled(&self, spool: Spool) -> Result<Digest, Status> {
        let Spool { mut file, hasher, .. } = spool;
        let digest = hasher.finish();
        let refuse = |error: StoreError| store_status("uris", &error);
        if digest.is_empty_blob() {
            return Ok(digest);
        }
        file.flush().await.map_err(|e| spool_status(&e))?;
        file.seek(SeekFrom::Start(0)).await.map_err(|e| spool_status(&e))?;
        let mut writer = self.blobs.writer(&digest).await.map_err(refuse)?;
        loop {
            let mut chunk = BytesMut::with_capacity(SPOOL_CHUNK);
            if file.read_buf(&mut chunk).await.map_err(|e| spool_status(&e))? == 0 {
                break;
            }
            writer.write(chunk.freeze()).await.map_err(refuse)?;
        }
        writer.commit().await.map_err(refuse)?;
        Ok(digest)
    }
}

/// The digest is known only when everything has come: until then it lies in a nameless file.
struct Spool {
    file: tokio::fs::File,
    hasher: Hasher,
    size: u64,
}

impl Spool {
    fn new(function: DigestFunction) -> Result<Self, Status> {
        let file = tempfile::tempfile().map_err(|error| spool_status(&error))?;
        Ok(Self { file: file.into(), hasher: function.hasher(), size: 0 })
    }
}

fn spool_status(error: &std::io::Error) -> Status {
    store_status("uris", &StoreError::io("temporary file of a download", error))
}

/// What the qualifiers ask of a download.
struct Wanted {
    integrity: Option<Integrity>,
    headers: Vec<(String, String)>,
}

impl Wanted {
    /// `index`: of the URI. Errors: a qualifier that a download cannot honour.
    fn new(index: usize, qualifiers: &[&Qualifier]) -> Result<Self, Status> {
        let mut wanted = Self { integrity: None, headers: Vec::new() };
        let for_one = format!("http_header_url:{index}:");
        for Qualifier { name, value } in qualifiers {
            if name == "checksum.sri" {
                let integrity = Integrity::parse(value).map_err(|error| {
                    Status::invalid_argument(format!("qualifiers: checksum.sri: {error}"))
                })?;
                wanted.integrity = Some(integrity);
            } else if let Some(header) =
                name.strip_prefix("http_header:").or_else(|| name.strip_prefix(&for_one))
            {
                wanted.headers.push((header.to_owned(), value.clone()));
            } else if name != "bazel.canonical_id" && !name.starts_with("http_header_url:") {
                return Err(Status::invalid_argument(format!(
                    "qualifiers: {name:?} is not supported for downloads; checksum.sri, \
                     http_header:NAME and bazel.canonical_id are"
                )));
            }
        }
        Ok(wanted)
    }
}

fn download_status(error: &DownloadError) -> Status {
    let code = match error {
        DownloadError::NotFound(_) => Code::NotFound,
        DownloadError::Denied(_) => Code::PermissionDenied,
        DownloadError::Malformed(_) => Code::InvalidArgument,
        DownloadError::Failed(_) => Code::Unavailable,
    };
    Status::new(code, error.to_string())
}

fn timeout(wanted: &Option<protobuf::Duration>) -> Result<Duration, Status> {
    let Some(wanted) = wanted else { return Ok(DEFAULT_TIMEOUT) };
    let negative = || Status::invalid_argument("timeout: it is negative");
    let seconds = u64::try_from(wanted.seconds).map_err(|_| negative())?;
    let nanos = u32::try_from(wanted.nanos).map_err(|_| negative())?;
    Ok(Duration::new(seconds, nanos.min(999_999_999)).min(MAX_TIMEOUT))
}
