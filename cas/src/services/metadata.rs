//! `RequestMetadata`: who asks, and for which target.

use bytes::Bytes;
use http::HeaderMap;
use kiln_protos::reapi::RequestMetadata;
use prost::Message;
use tonic::metadata::MetadataMap;

/// Name of the header (REAPI: `RequestMetadata`).
pub const REQUEST_METADATA: &str = "build.bazel.remote.execution.v2.requestmetadata-bin";
/// Longer headers, in bytes as they are sent, are not decoded.
pub const MAX_METADATA: usize = 16 << 10;

/// The request's metadata. `None`: there is none, or it is malformed (it never matters to the
/// answer, so that is no error).
pub fn request_metadata(metadata: &MetadataMap) -> Option<RequestMetadata> {
    encoded_request_metadata(metadata).map(|(metadata, _)| metadata)
}

/// The same with its encoding, which is the client's own unless its names had to be made plain.
pub fn encoded_request_metadata(metadata: &MetadataMap) -> Option<(RequestMetadata, Bytes)> {
    let value = metadata.get_bin(REQUEST_METADATA)?;
    if value.as_encoded_bytes().len() > MAX_METADATA {
        return None;
    }
    let bytes = value.to_bytes().ok()?;
    let mut metadata = RequestMetadata::decode(bytes.clone()).ok()?;
    let changed = make_plain(&mut metadata);
    let bytes = if changed { metadata.encode_to_vec().into() } else { bytes };
    Some((metadata, bytes))
}

/// The metadata of a request by its HTTP headers.
pub(crate) fn from_headers(headers: &HeaderMap) -> Option<RequestMetadata> {
    let value = headers.get(REQUEST_METADATA)?;
    let mut map = HeaderMap::with_capacity(1);
    map.insert(REQUEST_METADATA, value.clone());
    request_metadata(&MetadataMap::from_headers(map))
}

/// Takes out of a client's names what would show as something else where people read them: line breaks and
/// other control characters, and those that turn the direction of a text. Returns whether there were any.
fn make_plain(metadata: &mut RequestMetadata) -> bool {
    let tool = metadata
        .tool_details
        .iter_mut()
        .flat_map(|tool| [&mut tool.tool_name, &mut tool.tool_version]);
    let own = [
        &mut metadata.action_id,
        &mut metadata.tool_invocation_id,
        &mut metadata.correlated_invocations_id,
        &mut metadata.action_mnemonic,
        &mut metadata.target_id,
        &mut metadata.configuration_id,
    ];
    let mut changed = false;
    for name in tool.chain(own).filter(|name| name.contains(is_deceptive)) {
        *name = name.replace(is_deceptive, "\u{fffd}");
        changed = true;
    }
    changed
}

/// Control characters, line and paragraph separators, and the bidirectional controls of UAX #9.
fn is_deceptive(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}'
        )
}

#[cfg(test)]
mod tests {
    use tonic::metadata::MetadataValue;

    use super::*;

    #[test]
    fn decodes_what_a_client_sends_and_ignores_rubbish() {
        let sent = RequestMetadata { target_id: "//a:b".into(), ..Default::default() };
        let mut map = MetadataMap::new();
        assert_eq!(request_metadata(&map), None);
        map.insert_bin(REQUEST_METADATA, MetadataValue::from_bytes(&sent.encode_to_vec()));
        assert_eq!(request_metadata(&map), Some(sent.clone()));
        let bytes = sent.encode_to_vec();
        assert_eq!(encoded_request_metadata(&map), Some((sent.clone(), bytes.into())));
        assert_eq!(from_headers(&map.clone().into_headers()), Some(sent));
        for rubbish in [&b"\xff\xff"[..], &vec![0; MAX_METADATA]] {
            map.insert_bin(REQUEST_METADATA, MetadataValue::from_bytes(rubbish));
            assert_eq!(request_metadata(&map), None);
        }
    }

    #[test]
    fn names_that_would_show_as_something_else_are_made_plain() {
        let mut metadata = RequestMetadata {
            tool_details: Some(kiln_protos::reapi::ToolDetails {
                tool_name: "bazel\nFORGED  0 failed".into(),
                tool_version: "7".into(),
            }),
            target_id: "//t\u{202e}x".into(),
            action_mnemonic: "日本語".into(),
            ..Default::default()
        };
        let mut map = MetadataMap::new();
        map.insert_bin(REQUEST_METADATA, MetadataValue::from_bytes(&metadata.encode_to_vec()));
        assert!(make_plain(&mut metadata));
        assert_eq!(
            encoded_request_metadata(&map),
            Some((metadata.clone(), metadata.encode_to_vec().into()))
        );
        let tool = metadata.tool_details.clone().unwrap();
        assert_eq!(tool.tool_name, "bazel\u{fffd}FORGED  0 failed");
        assert_eq!(metadata.target_id, "//t\u{fffd}x");
        assert_eq!(metadata.action_mnemonic, "日本語");
        assert!(!make_plain(&mut metadata));
    }
}
