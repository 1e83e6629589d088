//! gRPC framing and messages for the paths that every build takes thousands of times.
//!
//! The generated services copy every byte of a blob once more into a `Vec<u8>` and allocate a
//! `String` for each digest. Here messages are slices of what arrived from the network, and
//! blobs leave as the `Bytes` that the store returned.

mod assemble;
mod body;
mod digests;
mod messages;

pub use assemble::{Assembler, FrameError};
pub use body::{Encoded, Messages, Reply, RequestBody, StreamReply};
pub use digests::{FindMissing, decode_find_missing, encode_missing};
pub use messages::*;

/// gRPC's prefix of each message: a compression flag and a length of four bytes.
pub const PREFIX: usize = 5;

/// Appends a protobuf varint.
pub(crate) fn put_varint(buffer: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        buffer.push(value as u8 | 0x80);
        value >>= 7;
    }
    buffer.push(value as u8);
}

/// Reads a protobuf varint from the front of `data`. `None`: truncated or over 64 bits.
pub(crate) fn take_varint(data: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = data.split_first()?;
        *data = rest;
        if shift == 63 && byte > 1 {
            return None;
        }
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn varints_round_trip_and_agree_with_prost(value: u64) {
            let mut ours = Vec::new();
            put_varint(&mut ours, value);
            let mut theirs = Vec::new();
            prost::encoding::encode_varint(value, &mut theirs);
            prop_assert_eq!(&ours, &theirs);
            prop_assert_eq!(take_varint(&mut ours.as_slice()), Some(value));
        }

        #[test]
        fn a_decoded_varint_is_what_prost_decodes(data: [u8; 11]) {
            if let Some(value) = take_varint(&mut data.as_slice()) {
                let theirs = prost::encoding::decode_varint(&mut data.as_slice());
                prop_assert_eq!(theirs.ok(), Some(value));
            }
        }
    }
}
