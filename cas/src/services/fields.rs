//! Fields that several messages have: digests, their function and sizes.

use kiln_protos::reapi;
use tonic::Status;

use super::status::digest_status;
use crate::digest::{Digest, DigestError, DigestFunction};
use crate::error::over_blob_size;

/// The function that a message names by its number.
pub fn function(value: i32) -> Result<DigestFunction, Status> {
    DigestFunction::from_wire(value).map_err(|error| digest_status("digest_function", &error))
}

/// A digest that must be set.
pub fn wire_digest(
    field: &str,
    digest: &Option<reapi::Digest>,
    function: DigestFunction,
) -> Result<Digest, Status> {
    digest
        .as_ref()
        .ok_or(DigestError::Absent)
        .and_then(|digest| Digest::from_wire(digest, function))
        .map_err(|error| digest_status(field, &error))
}

/// The digests of a list, of which the first is number `first` of all.
pub fn wire_digests(
    field: &str,
    first: usize,
    digests: &[reapi::Digest],
    function: DigestFunction,
) -> Result<Vec<Digest>, Status> {
    let parse = |(i, digest)| {
        Digest::from_wire(digest, function)
            .map_err(|error| digest_status(&format!("{field}[{}]", first + i), &error))
    };
    digests.iter().enumerate().map(parse).collect()
}

/// Errors: the blob is larger than `limit` bytes; 0 means none.
pub fn check_size(field: impl Fn() -> String, digest: &Digest, limit: u64) -> Result<(), Status> {
    if limit == 0 || digest.size <= limit {
        return Ok(());
    }
    Err(Status::invalid_argument(format!("{}: {}", field(), over_blob_size(digest.size, limit))))
}
