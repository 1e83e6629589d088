//! The names under which streams are kept.

use super::wire::StreamKey;

/// How keys of records of chunks begin.
pub(super) const CHUNKS: &str = "events/chunks/";

pub(super) fn stream_name(stream: &StreamKey) -> String {
    let component = stream.component.to_string();
    name_of(&[&stream.instance, &stream.build, &stream.invocation, &component])
}

/// Names of clients are hashed: they may be long, and hold anything.
pub(super) fn name_of(parts: &[&str]) -> String {
    let mut hash = blake3::Hasher::new_derive_key("kiln 2026 name of an event stream");
    for part in parts {
        hash.update(&(part.len() as u64).to_le_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_hex()[..32].to_owned()
}
