//! Clients push blobs in parts.

use kiln_deploy::oci::Algorithm;

use crate::registry::client::{ALGORITHMS, REPOSITORY, Registry, RegistryResponse, bytes, with};

const PART: usize = 1500;

fn patch(registry: &Registry, location: &str, first: usize, part: &[u8]) -> RegistryResponse {
    let range = format!("{first}-{}", first + part.len() - 1);
    registry.send("PATCH", location, &[("content-range", &range)], part)
}

fn put(
    registry: &Registry,
    location: &str,
    algorithm: Algorithm,
    data: &[u8],
    part: Option<(usize, &[u8])>,
) -> RegistryResponse {
    let put = with(location, &format!("digest={}", algorithm.digest(data)));
    let answer = match part {
        None => registry.send("PUT", &put, &[], &[]),
        Some((first, part)) => {
            let range = format!("{first}-{}", first + part.len() - 1);
            registry.send("PUT", &put, &[("content-range", &range)], part)
        }
    };
    // Where a push succeeds, its location leads to the bytes.
    if answer.status == 201 {
        assert!(registry.get(&answer.location()).expect(200).body == data);
    }
    answer
}

#[test]
fn blob_chunked_single() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(1, 5000);
        let location = registry.begin(REPOSITORY);
        let answer = patch(&registry, &location, 0, &data).expect(202);
        assert_eq!(answer.header("range"), Some("0-4999"));
        put(&registry, &answer.location(), algorithm, &data, None).expect(201);
        registry.has_blob(REPOSITORY, &algorithm.digest(&data), &data);
    }
}

#[test]
fn blob_chunked_multi() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(2, 3 * PART);
        let mut location = registry.begin(REPOSITORY);
        for (place, part) in data.chunks(PART).enumerate() {
            location = patch(&registry, &location, place * PART, part).expect(202).location();
        }
        put(&registry, &location, algorithm, &data, None).expect(201);
        registry.has_blob(REPOSITORY, &algorithm.digest(&data), &data);
    }
}

#[test]
fn blob_chunked_multi_and_put_chunk() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(3, 3 * PART);
        let mut location = registry.begin(REPOSITORY);
        for (place, part) in data.chunks(PART).take(2).enumerate() {
            location = patch(&registry, &location, place * PART, part).expect(202).location();
        }
        let last = (2 * PART, &data[2 * PART..]);
        put(&registry, &location, algorithm, &data, Some(last)).expect(201);
        registry.has_blob(REPOSITORY, &algorithm.digest(&data), &data);
    }
}

#[test]
fn blob_chunked_out_of_order() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        out_of_order(&registry, algorithm, false);
    }
}

#[test]
fn blob_chunked_out_of_order_and_put_chunk() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        out_of_order(&registry, algorithm, true);
    }
}

/// The server refuses bad parts, and the upload goes on as if they had not come.
fn out_of_order(registry: &Registry, algorithm: Algorithm, put_chunk: bool) {
    let data = bytes(if put_chunk { 14 } else { 4 }, 3 * PART);
    let mut location = registry.begin(REPOSITORY);
    for place in 0..3 {
        let (first, part) = (place * PART, &data[place * PART..][..PART]);
        let wrong = if place < 2 { first + PART } else { 0 };
        patch(registry, &location, wrong, part).refused(416, "BLOB_UPLOAD_INVALID");
        if put_chunk {
            put(registry, &location, algorithm, &data, Some((wrong, part)))
                .refused(416, "BLOB_UPLOAD_INVALID");
        }
        let status = registry.get(&location).expect(204);
        let expected = format!("0-{}", first.saturating_sub(1));
        assert_eq!(status.header("range"), Some(expected.as_str()));
        location = status.location();
        if put_chunk && place == 2 {
            put(registry, &location, algorithm, &data, Some((first, part))).expect(201);
        } else {
            location = patch(registry, &location, first, part).expect(202).location();
        }
    }
    if !put_chunk {
        put(registry, &location, algorithm, &data, None).expect(201);
    }
    registry.has_blob(REPOSITORY, &algorithm.digest(&data), &data);
}

#[test]
fn blob_stream() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(5, (5 << 20) + 77);
        let parts: Vec<&[u8]> = data.chunks(100_001).collect();
        let location = registry.begin(REPOSITORY);
        let location = registry.stream("PATCH", &location, &parts).expect(202).location();
        put(&registry, &location, algorithm, &data, None).expect(201);
        registry.has_blob(REPOSITORY, &algorithm.digest(&data), &data);
    }
}

/// The client sends the last part, or the whole blob, without saying its length.
#[test]
fn blob_put_stream() {
    let registry = Registry::start();
    let data = bytes(6, 4 * PART);
    let put = format!("digest={}", Algorithm::Sha256.digest(&data));
    let location = registry.begin(REPOSITORY);
    registry.stream("PUT", &with(&location, &put), &[&data]).expect(201);
    registry.has_blob(REPOSITORY, &Algorithm::Sha256.digest(&data), &data);
    let location = registry.begin("conformance/two");
    let location = patch(&registry, &location, 0, &data[..PART]).expect(202).location();
    registry.stream("PUT", &with(&location, &put), &[&data[PART..]]).expect(201);
    registry.has_blob("conformance/two", &Algorithm::Sha256.digest(&data), &data);
}

#[test]
fn blob_many_small_parts() {
    let registry = Registry::start();
    let data = bytes(7, 1100);
    let mut location = registry.begin(REPOSITORY);
    for (place, part) in data.chunks(1).enumerate() {
        location = patch(&registry, &location, place, part).expect(202).location();
    }
    put(&registry, &location, Algorithm::Sha256, &data, None).expect(201);
    registry.has_blob(REPOSITORY, &Algorithm::Sha256.digest(&data), &data);
}

#[test]
fn blob_post_cancel() {
    let registry = Registry::start();
    let location = registry.begin(REPOSITORY);
    patch(&registry, &location, 0, b"some").expect(202);
    registry.send("DELETE", &location, &[], &[]).expect(204);
    registry.get(&location).refused(404, "BLOB_UPLOAD_UNKNOWN");
    registry.send("DELETE", &location, &[], &[]).refused(404, "BLOB_UPLOAD_UNKNOWN");
    patch(&registry, &location, 4, b"more").refused(404, "BLOB_UPLOAD_UNKNOWN");
}

#[test]
fn blob_part_of_another_length_than_it_says() {
    let registry = Registry::start();
    let location = registry.begin(REPOSITORY);
    let range = [("content-range", "0-9")];
    registry.send("PATCH", &location, &range, b"four").refused(400, "SIZE_INVALID");
    let range = [("content-range", "nonsense")];
    registry.send("PATCH", &location, &range, b"four").refused(416, "BLOB_UPLOAD_INVALID");
    assert_eq!(registry.get(&location).expect(204).header("range"), Some("0-0"));
}

/// An upload belongs to the repository in which it began, and no other repository shows it.
#[test]
fn blob_upload_of_another_repository() {
    let registry = Registry::start();
    let location = registry.begin(REPOSITORY);
    let other = location.replace(REPOSITORY, "conformance/two");
    registry.get(&other).refused(404, "BLOB_UPLOAD_UNKNOWN");
}
