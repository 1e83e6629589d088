//! FindMissingBlobs straight from the wire into digests and back: with a thousand digests a
//! request, a `String` for each would be most of its cost.

use bytes::Bytes;

use super::{FindMissingBlobsRequest, put_varint, take_varint};
use crate::counted::{self, CountError};
use crate::digest::{Digest, DigestError, DigestFunction};

const INSTANCE_NAME: u8 = 0x0a;
const BLOB_DIGEST: u8 = 0x12;
const DIGEST_FUNCTION: u8 = 0x18;
const HASH: u8 = 0x0a;
const SIZE: u8 = 0x10;
const MISSING_DIGEST: u8 = 0x12;
/// Hexadecimal digits of a hash.
const HEX: usize = 64;

/// What is wrong with a request.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FindMissingError {
    #[error("FindMissingBlobsRequest: {0}")]
    Malformed(CountError),
    #[error("digest_function: {0}")]
    Function(DigestError),
    #[error("blob_digests[{index}]: {source}")]
    Digest { index: usize, source: DigestError },
}

/// What a `FindMissingBlobsRequest` asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FindMissing {
    /// As it came.
    pub instance: Bytes,
    pub digests: Vec<Digest>,
}

pub fn decode_find_missing(message: &Bytes) -> Result<FindMissing, FindMissingError> {
    if let Some((instance, digests)) = decode_usual(message) {
        return Ok(FindMissing { instance: message.slice_ref(instance), digests });
    }
    let request: FindMissingBlobsRequest =
        counted::decode(message.clone()).map_err(FindMissingError::Malformed)?;
    let function =
        DigestFunction::from_wire(request.digest_function).map_err(FindMissingError::Function)?;
    let parse = |(index, digest): (usize, &super::Digest)| {
        digest.parse(function).map_err(|source| FindMissingError::Digest { index, source })
    };
    let digests = request.blob_digests.iter().enumerate().map(parse).collect::<Result<_, _>>()?;
    Ok(FindMissing { instance: request.instance_name, digests })
}

/// The encoding that every protobuf library writes. `None`: something else, valid or not; the
/// complete decoder then decides. Of a field that comes twice the last counts, as everywhere.
fn decode_usual(message: &[u8]) -> Option<(&[u8], Vec<Digest>)> {
    // A digest takes 68 bytes at least, with its own prefix 70.
    let mut digests = Vec::with_capacity(message.len() / 70);
    let mut function = DigestFunction::Sha256;
    let mut instance = &message[..0];
    let mut data = message;
    while let Some((&tag, rest)) = data.split_first() {
        data = rest;
        match tag {
            BLOB_DIGEST => digests.push(usual_digest(take_field(&mut data)?)?),
            INSTANCE_NAME => {
                instance = take_field(&mut data)?;
                std::str::from_utf8(instance).ok()?;
            }
            DIGEST_FUNCTION => {
                let value = i32::try_from(take_varint(&mut data)?).ok()?;
                function = DigestFunction::from_wire(value).ok()?;
            }
            _ => return None,
        }
    }
    // The function comes after the digests.
    if function != DigestFunction::Sha256 {
        digests.iter_mut().for_each(|digest| digest.function = function);
    }
    if digests.iter().any(|digest| digest.possible().is_err()) {
        return None;
    }
    Some((instance, digests))
}

fn usual_digest(field: &[u8]) -> Option<Digest> {
    let ([HASH, length, hash @ ..], mut rest) = field.split_at_checked(2 + HEX)? else {
        return None;
    };
    if usize::from(*length) != HEX {
        return None;
    }
    let size = match rest.split_first() {
        None => 0,
        Some((&SIZE, value)) => {
            rest = value;
            i64::try_from(take_varint(&mut rest)?).ok()? as u64
        }
        Some(_) => return None,
    };
    if !rest.is_empty() {
        return None;
    }
    Digest::of_any_size(hash, size, DigestFunction::Sha256).ok()
}

fn take_field<'a>(data: &mut &'a [u8]) -> Option<&'a [u8]> {
    let length = usize::try_from(take_varint(data)?).ok()?;
    let (field, rest) = data.split_at_checked(length)?;
    *data = rest;
    Some(field)
}

/// A `FindMissingBlobsResponse` that names `missing`.
pub fn encode_missing(missing: &[Digest]) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(missing.len() * 78);
    for digest in missing {
        let start = buffer.len();
        buffer.extend_from_slice(&[MISSING_DIGEST, 0, HASH, HEX as u8]);
        push_hex(&mut buffer, &digest.hash);
        if digest.size != 0 {
            buffer.push(SIZE);
            put_varint(&mut buffer, digest.size);
        }
        // At most 2 + 64 + 11 bytes: the length is a varint of one byte.
        buffer[start + 1] = (buffer.len() - start - 2) as u8;
    }
    buffer
}

fn push_hex(buffer: &mut Vec<u8>, hash: &[u8; 32]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; HEX];
    for (pair, byte) in text.chunks_exact_mut(2).zip(hash) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    buffer.extend_from_slice(&text);
}

#[cfg(test)]
mod tests {
    use kiln_protos::reapi;
    use proptest::prelude::*;
    use prost::Message;

    use super::*;

    fn digests(function: DigestFunction) -> impl Strategy<Value = Vec<Digest>> {
        let digest = (any::<[u8; 32]>(), 1..=i64::MAX as u64, any::<bool>()).prop_map(
            move |(hash, size, empty)| match empty {
                true => function.digest(b""),
                false => Digest { hash, size, function },
            },
        );
        proptest::collection::vec(digest, 0..20)
    }

    fn any_digests() -> impl Strategy<Value = (DigestFunction, Vec<Digest>)> {
        any::<bool>().prop_flat_map(|blake3| {
            let function = if blake3 { DigestFunction::Blake3 } else { DigestFunction::Sha256 };
            digests(function).prop_map(move |digests| (function, digests))
        })
    }

    fn request(digests: &[Digest], function: i32) -> Bytes {
        let request = reapi::FindMissingBlobsRequest {
            instance_name: "some/instance".into(),
            blob_digests: digests.iter().map(Digest::to_wire).collect(),
            digest_function: function,
        };
        request.encode_to_vec().into()
    }

    #[test]
    fn errors_name_the_field() {
        let good = DigestFunction::Sha256.digest(b"x");
        let unknown = decode_find_missing(&request(&[good], 2)).unwrap_err().to_string();
        assert_eq!(
            unknown,
            "digest_function: digest function SHA1 is not supported; SHA256 and BLAKE3 are"
        );
        let mut bad = reapi::FindMissingBlobsRequest::default();
        bad.blob_digests.push(good.to_wire());
        bad.blob_digests.push(reapi::Digest { hash: "zz".into(), size_bytes: 1 });
        let error = decode_find_missing(&bad.encode_to_vec().into()).unwrap_err().to_string();
        assert_eq!(error, "blob_digests[1]: hash \"zz\" is not 64 lowercase hexadecimal digits");
        for function in DigestFunction::ALL {
            let impossible = Digest { size: 5, ..function.digest(b"") };
            let error = decode_find_missing(&request(&[impossible], function.to_wire().into()));
            assert!(error.unwrap_err().to_string().contains("no content has the hash"));
        }
    }

    proptest! {
        #[test]
        fn requests_decode_as_the_generated_message_does((function, digests) in any_digests()) {
            let wire = request(&digests, function.to_wire().into());
            prop_assert!(decode_usual(&wire).is_some(), "the fast path takes usual input");
            prop_assert_eq!(decode_find_missing(&wire).map(|asked| asked.digests), Ok(digests));
        }

        #[test]
        fn responses_encode_as_the_generated_message_does(digests in digests(DigestFunction::Sha256)) {
            let response = reapi::FindMissingBlobsResponse {
                missing_blob_digests: digests.iter().map(Digest::to_wire).collect(),
            };
            prop_assert_eq!(encode_missing(&digests), response.encode_to_vec());
        }

        #[test]
        fn damaged_input_never_panics_and_agrees_with_prost(
            digests in digests(DigestFunction::Sha256), at: usize, value: u8, cut: usize,
        ) {
            let mut wire = request(&digests, 1).to_vec();
            let length = wire.len();
            wire[at % length] = value;
            wire.truncate(cut % (length + 1));
            let wire = Bytes::from(wire);
            let usual = decode_usual(&wire);
            if let Some((instance, usual)) = usual {
                let theirs = reapi::FindMissingBlobsRequest::decode(wire.clone()).unwrap();
                let function = DigestFunction::from_wire(theirs.digest_function).unwrap();
                let name = theirs.instance_name.clone();
                let theirs: Vec<_> = theirs
                    .blob_digests
                    .iter()
                    .map(|digest| Digest::from_wire(digest, function).unwrap())
                    .collect();
                prop_assert_eq!(usual, theirs);
                prop_assert_eq!(instance, name.as_bytes());
            }
            let _ = decode_find_missing(&wire);
        }

        #[test]
        fn arbitrary_bytes_never_panic(data: Vec<u8>) {
            let _ = decode_find_missing(&data.into());
        }
    }
}
