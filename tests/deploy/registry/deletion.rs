//! What a client may delete, and what is deleted with it.

use kiln_deploy::oci::ContentDigest;

use crate::registry::client::{REPOSITORY, Registry, bytes};

#[test]
fn a_blob_that_a_manifest_needs_is_not_deleted() {
    let registry = Registry::start();
    let layer = bytes(1, 300);
    let image = registry.push_image(REPOSITORY, "v1", &layer);
    let blob = format!("/v2/{REPOSITORY}/blobs/{}", ContentDigest::of(&layer));
    registry.send("DELETE", &blob, &[], &[]).refused(409, "DENIED");
    let manifest = format!("/v2/{REPOSITORY}/manifests/{image}");
    registry.send("DELETE", &manifest, &[], &[]).expect(202);
    // The tag is deleted with the manifest that it names.
    registry.get(&format!("/v2/{REPOSITORY}/manifests/v1")).refused(404, "MANIFEST_UNKNOWN");
    registry.send("DELETE", &blob, &[], &[]).expect(202);
    registry.send("DELETE", &manifest, &[], &[]).refused(404, "MANIFEST_UNKNOWN");
}

#[test]
fn nothing_is_deleted_where_that_is_switched_off() {
    let registry = Registry::configured(|_, command| {
        command.env("KILN_REGISTRY_DELETE", "false");
    });
    let image = registry.push_image(REPOSITORY, "v1", &bytes(2, 300));
    for reference in ["v1".to_owned(), image.to_string()] {
        let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
        registry.send("DELETE", &path, &[], &[]).refused(405, "UNSUPPORTED");
        registry.get(&path).expect(200);
    }
}
