//! A frontend's disk holds copies of blobs that turn out to be damaged.

use std::path::{Path, PathBuf};

use crate::rig::{Shared, metric};
use crate::support::reapi::Client;

/// Returns bytes that appear nowhere else.
fn content(size: usize) -> Vec<u8> {
    let mut state = size as u64 | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..size).map(|_| next()).collect()
}

/// Returns every file below `directory` that contains these bytes, with the offset of the first occurrence.
fn find(directory: &Path, needle: &[u8]) -> Vec<(PathBuf, usize)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap().flatten() {
        if entry.path().is_dir() {
            found.extend(find(&entry.path(), needle));
        } else if let Ok(data) = std::fs::read(entry.path()) {
            let at = data.windows(needle.len()).position(|window| window == needle);
            found.extend(at.map(|at| (entry.path(), at)));
        }
    }
    found
}

/// Flips one bit of the byte at the offset `at`, without replacing the file.
fn flip(file: &Path, at: usize) {
    use std::os::unix::fs::FileExt;
    let file = std::fs::File::options().read(true).write(true).open(file).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ 0x10], at as u64).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_with_a_flipped_bit_is_dropped_and_fetched_again() {
    let Some(shared) = Shared::start() else { return };
    let server = shared.frontend("one");
    let client = Client::connect(&server.url()).await;
    for size in [20_000, 200_000, 3_000_000] {
        let data = content(size);
        let digest = client.put(&data).await;
        assert_eq!(client.read(&digest).await, data);
        let copies = find(&server.data, &data[size / 2..size / 2 + 64]);
        assert!(!copies.is_empty(), "there is no copy of {size} bytes on the disk");
        let corrupt = metric(&server.address, "kiln_storage_corrupt_blobs_total", &[]);
        for (file, at) in &copies {
            flip(file, *at);
        }
        assert_eq!(client.read(&digest).await, data, "{size} bytes");
        let now = metric(&server.address, "kiln_storage_corrupt_blobs_total", &[]);
        assert!(now > corrupt, "the damage of {size} bytes is not counted");
        assert_eq!(client.read(&digest).await, data, "{size} bytes, fetched again");
    }
}
