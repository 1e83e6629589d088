//! The frontends of a fleet are one registry: they share records over Redis and blobs in S3.

use std::time::Instant;

use kiln_deploy::oci::{ContentDigest, Descriptor, MANIFEST_TYPE, Manifest};
use kiln_test_servers::pause;
use kiln_test_servers::proxy::{Fault, Proxy};

use crate::registry::client::{REPOSITORY, Registry, RegistryResponse, bytes, with};
use crate::registry::rig::{Shared, WITHIN};

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

/// Asserts that the server says that it cannot answer now.
#[track_caller]
fn fails(answer: &RegistryResponse) {
    assert!(answer.status >= 500, "{}: {}", answer.status, answer.text());
}

#[test]
fn a_push_that_loses_redis_shows_nothing_and_goes_on_when_it_is_back() {
    let Some(mut shared) = Shared::start() else { return };
    let registry = frontend(&shared, "one");
    let layer = bytes(2, 1 << 20);
    registry.push_image(REPOSITORY, "kept", &layer);
    let data = registry.image(REPOSITORY, &bytes(3, 100));
    let location = registry.begin(REPOSITORY);
    registry.send("PATCH", &location, &[], &layer).expect(202);
    let put = with(&location, &format!("digest={}", ContentDigest::of(&layer)));
    shared.redis.kill();
    fails(&registry.put_manifest(REPOSITORY, "v1", MANIFEST_TYPE, &data));
    fails(&registry.send("PUT", &put, &[], &[]));
    shared.redis.restart();
    let deadline = Instant::now() + WITHIN;
    while registry.get(&format!("/v2/{REPOSITORY}/manifests/kept")).status != 200 {
        assert!(Instant::now() < deadline, "what was acknowledged is gone");
        pause();
    }
    registry.get(&format!("/v2/{REPOSITORY}/manifests/v1")).refused(404, "MANIFEST_UNKNOWN");
    assert_eq!(registry.get(&location).expect(204).header("range"), Some("0-1048575"));
    registry.send("PUT", &put, &[], &[]).expect(201);
    registry.put_manifest(REPOSITORY, "v1", MANIFEST_TYPE, &data).expect(201);
}

#[test]
fn an_upload_that_loses_s3_shows_nothing_and_ends_when_it_is_back() {
    let Some(mut shared) = Shared::start() else { return };
    let proxy = Proxy::start(&shared.weed.address());
    shared.endpoint = proxy.endpoint();
    let mut command = shared.command("one", &["--workers", "0"]);
    command.env("KILN_S3_TIMEOUT", "1s");
    let (server, dir) = (shared.spawn(command, "one"), tempfile::tempdir().unwrap());
    let registry = Registry { server, dir, authorization: None };
    let layer = bytes(4, 5 << 20);
    let digest = ContentDigest::of(&layer);
    let location = registry.begin(REPOSITORY);
    registry.stream("PATCH", &location, &[&layer]).expect(202);
    proxy.plan(|_| Some(Fault::Status(500, "InternalError")));
    let put = with(&location, &format!("digest={digest}"));
    fails(&registry.send("PUT", &put, &[], &[]));
    proxy.heal();
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    registry.get(&path).refused(404, "BLOB_UNKNOWN");
    assert_eq!(registry.get(&location).expect(204).header("range"), Some("0-5242879"));
    registry.send("PUT", &put, &[], &[]).expect(201);
    registry.has_blob(REPOSITORY, &digest, &layer);
}
