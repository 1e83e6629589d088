//! Which invocation a request names.

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use http::HeaderMap;

use super::metadata::{MAX_METADATA, REQUEST_METADATA};
use super::wire::take_varint;

/// Tag of `RequestMetadata.tool_invocation_id`.
const TOOL_INVOCATION_ID: u64 = 3 << 3 | 2;
/// Encoded metadata of usual length is decoded without asking for memory.
const USUAL_METADATA: usize = 1024;
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Hands the id of the invocation that a request names to `found`, without decoding the rest of its
/// metadata. `None`: it names none, or its metadata is malformed.
pub fn invocation_id<T>(headers: &HeaderMap, found: impl FnOnce(&[u8]) -> Option<T>) -> Option<T> {
    let encoded = headers.get(REQUEST_METADATA)?.as_bytes();
    if encoded.len() > MAX_METADATA {
        return None;
    }
    let mut usual = [0; USUAL_METADATA];
    if let Ok(length) = BASE64.decode_slice(encoded, &mut usual) {
        return found(find_invocation(&usual[..length])?);
    }
    found(find_invocation(&BASE64.decode(encoded).ok()?)?)
}

fn find_invocation(mut data: &[u8]) -> Option<&[u8]> {
    let mut id = None;
    while !data.is_empty() {
        let tag = take_varint(&mut data)?;
        let skip = match tag & 7 {
            0 => take_varint(&mut data).map(|_| 0)?,
            1 => 8,
            2 => usize::try_from(take_varint(&mut data)?).ok()?,
            5 => 4,
            _ => return None,
        };
        let (value, rest) = data.split_at_checked(skip)?;
        if tag == TOOL_INVOCATION_ID {
            id = Some(value);
        }
        data = rest;
    }
    id
}

#[cfg(test)]
mod tests {
    use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
    use kiln_protos::reapi::{RequestMetadata, ToolDetails};
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn named(encoded: &[u8]) -> Option<Vec<u8>> {
        let mut headers = HeaderMap::new();
        headers.insert(REQUEST_METADATA, encoded.try_into().ok()?);
        invocation_id(&headers, |id| Some(id.to_vec()))
    }

    proptest! {
        #[test]
        fn the_invocation_is_what_prost_decodes(id in ".{0,200}", rest in ".{0,900}", target: String) {
            let sent = RequestMetadata {
                tool_details: Some(ToolDetails { tool_name: rest, ..Default::default() }),
                tool_invocation_id: id.clone(),
                target_id: target,
                ..Default::default()
            };
            let expected = (!id.is_empty()).then(|| id.into_bytes());
            prop_assert_eq!(named(STANDARD.encode(sent.encode_to_vec()).as_bytes()), expected.clone());
            prop_assert_eq!(named(STANDARD_NO_PAD.encode(sent.encode_to_vec()).as_bytes()), expected);
        }

        #[test]
        fn arbitrary_headers_never_panic(data: Vec<u8>, raw: Vec<u8>) {
            named(STANDARD.encode(data).as_bytes());
            named(&raw);
        }
    }
}
