//! Finds the files that an image holds, by their hashes, in its layers. So whoever has a file hears which releases it
//! is in.

use std::collections::BTreeSet;
use std::io::Read as _;

use kiln_cas::DigestFunction;

use super::blocking::{Blocking, stored};
use crate::oci::Descriptor;
use crate::releases::Compression;

/// Files of which it is remembered that a release holds them.
pub const MAX_HELD: usize = 20_000;
/// Bytes of all layers, unpacked, that are looked through.
const MAX_BYTES: u64 = 16 << 30;
const CHUNK: usize = 64 << 10;

/// The hashes (SHA-256) of files in these layers, as far as they can be read: it says where a file may be, and proves
/// nothing.
pub fn files<'a>(
    store: &Blocking,
    layers: impl Iterator<Item = &'a Descriptor>,
) -> BTreeSet<String> {
    let mut held = BTreeSet::new();
    let mut bytes = 0;
    for layer in layers {
        let Some(compression) = Compression::of(&layer.media_type) else { continue };
        let reader = stored(layer).and_then(|it| store.open(&it).ok());
        let Some(Ok(reader)) = reader.map(|it| compression.reader(Box::new(it))) else { continue };
        add(&mut held, &mut bytes, reader);
        if held.len() >= MAX_HELD || bytes >= MAX_BYTES {
            break;
        }
    }
    held
}

fn add(held: &mut BTreeSet<String>, bytes: &mut u64, layer: Box<dyn std::io::Read + '_>) {
    let mut archive = tar::Archive::new(layer);
    let Ok(entries) = archive.entries() else { return };
    let mut chunk = vec![0; CHUNK];
    for mut entry in entries.flatten() {
        if !entry.header().entry_type().is_file() {
            continue;
        }
        let mut hasher = DigestFunction::Sha256.hasher();
        loop {
            match entry.read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => {
                    *bytes += length as u64;
                    hasher.update(chunk.get(..length).unwrap_or_default());
                }
                Err(_) => return,
            }
        }
        held.insert(hasher.finish().hex());
        if held.len() >= MAX_HELD || *bytes >= MAX_BYTES {
            return;
        }
    }
}
