//! State that the registry's handlers share, with the rights of callers.

use std::sync::Arc;

use http::Extensions;
use kiln_cas::access::{Refused, Right, SharedAuthorizer};
use kiln_cas::blob::SharedBlobStore;
use kiln_cas::pins::Pins;
use kiln_cas::promises::{Invocations, Presence};
use kiln_cas::records::SharedRecords;
use kiln_cas::services::{Guard, Quotas};
use kiln_deploy::oci::Repository;
use kiln_deploy::registry::store::{Registry, RegistryParts};
use kiln_deploy::registry::{SharedOwned, UploadLimits, instance_of};
use kiln_net::clock::unix_millis;

use super::options::RegistryOptions;
use super::owned::ProtectedTags;

/// The parts that a registry's state is made of.
pub struct StateParts {
    pub blobs: SharedBlobStore,
    pub records: SharedRecords,
    pub pins: Pins,
    pub invocations: Invocations,
    pub access: SharedAuthorizer,
    pub quotas: Arc<Quotas>,
    /// Bytes; 0: no limit.
    pub max_blob_size: u64,
    /// Whether it is asked who calls.
    pub asks: bool,
}

#[derive(Clone)]
pub struct RegistryState {
    pub registry: Registry,
    pub asks: bool,
    pub delete: bool,
    blobs: SharedBlobStore,
    invocations: Invocations,
    access: SharedAuthorizer,
    quotas: Arc<Quotas>,
}

impl RegistryState {
    pub fn new(options: &RegistryOptions, parts: StateParts) -> Self {
        let protected: SharedOwned = Arc::new(ProtectedTags(options.protected_tags.clone()));
        let registry = Registry::new(RegistryParts {
            blobs: parts.blobs.clone(),
            records: parts.records,
            pins: parts.pins,
            uploads: UploadLimits {
                count: options.max_uploads,
                bytes: options.max_upload_bytes,
                age: options.upload_age,
            },
            max_blob_size: if parts.max_blob_size == 0 { u64::MAX } else { parts.max_blob_size },
            owned: vec![protected],
            now: Arc::new(unix_millis),
        });
        Self {
            registry,
            asks: parts.asks,
            delete: options.delete,
            blobs: parts.blobs,
            invocations: parts.invocations,
            access: parts.access,
            quotas: parts.quotas,
        }
    }

    pub fn check(
        &self,
        caller: &Extensions,
        right: Right,
        repository: &Repository,
    ) -> Result<(), Refused> {
        self.access.check(caller, right, instance_of(repository))
    }

    /// Checks that the caller may publish in a repository: manifests and tags say what others get,
    /// as results do, or releases.
    pub fn check_publish(
        &self,
        caller: &Extensions,
        repository: &Repository,
    ) -> Result<(), Refused> {
        let instance = instance_of(repository);
        match self.access.allows(caller, Right::WriteResults, instance) {
            true => Ok(()),
            false => self.access.check(caller, Right::Release, instance),
        }
    }

    pub fn may_read(&self, caller: &Extensions, repository: &Repository) -> bool {
        self.access.allows(caller, Right::Read, instance_of(repository))
    }

    pub fn is_known(&self, caller: &Extensions) -> bool {
        !self.asks || self.access.name(caller).is_some()
    }

    /// The store as the caller may write to it.
    pub fn store(&self, caller: &Extensions, repository: &Repository) -> SharedBlobStore {
        let guard = Guard(self.access.clone());
        self.quotas.store(&self.blobs, &guard, caller, instance_of(repository))
    }

    /// Promises blobs of a push to everybody who pushes to the same repository: they stay while
    /// such a push goes on. `None`: the caller may not push there, and so nothing is promised to
    /// it.
    pub fn pushes(&self, caller: &Extensions, repository: &Repository) -> Option<Presence> {
        let instance = instance_of(repository);
        let rights = [Right::WriteBlobs, Right::WriteResults, Right::Release];
        let may = rights.into_iter().any(|it| self.access.allows(caller, it, instance));
        may.then(|| self.invocations.begin(format!("registry/{repository}").as_bytes())).flatten()
    }
}
