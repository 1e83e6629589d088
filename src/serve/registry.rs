//! The registry, over what the server keeps anyway.

use kiln_cas::services::Remembered;
use kiln_cas::stores::Storage;
use kiln_deploy::registry::store::{
    BLOBS, MANIFESTS, REFERRERS, owner_of_blob, owner_of_manifest, owner_of_referrer,
};

use super::common::Common;
use super::options::ServeOptions;
use crate::registry::{RegistryState, StateParts};

/// Kinds of records, by prefix, that are removed together with the blob that they are about.
pub const REMEMBERED: [Remembered; 3] = [
    Remembered { prefix: BLOBS, owner: owner_of_blob, unread_stays: true },
    Remembered { prefix: MANIFESTS, owner: owner_of_manifest, unread_stays: true },
    Remembered { prefix: REFERRERS, owner: owner_of_referrer, unread_stays: true },
];

/// State of the registry's handlers; `asks`: whether callers have to prove who they are. `None`:
/// there is no registry.
pub fn state(
    options: &ServeOptions,
    storage: &Storage,
    common: &Common,
    asks: bool,
) -> Option<RegistryState> {
    let parts = StateParts {
        blobs: storage.blobs.clone(),
        records: storage.records.clone(),
        pins: storage.pins.clone(),
        invocations: storage.invocations.clone(),
        access: common.access.clone(),
        quotas: common.quotas.clone(),
        max_blob_size: options.max_blob_size,
        asks,
    };
    options.registry.on.then(|| RegistryState::new(&options.registry, parts))
}
