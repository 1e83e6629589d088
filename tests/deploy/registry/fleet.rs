//! The frontends of a fleet are one registry: they share records over Redis and blobs in S3.

use kiln_deploy::oci::{ContentDigest, Descriptor, MANIFEST_TYPE, Manifest};

use crate::registry::client::{REPOSITORY, Registry, bytes, with};
use crate::registry::rig::Shared;

fn frontend(shared: &Shared, name: &str) -> Registry {
    let (server, dir) = (shared.frontend(name), tempfile::tempdir().unwrap());
    Registry { server, dir, authorization: None }
}

#[test]
fn an_upload_goes_on_at_another_frontend_and_everybody_pulls() {
    let Some(shared) = Shared::start() else { return };
    let (one, two) = (frontend(&shared, "one"), frontend(&shared, "two"));
    let layer = bytes(1, 5 << 20);
    let digest = ContentDigest::of(&layer);
    let location = one.begin(REPOSITORY);
    one.stream("PATCH", &location, &[&layer[..2 << 20]]).expect(202);
    let status = two.get(&location).expect(204);
    assert_eq!(status.header("range"), Some("0-2097151"));
    let range = [("content-range", "2097152-5242879")];
    two.send("PATCH", &location, &range, &layer[2 << 20..]).expect(202);
    // The frontend at which the upload began is killed, and another one ends the upload.
    one.server.kill();
    let put = with(&location, &format!("digest={digest}"));
    two.send("PUT", &put, &[], &[]).expect(201);
    let image = two.push_image(REPOSITORY, "v1", &layer);
    let three = frontend(&shared, "three");
    three.has_blob(REPOSITORY, &digest, &layer);
    let found = three.get(&format!("/v2/{REPOSITORY}/manifests/v1")).expect(200);
    assert_eq!(found.header("docker-content-digest"), Some(image.to_string().as_str()));
    // Several signatures reach both frontends at once, and none may be lost.
    two.push(REPOSITORY, b"{}");
    std::thread::scope(|scope| {
        for number in 0..6 {
            let registry = if number % 2 == 0 { &two } else { &three };
            let mut manifest = Manifest::artifact("a/sig", Vec::new());
            manifest.subject = Some(Descriptor::new(MANIFEST_TYPE, image.clone(), 1));
            manifest.annotations.insert("number".to_owned(), number.to_string());
            let data = manifest.write().unwrap();
            scope.spawn(move || {
                let reference = ContentDigest::of(&data).to_string();
                registry.put_manifest(REPOSITORY, &reference, MANIFEST_TYPE, &data).expect(201);
            });
        }
    });
    let index = three.get(&format!("/v2/{REPOSITORY}/referrers/{image}")).expect(200).json();
    assert_eq!(index["manifests"].as_array().unwrap().len(), 6);
}
