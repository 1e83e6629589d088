//! Limits on what a stranger can take from the registry.

use std::io::Write;
use std::time::{Duration, Instant};

use kiln_deploy::oci::{Algorithm, MANIFEST_TYPE};

use crate::registry::client::{REPOSITORY, Registry, bytes, read_answer, with};

#[test]
fn a_manifest_that_says_it_is_too_large_is_refused_before_it_is_read() {
    let registry = Registry::start();
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    for size in [(4 << 20) + 1, 1_u64 << 30] {
        let size = size.to_string();
        let headers = [("content-type", MANIFEST_TYPE), ("content-length", size.as_str())];
        let mut stream = registry.open("PUT", &path, &headers);
        stream.flush().unwrap();
        let began = Instant::now();
        // The client sends only the head, so the server has to refuse the manifest by the length that the head names.
        read_answer(&mut stream, "PUT").refused(413, "MANIFEST_INVALID");
        assert!(began.elapsed() < Duration::from_secs(10));
    }
}

#[test]
fn a_manifest_that_does_not_say_its_size_is_counted() {
    let registry = Registry::start();
    let path = format!("/v2/{REPOSITORY}/manifests/v1");
    let data = vec![b' '; (4 << 20) + (64 << 10)];
    registry.stream("PUT", &path, &[&data]).refused(413, "MANIFEST_INVALID");
}

#[test]
fn uploads_are_bounded_in_number_and_end_by_themselves() {
    let registry = Registry::configured(|_, command| {
        command.env("KILN_REGISTRY_MAX_UPLOADS", "3").env("KILN_REGISTRY_UPLOAD_AGE", "5s");
    });
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let first = registry.begin(REPOSITORY);
    registry.begin("other/app");
    registry.begin(REPOSITORY);
    registry.send("POST", &path, &[], &[]).refused(429, "TOOMANYREQUESTS");
    // A blob that is pushed in one request needs no open upload.
    registry.push(REPOSITORY, b"whole");
    let until = Instant::now() + Duration::from_secs(20);
    while registry.send("POST", &path, &[], &[]).status != 202 {
        assert!(Instant::now() < until, "old uploads never make room");
        kiln_test_servers::pause();
    }
    registry.get(&first).refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn uploads_are_bounded_in_bytes() {
    let registry = Registry::configured(|_, command| {
        command.env("KILN_REGISTRY_MAX_UPLOAD_BYTES", "2MiB");
    });
    let location = registry.begin(REPOSITORY);
    let data = bytes(1, 3 << 20);
    registry.stream("PATCH", &location, &[&data]).refused(429, "TOOMANYREQUESTS");
    let data = &data[..2 << 20];
    registry.stream("PATCH", &location, &[data]).expect(202);
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
    registry.send("POST", &path, &[], &[]).refused(429, "TOOMANYREQUESTS");
    let put = with(&location, &format!("digest={}", Algorithm::Sha256.digest(data)));
    // A client may end an upload although there is no room for a new one, and that makes room.
    registry.send("PUT", &put, &[], &[]).expect(201);
    registry.begin(REPOSITORY);
}

#[test]
fn a_blob_over_the_limit_is_refused_however_it_comes() {
    let registry = Registry::configured(|_, command| {
        command.env("KILN_STORAGE_MAX_BLOB_SIZE", "1MiB");
    });
    let data = bytes(2, (1 << 20) + 1);
    let path =
        format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", Algorithm::Sha256.digest(&data));
    registry.send("POST", &path, &[], &data).refused(413, "SIZE_INVALID");
    registry.stream("POST", &path, &[&data]).refused(413, "SIZE_INVALID");
    let location = registry.begin(REPOSITORY);
    registry.stream("PATCH", &location, &[&data]).refused(413, "SIZE_INVALID");
}

/// Pages of other sites cannot push, and browsers never show a stored blob as a page.
#[test]
fn pages_of_others_are_kept_out() {
    let registry = Registry::start();
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/");
    let origin = [("origin", "https://evil.example")];
    assert_eq!(registry.send("POST", &path, &origin, &[]).status, 403);
    let digest = registry.push(REPOSITORY, b"<script>alert(1)</script>");
    let answer = registry.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).expect(200);
    assert_eq!(answer.header("content-type"), Some("application/octet-stream"));
    assert_eq!(answer.header("x-content-type-options"), Some("nosniff"));
    assert!(answer.header("content-security-policy").unwrap().contains("sandbox"));
    assert!(answer.header("access-control-allow-origin").is_none());
}
