//! Remote Asset: content that is known by a URI (Fetch and Push).

mod allowed;
mod complete;
mod fetch;
mod sri;
mod stored;

use std::sync::Arc;
use std::time::SystemTime;

use kiln_protos::asset::push_server::Push;
use kiln_protos::asset::{
    PushBlobRequest, PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse, Qualifier,
};
use kiln_protos::protobuf::Timestamp;
use kiln_protos::reapi;
use tonic::{Request, Response, Status};

pub use self::allowed::Allowed;
use self::stored::{Kind, StoredAsset};
use super::ServicesConfig;
use super::cas::{function, wire_digest};
use super::download::{Downloader, HttpDownloader};
use super::guard::Guard;
use super::status::{records_status, store_status};
use crate::access::Right;
use crate::blob::SharedBlobStore;
use crate::digest::{Digest, DigestFunction};
use crate::records::{Expect, SharedRecords, Write};

/// Most URIs, and most qualifiers, in one request.
const MAX_URIS: usize = 64;
/// Longest URI in bytes.
const MAX_URI: usize = 8192;
/// Largest download where no smaller limit for blobs is set, in bytes.
const MAX_DOWNLOAD: u64 = 16 << 30;

pub struct AssetService {
    blobs: SharedBlobStore,
    records: SharedRecords,
    guard: Guard,
    allowed: Allowed,
    downloader: Arc<dyn Downloader>,
    max_size: u64,
}

impl AssetService {
    pub fn new(config: &ServicesConfig) -> Self {
        let downloader =
            config.downloader.clone().unwrap_or_else(|| Arc::new(HttpDownloader::new()));
        let max_size = match config.max_blob_size {
            0 => MAX_DOWNLOAD,
            limit => limit.min(MAX_DOWNLOAD),
        };
        Self {
            blobs: config.blobs.clone(),
            records: config.records.clone(),
            guard: Guard(config.access.clone()),
            allowed: Allowed::new(config.fetch_allowed_prefixes.clone()),
            downloader,
            max_size,
        }
    }

    async fn store(&self, asset: StoredAsset, names: &Names<'_>) -> Result<(), Status> {
        let value = asset.encode();
        let write = |uri: &String| Write {
            key: names.key(uri),
            expect: Expect::Anything,
            value: Some(value.clone()),
        };
        let writes = names.uris.iter().map(write).collect();
        self.records.write(writes).await.map(drop).map_err(|e| records_status("asset", &e))
    }

    async fn refuse_missing(&self, field: &str, digests: &[Digest]) -> Result<(), Status> {
        let missing = self.blobs.find_missing(digests).await;
        let missing = missing.map_err(|error| store_status(field, &error))?;
        match missing.first() {
            None => Ok(()),
            Some(first) => Err(Status::not_found(format!(
                "{field}: blob {first} is not in the store; upload it first"
            ))),
        }
    }

    async fn check_references(
        &self,
        blobs: &[reapi::Digest],
        directories: &[reapi::Digest],
        function: DigestFunction,
    ) -> Result<(), Status> {
        for (field, list) in [("references_blobs", blobs), ("references_directories", directories)]
        {
            let digests: Result<Vec<_>, _> =
                list.iter().map(|digest| Digest::from_wire(digest, function)).collect();
            let digests = digests.map_err(|error| super::digest_status(field, &error))?;
            self.refuse_missing(field, &digests).await?;
        }
        Ok(())
    }
}

#[tonic::async_trait]
impl Push for AssetService {
    async fn push_blob(
        &self,
        request: Request<PushBlobRequest>,
    ) -> Result<Response<PushBlobResponse>, Status> {
        let (_, caller, request) = request.into_parts();
        self.guard.check(&caller, Right::WriteResults, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            Kind::Blob,
            &request.instance_name,
            &request.uris,
            &request.qualifiers,
            function,
        )?;
        let digest = wire_digest("blob_digest", &request.blob_digest, function)?;
        self.refuse_missing("blob_digest", &[digest]).await?;
        self.check_references(&request.references_blobs, &request.references_directories, function)
            .await?;
        let asset = StoredAsset::new(&digest, now(), expiry(&request.expire_at)?);
        self.store(asset, &names).await?;
        Ok(Response::new(PushBlobResponse {}))
    }

    async fn push_directory(
        &self,
        request: Request<PushDirectoryRequest>,
    ) -> Result<Response<PushDirectoryResponse>, Status> {
        let (_, caller, request) = request.into_parts();
        self.guard.check(&caller, Right::WriteResults, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            Kind::Directory,
            &request.instance_name,
            &request.uris,
            &request.qualifiers,
            function,
        )?;
        let root = wire_digest("root_directory_digest", &request.root_directory_digest, function)?;
        if let Some(missing) = complete::first_missing(&self.blobs, root).await? {
            return Err(Status::not_found(format!(
                "root_directory_digest: blob {missing} of the tree is not in the store; \
                 upload it first"
            )));
        }
        self.check_references(&request.references_blobs, &request.references_directories, function)
            .await?;
        let asset = StoredAsset::new(&root, now(), expiry(&request.expire_at)?);
        self.store(asset, &names).await?;
        Ok(Response::new(PushDirectoryResponse {}))
    }
}

/// What an asset is known by.
struct Names<'a> {
    kind: Kind,
    instance: &'a str,
    uris: &'a [String],
    /// Sorted.
    qualifiers: Vec<&'a Qualifier>,
    function: DigestFunction,
}

impl<'a> Names<'a> {
    fn new(
        kind: Kind,
        instance: &'a str,
        uris: &'a [String],
        qualifiers: &'a [Qualifier],
        function: DigestFunction,
    ) -> Result<Self, Status> {
        if uris.is_empty() || uris.len() > MAX_URIS {
            let count = uris.len();
            return Err(Status::invalid_argument(format!(
                "uris: {count} given, between 1 and {MAX_URIS} are possible"
            )));
        }
        if let Some(i) = uris.iter().position(|uri| uri.is_empty() || uri.len() > MAX_URI) {
            return Err(Status::invalid_argument(format!(
                "uris[{i}]: it has to have 1 to {MAX_URI} bytes"
            )));
        }
        let mut qualifiers: Vec<&Qualifier> = qualifiers.iter().collect();
        qualifiers.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = qualifiers.windows(2).find(|pair| pair[0].name == pair[1].name) {
            let name = &pair[0].name;
            return Err(Status::invalid_argument(format!("qualifiers: {name:?} occurs twice")));
        }
        if qualifiers.len() > MAX_URIS {
            return Err(Status::invalid_argument(format!("qualifiers: more than {MAX_URIS}")));
        }
        Ok(Self { kind, instance, uris, qualifiers, function })
    }

    fn key(&self, uri: &str) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut part = |text: &str| {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        };
        part(self.instance);
        part(uri);
        for qualifier in &self.qualifiers {
            part(&qualifier.name);
            part(&qualifier.value);
        }
        format!("asset/{}/{}/{}", self.kind.name(), self.function, hasher.finalize().to_hex())
    }
}

/// Nanoseconds since the Unix epoch.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_nanos()).unwrap_or(i64::MAX)
}

fn nanoseconds(time: &Timestamp) -> i64 {
    time.seconds.saturating_mul(1_000_000_000).saturating_add(i64::from(time.nanos))
}

fn timestamp(nanoseconds: i64) -> Timestamp {
    Timestamp {
        seconds: nanoseconds.div_euclid(1_000_000_000),
        nanos: nanoseconds.rem_euclid(1_000_000_000) as i32,
    }
}

fn expiry(expire_at: &Option<Timestamp>) -> Result<Option<i64>, Status> {
    let expiry = expire_at.as_ref().map(nanoseconds);
    if expiry.is_some_and(|time| time <= now()) {
        return Err(Status::invalid_argument("expire_at: it lies in the past"));
    }
    Ok(expiry)
}
