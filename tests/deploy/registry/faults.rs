//! What the registry still has after crashes and in a full store.

use std::io::Write;

use kiln_deploy::oci::{Algorithm, ContentDigest, MANIFEST_TYPE};

use crate::registry::client::{REPOSITORY, Registry, bytes, with};
use crate::support::server::{Server, command};

fn restarted(registry: Registry) -> Registry {
    let Registry { server, dir, authorization } = registry;
    let data = server.data.clone();
    server.kill();
    let mut command = command("127.0.0.1:0", &data, &[]);
    command.env("KILN_WORKERS_COUNT", "0");
    Registry { server: Server::spawn(command, &data), dir, authorization }
}

/// After kill -9 the registry has everything that it acknowledged, and half of nothing that it did not.
#[test]
fn a_killed_server_shows_all_of_a_push_or_nothing() {
    let registry = Registry::start();
    let layer = bytes(1, 3 << 20);
    let image = registry.push_image(REPOSITORY, "v1", &layer);
    let location = registry.begin(REPOSITORY);
    let half = bytes(2, 2 << 20);
    registry.send("PATCH", &location, &[], &half[..1 << 20]).expect(202);
    // This part is under way when the server dies.
    let size = (1 << 20).to_string();
    let headers = [("content-length", size.as_str()), ("content-range", "1048576-2097151")];
    let mut open = registry.open("PATCH", &location, &headers);
    open.write_all(&half[1 << 20..(1 << 20) + 5000]).unwrap();
    let registry = restarted(registry);
    drop(open);
    registry.has_blob(REPOSITORY, &ContentDigest::of(&layer), &layer);
    registry.get(&format!("/v2/{REPOSITORY}/manifests/{image}")).expect(200);
    registry.get(&format!("/v2/{REPOSITORY}/manifests/v1")).expect(200);
    let digest = Algorithm::Sha256.digest(&half);
    registry.get(&format!("/v2/{REPOSITORY}/blobs/{digest}")).refused(404, "BLOB_UNKNOWN");
    // The upload still has the part that the first server acknowledged, and goes on from there.
    let status = registry.get(&location).expect(204);
    assert_eq!(status.header("range"), Some("0-1048575"));
    registry.send("PATCH", &location, &headers[1..], &half[1 << 20..]).expect(202);
    let put = with(&location, &format!("digest={digest}"));
    registry.send("PUT", &put, &[], &[]).expect(201);
    registry.has_blob(REPOSITORY, &digest, &half);
}

/// A part whose connection breaks off counts for nothing.
#[test]
fn a_part_that_breaks_off_is_sent_again() {
    let registry = Registry::start();
    let data = bytes(3, 3 << 20);
    let location = registry.begin(REPOSITORY);
    let size = data.len().to_string();
    let mut open = registry.open("PATCH", &location, &[("content-length", &size)]);
    open.write_all(&data[..2 << 20]).unwrap();
    drop(open);
    assert_eq!(registry.get(&location).expect(204).header("range"), Some("0-0"));
    registry.send("PATCH", &location, &[], &data).expect(202);
    let put = with(&location, &format!("digest={}", Algorithm::Sha256.digest(&data)));
    registry.send("PUT", &put, &[], &[]).expect(201);
}

/// A store may be full of blobs that no tag and no caller needs. It evicts those, and tagged images stay whole.
#[test]
fn what_a_tag_needs_outlives_what_nobody_needs() {
    let registry = Registry::configured(|_, command| {
        command
            .env("KILN_STORAGE_MAX_SIZE", "32MiB")
            .env("KILN_STORAGE_LEASE", "1s")
            .env("KILN_STORAGE_MIN_LEASE", "1s");
    });
    let layer = bytes(4, 4 << 20);
    registry.push_image(REPOSITORY, "kept", &layer);
    let untagged = registry.image(REPOSITORY, &bytes(5, 4 << 20));
    let reference = ContentDigest::of(&untagged).to_string();
    registry.put_manifest(REPOSITORY, &reference, MANIFEST_TYPE, &untagged).expect(201);
    let path = format!("/v2/{REPOSITORY}/manifests/{reference}");
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    let mut seed = 100;
    while registry.send("HEAD", &path, &[], &[]).status == 200 {
        assert!(std::time::Instant::now() < until, "nothing is ever evicted");
        // Each HEAD makes the store promise the blob anew, so the test leaves it alone for longer than that promise
        // lasts.
        let alone = std::time::Instant::now();
        while alone.elapsed() < std::time::Duration::from_secs(3) {
            seed += 1;
            let data = bytes(seed, 2 << 20);
            let digest = Algorithm::Sha256.digest(&data);
            let post = format!("/v2/other/app/blobs/uploads/?digest={digest}");
            registry.send("POST", &post, &[], &data);
        }
    }
    registry.get(&format!("/v2/{REPOSITORY}/manifests/kept")).expect(200);
    registry.has_blob(REPOSITORY, &ContentDigest::of(&layer), &layer);
}

/// The store is full of blobs that it has promised to keep. It refuses pushes, and what HEAD has found is there for GET.
#[test]
fn a_full_store_refuses_pushes_and_has_what_it_said_that_it_has() {
    let registry = Registry::configured(|_, command| {
        command.env("KILN_STORAGE_MAX_SIZE", "32MiB");
    });
    let location = registry.begin(REPOSITORY);
    let part = bytes(1, 1 << 20);
    registry.send("PATCH", &location, &[], &part).expect(202);
    let mut kept = Vec::new();
    let refused = loop {
        let data = bytes(100 + kept.len() as u64, 1 << 20);
        let digest = ContentDigest::of(&data);
        let post = format!("/v2/{REPOSITORY}/blobs/uploads/?digest={digest}");
        let answer = registry.send("POST", &post, &[], &data);
        if answer.status != 201 {
            answer.refused(507, "UNKNOWN");
            break digest;
        }
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        registry.send("HEAD", &path, &[], &[]).expect(200);
        kept.push((digest, data));
        assert!(kept.len() < 64, "the store is never full");
    };
    let path = format!("/v2/{REPOSITORY}/blobs/{refused}");
    registry.get(&path).refused(404, "BLOB_UNKNOWN");
    registry.send("PATCH", &location, &[], &bytes(2, 1 << 20)).refused(507, "UNKNOWN");
    let status = registry.get(&location).expect(204);
    assert_eq!(status.header("range"), Some("0-1048575"), "the upload is as it was");
    for (digest, data) in &kept {
        registry.has_blob(REPOSITORY, digest, data);
    }
}

/// Other blobs come and go while somebody still pushes. What the push has brought stays until its manifest comes.
#[test]
fn what_a_push_has_brought_stays_while_it_goes_on() {
    let registry = Registry::configured(|_, command| {
        // A push that says nothing for so long is over: on a busy machine one of its parts may take a second.
        command.env("KILN_STORAGE_MAX_SIZE", "32MiB").env("KILN_STORAGE_MIN_LEASE", "4s");
    });
    let layer = bytes(1, 4 << 20);
    let digest = registry.push(REPOSITORY, &layer);
    let part = b"{}";
    let part_of_push =
        format!("/v2/{REPOSITORY}/blobs/uploads/?digest={}", Algorithm::Sha256.digest(part));
    let others = (1000..1048).map(|seed| bytes(seed, 1 << 20));
    let others: Vec<_> = others.map(|data| (Algorithm::Sha256.digest(&data), data)).collect();
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    // More than there is room for comes to repositories whose own pushes are over.
    for (number, (other, data)) in others.iter().enumerate() {
        let post = format!("/v2/other/app{number}/blobs/uploads/?digest={other}");
        loop {
            let is_taken = registry.send("POST", &post, &[], data).status == 201;
            registry.send("POST", &part_of_push, &[], part);
            if is_taken {
                break;
            }
            assert!(std::time::Instant::now() < until, "nothing is ever evicted");
            kiln_test_servers::pause();
        }
    }
    registry.has_blob(REPOSITORY, &digest, &layer);
    let gone = others.iter().enumerate().filter(|(number, (other, _))| {
        let path = format!("/v2/other/app{number}/blobs/{other}");
        registry.send("HEAD", &path, &[], &[]).status == 404
    });
    assert!(gone.count() >= 16);
}
