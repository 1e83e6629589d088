//! What can be broken about an exported release.

use super::release::{ReleaseName, ReleaseNameError};
use crate::oci::{ContentDigest, LayerProblem, LayoutError};
use crate::provenance::ListError;
use crate::signing::{AttestationError, KeyRefused};

/// Why a release does not verify: what of it does not hold.
#[derive(Debug, thiserror::Error)]
pub enum VerifyError {
    #[error("the directory does not hold what it says")]
    Layout(#[from] LayoutError),
    #[error("the index names {0} releases; one is expected")]
    Releases(usize),
    #[error("the release has no name that can be read")]
    Name(#[from] ReleaseNameError),
    #[error("this is the release {found}, not {expected}")]
    OtherRelease { expected: ReleaseName, found: ReleaseName },
    #[error("the directory calls it {found}, and what is signed calls it {signed:?}")]
    SignedName { found: ReleaseName, signed: String },
    #[error("the layer {layer} is not safe to unpack")]
    Layer {
        layer: ContentDigest,
        #[source]
        source: LayerProblem,
    },
    #[error("{0} is about something else than the release")]
    Stranger(ContentDigest),
    #[error("the attestation {attestation} is not accepted")]
    Attestation {
        attestation: ContentDigest,
        #[source]
        source: Box<AttestationError>,
    },
    #[error("the attestation {attestation} is signed by a key that does not count")]
    Key {
        attestation: ContentDigest,
        #[source]
        source: KeyRefused,
    },
    #[error("the attestation {0} is a statement of an older form")]
    OlderStatement(ContentDigest),
    #[error("nothing that is signed says where the release comes from")]
    NoProvenance,
    #[error("{0} provenances are signed, which may say different things; one is expected")]
    Provenances(usize),
    #[error("the provenance does not say {0}")]
    Unsaid(&'static str),
    #[error("the provenance says that the {what} is {found:?}, not {expected:?}")]
    Unexpected { what: &'static str, expected: String, found: String },
    #[error("the list of the closure that the provenance names is not there: sha256:{0}")]
    NoClosure(String),
    #[error("the list of the closure does not hold")]
    Closure(#[from] ListError),
    #[error("the provenance counts {says} {what}, and the list of the closure has {found}")]
    Counts { what: &'static str, says: u64, found: usize },
}
