//! Clients push whole blobs by both hashes.

use kiln_deploy::oci::{Algorithm, ContentDigest};

use crate::registry::client::{ALGORITHMS, REPOSITORY, Registry, RegistryResponse, bytes, with};

#[test]
fn ping() {
    let registry = Registry::start();
    registry.get("/v2/").expect(200);
    registry.get("/v2").expect(200);
}

#[test]
fn blob_get_missing() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let digest = algorithm.digest(b"nobody has this");
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        registry.get(&path).refused(404, "BLOB_UNKNOWN");
        registry.send("HEAD", &path, &[], &[]).expect(404);
    }
}

#[test]
fn blob_post_only() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(1, 3 << 20);
        let digest = algorithm.digest(&data);
        let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        let location = registry.send("POST", &path, &[], &data).expect(201).location();
        assert!(registry.get(&location).expect(200).body == data);
        registry.has_blob(REPOSITORY, &digest, &data);
    }
}

#[test]
fn blob_post_put() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        for size in [1, 2048, 1 << 20, (1 << 20) + 1] {
            let data = bytes(size as u64, size);
            let digest = algorithm.digest(&data);
            let location = registry.begin(REPOSITORY);
            let put = with(&location, &format!("digest={digest}"));
            let location = registry.send("PUT", &put, &[], &data).expect(201).location();
            assert!(registry.get(&location).expect(200).body == data);
            registry.has_blob(REPOSITORY, &digest, &data);
        }
    }
}

/// Some clients escape the colon of the digest.
#[test]
fn blob_digest_escaped() {
    let registry = Registry::start();
    let data = bytes(1, 100);
    let digest = ContentDigest::of(&data).to_string().replace(':', "%3A");
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
    registry.send("POST", &path, &[], &data).expect(201);
    assert!(registry.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).expect(200).body == data);
}

#[test]
fn blob_empty() {
    small_blob(b"");
}

#[test]
fn blob_empty_json() {
    small_blob(b"{}");
}

/// Pushes a blob in both ways, and reads and deletes it.
fn small_blob(data: &[u8]) {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let digest = registry.push_as(algorithm, REPOSITORY, data);
        registry.has_blob(REPOSITORY, &digest, data);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        registry.send("DELETE", &path, &[], &[]).expect(202);
        registry.send("HEAD", &path, &[], &[]).expect(404);
        let location = registry.begin(REPOSITORY);
        let put = with(&location, &format!("digest={digest}"));
        registry.send("PUT", &put, &[], data).expect(201);
        registry.has_blob(REPOSITORY, &digest, data);
    }
}

/// Pushes bytes that the digest does not name, as `push` does it with the parameter that names it. The push has to be
/// refused, and nothing may be there afterwards.
fn bad_digest(push: impl Fn(&Registry, &str, &[u8]) -> RegistryResponse) {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let (data, digest) = (bytes(2, 4096), algorithm.digest(b"something else"));
        push(&registry, &format!("digest={digest}"), &data).refused(400, "DIGEST_INVALID");
        for name in [digest, algorithm.digest(&data)] {
            registry.get(&format!("/v2/{REPOSITORY}/blobs/{name}")).expect(404);
        }
    }
}

/// Sends bytes as the part of an upload that begins at the first byte. Returns where the next part goes.
fn first_part(registry: &Registry, data: &[u8]) -> String {
    let range = format!("0-{}", data.len() - 1);
    let (location, range) = (registry.begin(REPOSITORY), [("content-range", range.as_str())]);
    registry.send("PATCH", &location, &range, data).expect(202).location()
}

#[test]
fn blob_bad_digest_post_only() {
    bad_digest(|registry, digest, data| {
        let post = with(&format!("/v2/{REPOSITORY}/blobs/uploads/"), digest);
        registry.send("POST", &post, &[], data)
    });
}

#[test]
fn blob_bad_digest_post_put() {
    bad_digest(|registry, digest, data| {
        registry.send("PUT", &with(&registry.begin(REPOSITORY), digest), &[], data)
    });
}

#[test]
fn blob_bad_digest_chunked() {
    bad_digest(|registry, digest, data| {
        registry.send("PUT", &with(&first_part(registry, data), digest), &[], &[])
    });
}

#[test]
fn blob_bad_digest_chunked_and_put_chunk() {
    bad_digest(|registry, digest, data| {
        let put = with(&first_part(registry, &data[..2048]), digest);
        registry.send("PUT", &put, &[("content-range", "2048-4095")], &data[2048..])
    });
}

#[test]
fn blob_bad_digest_stream() {
    bad_digest(|registry, digest, data| {
        let location = registry.begin(REPOSITORY);
        let location = registry.stream("PATCH", &location, &[data]).expect(202).location();
        registry.send("PUT", &with(&location, digest), &[], &[])
    });
}

#[test]
fn blob_digest_that_is_none() {
    let registry = Registry::start();
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest=sha256:nothing");
    registry.send("POST", &path, &[], b"x").refused(400, "DIGEST_INVALID");
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest-algorithm=md5");
    registry.send("POST", &path, &[], b"").refused(400, "DIGEST_INVALID");
}

#[test]
fn blob_delete_is_atomic() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(3, 2000);
        let digest = registry.push_as(algorithm, REPOSITORY, &data);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        registry.send("DELETE", &path, &[], &[]).expect(202);
        registry.send("HEAD", &path, &[], &[]).expect(404);
        registry.send("DELETE", &path, &[], &[]).refused(404, "BLOB_UNKNOWN");
    }
}

/// A caller who names a blob that the store has for another repository, but does not have the bytes, gets nothing of
/// it.
#[test]
fn blob_of_another_repository_is_not_had_by_its_digest() {
    let registry = Registry::start();
    let data = bytes(4, 3000);
    let digest = registry.push("secret/app", &data);
    registry.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    let path = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
    registry.send("POST", &path, &[], &bytes(5, 3000)).refused(400, "DIGEST_INVALID");
    registry.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    assert_eq!(Algorithm::Sha256.digest(&data), digest);
}

#[test]
fn names_that_are_none() {
    let registry = Registry::start();
    registry.get("/v2/Upper/tags/list").refused(400, "NAME_INVALID");
    registry.get("/v2/a/../b/tags/list").expect(400);
    registry.get("/v2/app/nothing/here").refused(404, "UNSUPPORTED");
    registry.send("PATCH", "/v2/app/tags/list", &[], &[]).refused(405, "UNSUPPORTED");
}
