//! Why there is no release, or nothing is said of one.

use kiln_cas::StoreError;
use kiln_cas::pins::PinError;
use kiln_cas::records::RecordsError;

use crate::json::JsonError;
use crate::oci::{ContentDigest, DocumentError, LayerError, LayoutError, Repository};
use crate::provenance::{BomError, ProvenanceError};
use crate::registry::store::{ClaimError, RegistryError};
use crate::releases::ReleaseName;
use crate::signing::{BundleError, EnvelopeError, SimpleError, StatementError};

/// What is wrong with a request, or with what it is about.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    #[error("there is no release {0}")]
    NoRelease(ReleaseName),
    #[error("{name} is another release already: it is {existing}, and never changes")]
    Taken { name: ReleaseName, existing: ContentDigest },
    #[error("{0} has a version such as the tags have that lead to what was signed of a release")]
    Version(ReleaseName),
    #[error("{name} was rejected: {reason}")]
    Rejected { name: ReleaseName, reason: String },
    #[error("nothing is recorded of the invocation {0:?}")]
    NoInvocation(String),
    #[error("the invocation {invocation:?} left no output of {target:?}{}", others(.known))]
    NoOutputs { invocation: String, target: String, known: Vec<String> },
    #[error("{target:?} left outputs in {count} actions, and it is not known which are its own: {}", .paths.join(", "))]
    Ambiguous { target: String, count: usize, paths: Vec<String> },
    #[error("{target:?} has no output {path:?}; it has {}", .known.join(", "))]
    NoSuchOutput { target: String, path: String, known: Vec<String> },
    #[error("{0:?} and {1:?} would be at the same path of the release")]
    Twice(String, String),
    #[error("{0:?} is an output of the target, says the build, and the store does not have it")]
    NotStored(String),
    #[error("{name} is there already, with the same content, and signed by another key: {key}")]
    SignedOtherwise { name: ReleaseName, key: String },
    #[error("there is no image layout among the outputs: {0}")]
    NoLayout(String),
    #[error("the image layout does not hold")]
    Layout(#[from] Box<LayoutError>),
    #[error("{0} is named by SHA-512, which is not kept here")]
    Sha512(ContentDigest),
    #[error("the outputs cannot be packed")]
    Layer(#[from] LayerError),
    #[error("an output is not in the store any more")]
    Evicted(#[source] StoreError),
    #[error("the release is made of more than {0} blobs")]
    TooMany(usize),
    #[error("the release has more than {0} manifests, or too large ones")]
    TooManyManifests(usize),
    #[error("{0} has manifests that were pushed: it cannot have releases")]
    Pushed(Repository),
    #[error("{0} has releases of another instance")]
    OfAnother(Repository),
    #[error("no provenance can be given")]
    Provenance(#[from] ProvenanceError),
    #[error("a bill of materials cannot be written")]
    Bom(#[from] BomError),
    #[error("a statement about the release cannot be written")]
    Statement(#[from] StatementError),
    #[error("the server has no key of its own (releases.key): sign with yours")]
    NoKey,
    #[error("the release cannot be signed")]
    Sign(#[from] BundleError),
    #[error("the image cannot be signed")]
    Simple(#[from] SimpleError),
    #[error("what was signed of the release cannot be read")]
    Envelope(#[source] EnvelopeError),
    #[error("a manifest of the release cannot be read")]
    Document(#[from] DocumentError),
    #[error("the release cannot be shown in the registry")]
    Registry(#[from] RegistryError),
    #[error("what was prepared is not there: it was {0:?}, and is kept for an hour")]
    NoDraft(String),
    #[error("{0} signatures are given, and {1} are needed")]
    Signatures(usize, usize),
    #[error("the export cannot be taken in: {0}")]
    Import(String),
    #[error("the export is not verified")]
    NotVerified(#[source] Box<crate::releases::VerifyError>),
    #[error("the reason is to have 1 to {0} characters")]
    Reason(usize),
    #[error("a document cannot be written or read")]
    Json(#[from] JsonError),
    #[error("the store does not answer")]
    Store(#[from] StoreError),
    #[error("what the release is made of cannot be kept")]
    Pin(#[from] PinError),
    #[error("records cannot be read or written")]
    Records(#[from] RecordsError),
    #[error("the work was given up")]
    Stopped,
}

impl CatalogError {
    /// Whether the same may go well in a while.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Evicted(error) | Self::Store(error) => !matches!(error, StoreError::NotFound(_)),
            Self::Pin(_) | Self::Records(_) | Self::Stopped => true,
            Self::Registry(error) => matches!(
                error,
                RegistryError::Store(_)
                    | RegistryError::Records(_)
                    | RegistryError::Pins(_)
                    | RegistryError::Busy
            ),
            _ => false,
        }
    }
}

fn others(known: &[String]) -> String {
    match known {
        [] => String::new(),
        some => format!("; it has those of {}", some.join(", ")),
    }
}

impl From<ClaimError> for CatalogError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Pushed(repository) => Self::Pushed(repository),
            ClaimError::Another(repository) => Self::OfAnother(repository),
            ClaimError::Registry(error) => Self::Registry(error),
        }
    }
}

impl From<LayoutError> for CatalogError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(Box::new(error))
    }
}
