//! Contents inside of an answer, for clients that ask for them.

use bytes::Bytes;
use kiln_cas::{BlobStore, Digest, DigestFunction};
use kiln_protos::reapi;
use prost::Message;

use crate::request::Inline;

/// Bytes inlined into one answer, at most; what exceeds them is left to be fetched.
pub const MAX_INLINE_BYTES: u64 = 1 << 20;

/// `response` with what was asked for in it. Inlining is a hint: a content that is too large
/// or cannot be read stays outside.
pub async fn inlined(
    blobs: &dyn BlobStore,
    function: DigestFunction,
    wanted: &Inline,
    response: &Bytes,
) -> Vec<u8> {
    // Most ask for nothing, and what they get need not be decoded.
    if wanted.is_empty() {
        return response.to_vec();
    }
    let Ok(mut response) = reapi::ExecuteResponse::decode(response.clone()) else {
        return response.to_vec();
    };
    if let Some(result) = &mut response.result {
        let mut room = Room { blobs, function, left: MAX_INLINE_BYTES };
        if wanted.stdout {
            room.fill(&mut result.stdout_raw, result.stdout_digest.as_ref()).await;
        }
        if wanted.stderr {
            room.fill(&mut result.stderr_raw, result.stderr_digest.as_ref()).await;
        }
        for file in &mut result.output_files {
            if wanted.files.contains(&file.path) {
                room.fill(&mut file.contents, file.digest.as_ref()).await;
            }
        }
    }
    response.encode_to_vec()
}

struct Room<'a> {
    blobs: &'a dyn BlobStore,
    function: DigestFunction,
    left: u64,
}

impl Room<'_> {
    async fn fill(&mut self, contents: &mut Vec<u8>, digest: Option<&reapi::Digest>) {
        let digest = digest.and_then(|digest| Digest::from_wire(digest, self.function).ok());
        let Some(digest) = digest.filter(|digest| digest.size <= self.left) else { return };
        if !contents.is_empty() {
            return;
        }
        if let Ok(blob) = self.blobs.read(&digest, 0, None).await
            && let Ok(bytes) = blob.collect(digest.size).await
        {
            self.left -= digest.size;
            *contents = bytes.to_vec();
        }
    }
}
