//! Directory, Tree and ActionResult messages from clients and workers.
#![no_main]

use std::path::{Component, Path};

use kiln_cas::DigestFunction;
use kiln_cas::result::{complete_for_all_clients, named_blobs};
use kiln_cas::tree::{check_relative_path, validate_directory};
use kiln_protos::reapi;
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// Whatever was accepted stays below the directory it is put into.
fn stays_inside(path: &str) {
    assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))));
    assert!(!path.contains('\0'));
}

fn directory(directory: &reapi::Directory) {
    if validate_directory(directory).is_err() {
        return;
    }
    let files = directory.files.iter().map(|node| &node.name);
    let directories = directory.directories.iter().map(|node| &node.name);
    let links = directory.symlinks.iter().map(|node| &node.name);
    for name in files.chain(directories).chain(links) {
        stays_inside(name);
        assert!(!name.contains('/') && !name.is_empty());
    }
}

fuzz_target!(|data: &[u8]| {
    if let Ok(message) = reapi::Directory::decode(data) {
        directory(&message);
    }
    if let Ok(tree) = reapi::Tree::decode(data) {
        tree.root.iter().chain(&tree.children).for_each(directory);
    }
    if let Ok(mut result) = reapi::ActionResult::decode(data) {
        for function in DigestFunction::ALL {
            if named_blobs(&result, function).is_ok() {
                result.output_files.iter().for_each(|file| stays_inside(&file.path));
                result.output_symlinks.iter().for_each(|link| stays_inside(&link.path));
            }
        }
        complete_for_all_clients(&mut result);
        let once = result.clone();
        complete_for_all_clients(&mut result);
        assert_eq!(result, once);
    }
    if let Ok(text) = std::str::from_utf8(data)
        && check_relative_path(text).is_ok()
    {
        stays_inside(text);
    }
});
