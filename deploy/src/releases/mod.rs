//! Releases: content with everything that was signed about it, exported as an image layout and verified
//! without a network.

mod attach;
mod compressed;
mod export;
mod release;
#[cfg(test)]
pub(crate) mod tests;
mod verify;
mod verify_error;

pub(crate) use compressed::Compression;

pub use attach::{
    CLOSURE_ARTIFACT_TYPE, CYCLONEDX_PREDICATE, SPDX_PREDICATE, attestation_tag_manifest,
    bundle_manifest, closure_manifest, signature_tag_manifest,
};
pub use export::{
    DirectoryExport, ExportError, Exporter, INDEX_FILE, LAYOUT, RELEASE_ANNOTATION, blob_path,
    export, export_index, named_release,
};
pub use release::{Release, ReleaseName, ReleaseNameError};
pub use verify::{Checked, Expected, Failure, verify};
pub use verify_error::VerifyError;
