//! The Fetch service: answers with what was pushed or fetched before, and downloads what is not known.

use std::sync::Arc;
use std::time::Duration;

use kiln_net::{Url, urls};
use kiln_protos::asset::{
    FetchBlobRequest, FetchBlobResponse, FetchDirectoryRequest, FetchDirectoryResponse,
};
use kiln_protos::protobuf;
use tonic::Status;

use super::complete;
use super::downloads::{Failure, Job};
use super::names::Names;
use super::qualifiers::Wanted;
use super::service::AssetService;
use super::stored::{AssetKind, StoredAsset};
use super::time::{nanoseconds, now, timestamp};
use crate::access::Right;
use crate::blob::SharedBlobStore;
use crate::digest::Digest;
use crate::services::fields::function;
use crate::services::quotas::account_of;
use crate::services::status::{inner_status, records_status, store_status};

/// Time for a download where the request sets none, and the most it may set.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(300);
const MAX_TIMEOUT: Duration = Duration::from_secs(3600);

/// An asset that was found, and the URI of the request that it was found under.
struct Found {
    uri: String,
    digest: Digest,
    expires: Option<i64>,
}

/// Who has something downloaded.
struct Asker {
    account: Arc<str>,
    /// The store as the caller may write to it.
    blobs: SharedBlobStore,
}

/// A failure of the request or of the web server, which is told in the response and not as an error of the call.
struct Outside {
    uri: String,
    status: Status,
}

impl AssetService {
    pub(super) async fn fetch_blob(
        &self,
        caller: &http::Extensions,
        request: FetchBlobRequest,
    ) -> Result<FetchBlobResponse, Status> {
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            AssetKind::Blob,
            &request.instance_name,
            &request.uris,
            &request.qualifiers,
            function,
        )?;
        let timeout = timeout(&request.timeout)?;
        let oldest = request.oldest_content_accepted.as_ref().map(nanoseconds);
        let found = match self.known(&names, oldest).await? {
            Some(found) => Ok(found),
            None => {
                let candidates = self.candidates(&names);
                if !candidates.is_empty() {
                    self.may_download(caller, &request.instance_name)?;
                }
                let asker = self.asker(caller, &request.instance_name);
                self.download(&names, candidates, oldest, timeout, asker).await?
            }
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
            Err(Outside { uri, status }) => FetchBlobResponse {
                status: Some(inner_status(&status)),
                uri,
                digest_function,
                ..Default::default()
            },
        };
        Ok(response)
    }

    pub(super) async fn fetch_directory(
        &self,
        caller: &http::Extensions,
        request: FetchDirectoryRequest,
    ) -> Result<FetchDirectoryResponse, Status> {
        self.guard.check(caller, Right::Read, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            AssetKind::Directory,
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
        Ok(response)
    }

    /// What an earlier push or fetch has left, if everything is still there.
    async fn known(&self, names: &Names<'_>, oldest: Option<i64>) -> Result<Option<Found>, Status> {
        for (index, uri) in names.uris.iter().enumerate() {
            let record = self.records.get(&names.key(index)).await;
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

    async fn is_complete(&self, kind: AssetKind, digest: Digest) -> Result<bool, Status> {
        match kind {
            AssetKind::Blob => {
                let missing = self.blobs.find_missing(&[digest]).await;
                Ok(missing.map_err(|error| store_status("uris", &error))?.is_empty())
            }
            AssetKind::Directory => {
                Ok(complete::first_missing(&self.blobs, digest).await?.is_none())
            }
        }
    }

    /// The URIs that may be downloaded, with their numbers.
    fn candidates(&self, names: &Names<'_>) -> Vec<(usize, Url)> {
        let allowed = self.downloads.allowed();
        let urls = names.uris.iter().map(|uri| urls::parse(uri)).enumerate();
        urls.filter_map(|(index, url)| Some((index, url.ok()?)))
            .filter(|(_, url)| allowed.allows(url))
            .collect()
    }

    /// A download stores a blob, and what its URI stands for.
    fn may_download(&self, caller: &http::Extensions, instance: &str) -> Result<(), Status> {
        self.guard.check(caller, Right::WriteBlobs, instance).map_err(|status| {
            let why = status.message();
            let message = format!(
                "uris: nothing is known by them, and a download needs the right to store blobs: {why}"
            );
            Status::new(status.code(), message)
        })
    }

    fn asker(&self, caller: &http::Extensions, instance: &str) -> Asker {
        Asker {
            account: account_of(&*self.guard.0, caller),
            blobs: self.quotas.store(&self.blobs, &self.guard, caller, instance),
        }
    }

    /// Tries the candidates in order.
    async fn download(
        &self,
        names: &Names<'_>,
        candidates: Vec<(usize, Url)>,
        oldest: Option<i64>,
        timeout: Duration,
        Asker { account, blobs }: Asker,
    ) -> Result<Result<Found, Outside>, Status> {
        let mut last = Outside { uri: names.uris[0].clone(), status: self.nothing_to_try() };
        for (index, url) in candidates {
            let uri = names.uris[index].clone();
            let wanted = Wanted::new(index, &names.qualifiers, self.downloads.headers())?;
            let (key, function) = (names.key(index), names.function);
            let (caller, blobs) = (account.clone(), blobs.clone());
            let job = Job { key, url, wanted, function, caller, blobs };
            match self.downloads.fetch(job, oldest, timeout).await {
                Ok(digest) => return Ok(Ok(Found { uri, digest, expires: None })),
                Err(Failure::Outside(status)) => last = Outside { uri, status },
                Err(Failure::Ours(status)) => return Err(status),
            }
        }
        Ok(Err(last))
    }

    fn nothing_to_try(&self) -> Status {
        if self.downloads.allowed().is_empty() {
            return Status::not_found(
                "uris: nothing is known by them, and downloading is not enabled \
                 (no allowed prefix is configured)",
            );
        }
        Status::permission_denied(
            "uris: nothing is known by them, and the configuration allows to download none",
        )
    }
}

fn timeout(wanted: &Option<protobuf::Duration>) -> Result<Duration, Status> {
    let Some(wanted) = wanted else { return Ok(DEFAULT_TIMEOUT) };
    let negative = || Status::invalid_argument("timeout: it is negative");
    let seconds = u64::try_from(wanted.seconds).map_err(|_| negative())?;
    let nanos = u32::try_from(wanted.nanos).map_err(|_| negative())?;
    Ok(Duration::new(seconds, nanos.min(999_999_999)).min(MAX_TIMEOUT))
}
