//! The Push service: callers say which blob or directory a URI stands for.

use http::Extensions;
use kiln_protos::asset::{
    PushBlobRequest, PushBlobResponse, PushDirectoryRequest, PushDirectoryResponse,
};
use kiln_protos::protobuf::Timestamp;
use kiln_protos::reapi;
use tonic::Status;

use super::complete;
use super::names::Names;
use super::service::AssetService;
use super::stored::{AssetKind, StoredAsset};
use super::time::{nanoseconds, now};
use crate::access::Right;
use crate::digest::{Digest, DigestFunction};
use crate::records::{Expect, Write};
use crate::services::fields::{function, wire_digest};
use crate::services::status::{digest_status, records_status, store_status};

impl AssetService {
    pub(super) async fn push_blob(
        &self,
        caller: &Extensions,
        request: PushBlobRequest,
    ) -> Result<PushBlobResponse, Status> {
        self.guard.check(caller, Right::WriteResults, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            AssetKind::Blob,
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
        Ok(PushBlobResponse {})
    }

    pub(super) async fn push_directory(
        &self,
        caller: &Extensions,
        request: PushDirectoryRequest,
    ) -> Result<PushDirectoryResponse, Status> {
        self.guard.check(caller, Right::WriteResults, &request.instance_name)?;
        let function = function(request.digest_function)?;
        let names = Names::new(
            AssetKind::Directory,
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
        Ok(PushDirectoryResponse {})
    }

    async fn store(&self, asset: StoredAsset, names: &Names<'_>) -> Result<(), Status> {
        let value = asset.encode();
        let write = |index: usize| Write {
            key: names.key(index),
            expect: Expect::Anything,
            value: Some(value.clone()),
        };
        let writes = (0..names.uris.len()).map(write).collect();
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
            let digests = digests.map_err(|error| digest_status(field, &error))?;
            self.refuse_missing(field, &digests).await?;
        }
        Ok(())
    }
}

fn expiry(expire_at: &Option<Timestamp>) -> Result<Option<i64>, Status> {
    let expiry = expire_at.as_ref().map(nanoseconds);
    if expiry.is_some_and(|time| time <= now()) {
        return Err(Status::invalid_argument("expire_at: it lies in the past"));
    }
    Ok(expiry)
}
