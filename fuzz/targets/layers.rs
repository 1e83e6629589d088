//! Layers of container images: whatever an archive says, nothing outside of the image changes.
#![no_main]

use std::fs;

use kiln_executor::images::unpack::{Budget, Tree, apply};
use libfuzzer_sys::fuzz_target;
use tokio_util::sync::CancellationToken;

/// Tar wants sums that a mutation does not find.
fn with_sums(data: &[u8]) -> Vec<u8> {
    let mut archive = data.to_vec();
    for header in archive.chunks_exact_mut(512) {
        header[148..156].fill(b' ');
        let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
        header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    archive
}

fuzz_target!(|data: &[u8]| {
    let place = tempfile::tempdir().expect("a temporary directory");
    let root = place.path().join("root");
    fs::create_dir(&root).expect("a directory");
    fs::write(place.path().join("outside"), "untouched").expect("a file");
    let mut tree = Tree::open(&root).expect("a tree");
    let mut budget = Budget { entries: 200, bytes: 1 << 20 };
    let stop = CancellationToken::new();
    for layer in [with_sums(data), data.to_vec()] {
        let _ = apply(&mut tree, layer.as_slice(), &mut budget, &stop);
    }
    let _ = tree.finish(&[("etc", "hosts")]);
    let names = fs::read_dir(place.path()).expect("a listing").count();
    assert_eq!(names, 2, "something came into being outside");
    assert_eq!(fs::read(place.path().join("outside")).expect("a file"), b"untouched");
});
