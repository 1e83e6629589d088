//! Directory, Tree and ActionResult messages from clients and workers.
#![no_main]

use std::collections::HashSet;
use std::path::{Component, Path};

use kiln_cas::result::{complete_for_all_clients, named_blobs};
use kiln_cas::tree::{check_relative_path, validate_directory};
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi;
use libfuzzer_sys::fuzz_target;
use prost::Message;

/// Whatever was accepted stays below the directory it is put into.
fn stays_inside(path: &str) {
    assert!(Path::new(path).components().all(|part| matches!(part, Component::Normal(_))));
    assert!(!path.contains('\0'));
}

/// Relative, and upwards only in the beginning: outputs may lie beside a working directory.
fn is_output_path(path: &str) {
    let mut names = path.split('/').skip_while(|name| matches!(*name, "." | ".."));
    assert!(names.all(|name| !matches!(name, "" | "." | "..") && !name.contains('\0')), "{path:?}");
}

/// The rules of REAPI's canonical form, said a second time and more simply.
fn is_canonical(directory: &reapi::Directory) -> bool {
    let files: Vec<&str> = directory.files.iter().map(|node| &*node.name).collect();
    let directories: Vec<&str> = directory.directories.iter().map(|node| &*node.name).collect();
    let links: Vec<&str> = directory.symlinks.iter().map(|node| &*node.name).collect();
    let sorted = |names: &[&str]| names.is_sorted_by(|a, b| a < b);
    let all: Vec<&str> = [&*files, &*directories, &*links].concat();
    let distinct: HashSet<&str> = all.iter().copied().collect();
    let named = |name: &&str| {
        !matches!(*name, "" | "." | "..") && name.len() <= 255 && !name.contains(['/', '\0'])
    };
    let known = |digest: &Option<reapi::Digest>| {
        let digest = digest.as_ref();
        digest.is_some_and(|digest| Digest::from_wire(digest, DigestFunction::Sha256).is_ok())
    };
    let target = |link: &reapi::SymlinkNode| {
        (1..=4096).contains(&link.target.len()) && !link.target.contains('\0')
    };
    sorted(&files)
        && sorted(&directories)
        && sorted(&links)
        && distinct.len() == all.len()
        && all.iter().all(named)
        && directory.files.iter().all(|node| known(&node.digest))
        && directory.directories.iter().all(|node| known(&node.digest))
        && directory.symlinks.iter().all(target)
}

fn directory(directory: &reapi::Directory) {
    let verdict = validate_directory(directory);
    assert_eq!(verdict.is_ok(), is_canonical(directory), "{verdict:?}");
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
                result.output_files.iter().for_each(|file| is_output_path(&file.path));
                result.output_symlinks.iter().for_each(|link| is_output_path(&link.path));
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
