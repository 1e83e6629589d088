//! The registry below `/v2/`.

use super::key::{Key, Kind, MIB, key};

/// Uploads are listed whenever one begins.
const MOST_UPLOADS: u64 = 10_000;

pub const KEYS: &[Key] = &[
    key(
        "registry.serve",
        "true",
        Kind::Bool,
        "Whether images and other artifacts can be pushed and pulled below /v2/. See docs/registry.md.",
    ),
    key(
        "registry.delete",
        "true",
        Kind::Bool,
        "Whether manifests, tags and blobs can be deleted there, by the role admin where roles decide.",
    ),
    key(
        "registry.protected_tags",
        "",
        Kind::List,
        "Tags that pushes may not write nor delete, as TAG or REPOSITORY:TAG, with * for any characters.",
    ),
    key(
        "registry.max_uploads",
        "1000",
        Kind::NumberIn(1, MOST_UPLOADS),
        "Most uploads in parts that are under way.",
    ),
    key(
        "registry.max_upload_bytes",
        "64GiB",
        Kind::SizeFrom(MIB),
        "Most bytes that these have together. They are kept in the store.",
    ),
    key(
        "registry.upload_age",
        "1h",
        Kind::DurationFrom(1_000),
        "How long an upload is kept after the last part of it came.",
    ),
];
