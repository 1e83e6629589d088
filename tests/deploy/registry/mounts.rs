//! Clients mount blobs from another repository.

use crate::registry::client::{ALGORITHMS, REPOSITORY, Registry, bytes, with};

const OTHER: &str = "conformance/two";

fn mount(digest: &kiln_deploy::oci::ContentDigest, from: Option<&str>) -> String {
    let from = from.map(|from| format!("&from={from}")).unwrap_or_default();
    format!("/v2/{REPOSITORY}/blobs/uploads/?mount={digest}{from}")
}

#[test]
fn blob_mount() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(1, 4000);
        let digest = registry.push_as(algorithm, OTHER, &data);
        let answer = registry.send("POST", &mount(&digest, Some(OTHER)), &[], &[]).expect(201);
        assert!(registry.get(&answer.location()).expect(200).body == data);
        registry.has_blob(REPOSITORY, &digest, &data);
    }
}

#[test]
fn blob_mount_anonymous() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(2, 4000);
        let digest = registry.push_as(algorithm, OTHER, &data);
        let answer = registry.send("POST", &mount(&digest, None), &[], &[]).expect(201);
        assert!(registry.get(&answer.location()).expect(200).body == data);
        registry.has_blob(REPOSITORY, &digest, &data);
    }
}

#[test]
fn blob_mount_missing() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(3, 4000);
        let digest = algorithm.digest(&data);
        for from in [Some(OTHER), None, Some("No/Name")] {
            let location =
                registry.send("POST", &mount(&digest, from), &[], &[]).expect(202).location();
            let put = with(&location, &format!("digest={digest}"));
            registry.send("PUT", &put, &[], &data).expect(201);
            registry.has_blob(REPOSITORY, &digest, &data);
            let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
            registry.send("DELETE", &path, &[], &[]).expect(202);
        }
    }
}
