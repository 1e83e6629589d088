//! `RequestMetadata`: who asks, and for which target.

use http::HeaderMap;
use kiln_protos::reapi::RequestMetadata;
use prost::Message;
use tonic::metadata::{Binary, MetadataMap, MetadataValue};

/// Name of the header (REAPI: `RequestMetadata`).
pub const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";
/// Longer headers are not decoded.
pub const MAX_METADATA: usize = 16 << 10;

/// The request's metadata. `None`: there is none, or it is malformed (it never matters to the
/// answer, so that is no error).
pub fn request_metadata(metadata: &MetadataMap) -> Option<RequestMetadata> {
    decode(metadata.get_bin(REQUEST_METADATA)?)
}

/// The metadata of a request by its HTTP headers.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<RequestMetadata> {
    let value = headers.get(REQUEST_METADATA)?;
    let mut map = HeaderMap::with_capacity(1);
    map.insert(REQUEST_METADATA, value.clone());
    request_metadata(&MetadataMap::from_headers(map))
}

fn decode(value: &MetadataValue<Binary>) -> Option<RequestMetadata> {
    if value.as_encoded_bytes().len() > MAX_METADATA {
        return None;
    }
    RequestMetadata::decode(value.to_bytes().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decodes_what_a_client_sends_and_ignores_rubbish() {
        let sent = RequestMetadata { target_id: "//a:b".into(), ..Default::default() };
        let mut map = MetadataMap::new();
        assert_eq!(request_metadata(&map), None);
        map.insert_bin(REQUEST_METADATA, MetadataValue::from_bytes(&sent.encode_to_vec()));
        assert_eq!(request_metadata(&map), Some(sent.clone()));
        assert_eq!(from_headers(&map.clone().into_headers()), Some(sent));
        map.insert_bin(REQUEST_METADATA, MetadataValue::from_bytes(b"\xff\xff"));
        assert_eq!(request_metadata(&map), None);
    }
}
