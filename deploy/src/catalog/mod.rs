//! The releases of a server: made of what was executed here, signed, kept, found again.
//!
//! A release is made in this order: content, closure and statements are put into the store (nothing shows them yet); the
//! statements are signed, here or elsewhere; everything is pinned; then one write, together with the audit log's entry,
//! makes it visible, in its repository of the registry as well. Whatever ends in between leaves blobs that go as others do, and pins that [`Catalog::sweep`]
//! removes.

mod behind;
mod blocking;
mod catching;
mod content;
mod entry;
mod error;
mod files;
mod held;
mod import;
mod keeping;
mod keys;
mod layers;
mod left;
mod making;
mod older;
mod outputs;
mod prepare;
mod reading;
mod removing;
mod showing;
mod signing;
mod standing;
mod sweep;
#[cfg(test)]
pub(crate) mod tests;
mod told;

use std::sync::Arc;

use kiln_cas::SharedBlobStore;
use kiln_cas::pins::Pins;
use kiln_cas::records::SharedRecords;
use kiln_net::{Ages, Unread};

use self::layers::KnownLayers;
use crate::executions::{Clock, ExecutionStore};
use crate::oci::{ContentDigest, Descriptor};
use crate::signing::{PublicKey, Signer};
use crate::timestamp::Timestamp;

pub use catching::CaughtUp;
pub use content::Form;
pub use entry::{CatalogEntry, Counts, Draft, Rejection, Unsigned};
pub use error::CatalogError;
pub use files::{OutputFile, OutputNode, ToldFile, is_same};
pub use making::{Asked, By, Prepared};
pub use outputs::Wanted;
pub use reading::{BlobOpener, Origins};
pub use standing::Arrival;

/// What pins of releases are called.
const PINS: &str = "release";
/// Bytes of the record of a draft.
const MAX_RECORD: usize = kiln_cas::records::MAX_VALUE;

/// What a catalog stands on.
#[derive(Clone)]
pub struct CatalogParts {
    pub records: SharedRecords,
    pub blobs: SharedBlobStore,
    pub pins: Pins,
    pub clock: Clock,
    /// What the server signs with; `None`: whoever makes a release does.
    pub key: Option<Arc<dyn Signer>>,
    /// URI of this server.
    pub builder: String,
    pub version: String,
}

/// The releases of a server. Clones share them.
#[derive(Clone)]
pub struct Catalog {
    parts: CatalogParts,
    executions: ExecutionStore,
    unread: Arc<Unread>,
    /// What was seen unfinished.
    unfinished: Arc<Ages>,
    layers: KnownLayers,
}

impl Catalog {
    pub fn new(parts: CatalogParts) -> Self {
        let executions = ExecutionStore::new(parts.records.clone());
        let (unread, unfinished) = (Arc::default(), Arc::default());
        Self { parts, executions, unread, unfinished, layers: KnownLayers::default() }
    }

    /// The key that the server signs with.
    pub fn key(&self) -> Option<&PublicKey> {
        self.parts.key.as_ref().map(|it| it.public_key())
    }

    pub fn executions(&self) -> &ExecutionStore {
        &self.executions
    }

    /// The time by the clock that the catalog was given.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_unix((self.parts.clock)().div_euclid(1_000_000_000))
    }
}

fn sized(digest: &ContentDigest, size: u64) -> Option<kiln_cas::Digest> {
    blocking::stored(&Descriptor::new("", digest.clone(), size))
}

/// Does work on a thread of its own, so that whoever else is served meanwhile does not wait.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, CatalogError> + Send + 'static,
) -> Result<T, CatalogError> {
    tokio::task::spawn_blocking(work).await.map_err(|_| CatalogError::Stopped)?
}
