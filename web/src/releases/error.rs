//! What goes wrong with releases, for those who asked.

use http::StatusCode;
use kiln_deploy::catalog::CatalogError;
use kiln_deploy::registry::store::RegistryError;
use kiln_net::causes::chain;

use crate::error::WebError;

impl From<CatalogError> for WebError {
    fn from(error: CatalogError) -> Self {
        let (status, hint) = answer(&error);
        if status.is_server_error() {
            tracing::warn!(error = %chain(&error), "a release was asked for in vain");
        }
        Self { status, message: chain(&error), hint: hint.to_owned() }
    }
}

fn answer(error: &CatalogError) -> (StatusCode, &'static str) {
    use CatalogError as It;
    match error {
        It::NoRelease(_) => (StatusCode::NOT_FOUND, "`kiln release list` says which there are."),
        It::NoDraft(_) => (StatusCode::NOT_FOUND, "Run `kiln release create` again."),
        It::Taken { .. } => (StatusCode::CONFLICT, "Give the new content another version."),
        It::Version(_) => (
            StatusCode::BAD_REQUEST,
            "Give the release another version: none begins with sha256- or sha512-.",
        ),
        It::Rejected { .. } => (
            StatusCode::CONFLICT,
            "What was rejected stays so: release something else under another version.",
        ),
        It::NoInvocation(_) => (
            StatusCode::NOT_FOUND,
            "Name one that built with this server, in this instance (--instance), within releases.keep_records; a build that found \
             everything up to date on its own machine asked for nothing.",
        ),
        It::NoOutputs { .. } => (
            StatusCode::NOT_FOUND,
            "Name a target that was built in it, as its label is written; a build that found it up to date on its own \
             machine asked for nothing.",
        ),
        It::Ambiguous { .. } => (
            StatusCode::CONFLICT,
            "Name what you mean with --output, or build with --bes_backend: build events say what a target's outputs are.",
        ),
        It::Twice(..) => {
            (StatusCode::CONFLICT, "Name the whole path of the one that is meant with --output.")
        }
        It::NotStored(_) => (
            StatusCode::CONFLICT,
            "Build it again; where Bazel leaves what it makes or reads on its own machine there, with \
             --remote_build_event_upload=all; or name with --output what is to be released.",
        ),
        It::Pushed(_) => (
            StatusCode::CONFLICT,
            "What was pushed could be taken for a release. Name another repository, or delete its manifests \
             (registry.delete).",
        ),
        It::OfAnother(_) => (
            StatusCode::CONFLICT,
            "Name the instance of its releases with --instance, if the build was there; or another repository.",
        ),
        It::SignedOtherwise { .. } => (
            StatusCode::CONFLICT,
            "Nothing was signed. Take the release as it is, or give this one another version.",
        ),
        It::NoSuchOutput { .. } => {
            (StatusCode::NOT_FOUND, "Name a path, its end, or a directory above it.")
        }
        It::NoLayout(_) => (
            StatusCode::BAD_REQUEST,
            "Name a target that makes an image layout, such as oci_image, or one of its outputs with --output; or pack the files with --files.",
        ),
        It::Evicted(_) => {
            (StatusCode::CONFLICT, "Build the target again, and release it right then.")
        }
        It::NoKey => (
            StatusCode::BAD_REQUEST,
            "Give --key FILE, which stays on your machine, or set releases.key at the server.",
        ),
        It::TooMany(_) | It::TooManyManifests(_) => (
            StatusCode::BAD_REQUEST,
            "Name fewer outputs with --output, pack them into one layer with --files, or make several releases of it.",
        ),
        It::Layout(_)
        | It::Layer(_)
        | It::Sha512(_)
        | It::Document(_)
        | It::Signatures(..)
        | It::Sign(_)
        | It::Import(_)
        | It::NotVerified(_)
        | It::Reason(_) => {
            (StatusCode::BAD_REQUEST, "docs/releases.md says what a release may be.")
        }
        It::Store(_) | It::Records(_) | It::Pin(_) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing of it is visible; try again.")
        }
        It::Provenance(_) => (
            StatusCode::SERVICE_UNAVAILABLE,
            "Nothing of it is visible; the server's log has more.",
        ),
        It::Registry(RegistryError::Busy | RegistryError::Records(_)) => {
            (StatusCode::SERVICE_UNAVAILABLE, "Nothing of it is visible; try again.")
        }
        It::Registry(_) | It::Simple(_) | It::Envelope(_) => {
            (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more.")
        }
        It::Bom(_) | It::Statement(_) | It::Json(_) | It::Stopped => {
            (StatusCode::INTERNAL_SERVER_ERROR, "The server's log has more.")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_of_too_much_is_answered_with_what_to_do() {
        for error in [CatalogError::TooMany(7), CatalogError::TooManyManifests(7)] {
            let answered = WebError::from(error);
            assert_eq!(answered.status, StatusCode::BAD_REQUEST);
            assert!(answered.hint.contains("--output"), "{}", answered.hint);
        }
    }
}
