//! Clients read parts of blobs one by one and at the same time.

use crate::registry::client::{ALGORITHMS, REPOSITORY, Registry, bytes};

#[test]
fn blob_range_requests() {
    let registry = Registry::start();
    for algorithm in ALGORITHMS {
        let data = bytes(1, 2048);
        let digest = registry.push_as(algorithm, REPOSITORY, &data);
        let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
        for (range, first, last) in [
            ("500-1499", 500, 1499),
            ("500-", 500, 2047),
            ("-500", 1548, 2047),
            ("2000-5000", 2000, 2047),
        ] {
            let range = format!("bytes={range}");
            let answer = registry.send("GET", &path, &[("range", &range)], &[]).expect(206);
            assert!(answer.body == data[first..=last], "{range}");
            let length = (last - first + 1).to_string();
            assert_eq!(answer.header("content-length"), Some(length.as_str()));
            let said = format!("bytes {first}-{last}/2048");
            assert_eq!(answer.header("content-range"), Some(said.as_str()));
        }
        for range in ["bytes=500-0", "bytes=5000-10000"] {
            registry.send("GET", &path, &[("range", range)], &[]).expect(416);
        }
    }
}

#[test]
fn parts_of_a_large_blob_are_read_side_by_side() {
    const PART: usize = (1 << 20) + 13;
    let registry = Registry::start();
    let data = bytes(2, 8 * PART);
    let digest = registry.push(REPOSITORY, &data);
    let path = format!("/v2/{REPOSITORY}/blobs/{digest}");
    std::thread::scope(|scope| {
        for (place, part) in data.chunks(PART).enumerate() {
            let (registry, path) = (&registry, &path);
            scope.spawn(move || {
                let range = format!("bytes={}-{}", place * PART, (place + 1) * PART - 1);
                let answer = registry.send("GET", path, &[("range", &range)], &[]).expect(206);
                assert!(answer.body == part, "{range}");
            });
        }
    });
}
