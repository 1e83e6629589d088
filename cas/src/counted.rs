//! Messages whose entries are counted before they are decoded: two bytes on the wire may become
//! a struct of two hundred.

use bytes::Buf;
use kiln_protos::reapi;
use prost::Message;
use prost::encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field};

/// Memory that one entry of a decoded message takes at most, in bytes, besides what it holds.
pub const ENTRY_BYTES: u64 = 256;

/// The fields of a message that hold entries, or messages with entries.
#[derive(Debug)]
pub struct Shape(pub &'static [Field]);

/// One length-delimited field.
#[derive(Debug)]
pub struct Field {
    pub tag: u32,
    /// Whether each occurrence is an entry of its own; others are part of the message.
    pub repeated: bool,
    pub of: &'static Shape,
}

pub(crate) const fn many(tag: u32, of: &'static Shape) -> Field {
    Field { tag, repeated: true, of }
}

const fn one(tag: u32, of: &'static Shape) -> Field {
    Field { tag, repeated: false, of }
}

/// The shape of a message without entries.
pub const LEAF: Shape = Shape(&[]);
/// A list of digests or strings in field 2.
pub(crate) const LIST_IN_2: Shape = Shape(&[many(2, &LEAF)]);

const PROPERTIES: Shape = Shape(&[many(1, &LEAF)]);
const FILE: Shape = Shape(&[one(6, &PROPERTIES)]);
const LINK: Shape = Shape(&[one(4, &PROPERTIES)]);
const DIRECTORY: Shape =
    Shape(&[many(1, &FILE), many(2, &LEAF), many(3, &LINK), one(5, &PROPERTIES)]);
const OUTPUT_FILE: Shape = Shape(&[one(7, &PROPERTIES)]);
const EXECUTED: Shape = Shape(&[many(11, &LEAF)]);
const RESULT: Shape = Shape(&[
    many(2, &OUTPUT_FILE),
    many(3, &LEAF),
    one(9, &EXECUTED),
    many(10, &LINK),
    many(11, &LINK),
    many(12, &LINK),
]);
const COMMAND: Shape = Shape(&[
    many(1, &LEAF),
    many(2, &LEAF),
    many(3, &LEAF),
    many(4, &LEAF),
    one(5, &PROPERTIES),
    many(7, &LEAF),
    many(8, &LEAF),
]);

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CountError {
    #[error("it has more than {limit} entries; split it")]
    TooMany { limit: usize },
    #[error("it ends in the middle of a field")]
    Truncated,
    #[error("it is not a valid message: {0}")]
    Malformed(#[from] prost::DecodeError),
}

/// A message that is decoded only where it has few enough entries.
pub trait Counted: Message + Default {
    const SHAPE: Shape;
    /// Most entries.
    const LIMIT: usize;
}

macro_rules! counted {
    ($($message:ty: $shape:expr, $limit:expr;)*) => {
        $(impl Counted for $message {
            const SHAPE: Shape = $shape;
            const LIMIT: usize = $limit;
        })*
    };
}
pub(crate) use counted;

/// Most entries of one `Directory` or `ActionResult`.
pub const MAX_ENTRIES: usize = 250_000;
/// Most arguments, variables, outputs and properties of one `Command`.
pub const MAX_ARGUMENTS: usize = 1 << 20;

counted! {
    reapi::Action: Shape(&[one(10, &PROPERTIES)]), MAX_ENTRIES;
    reapi::Command: COMMAND, MAX_ARGUMENTS;
    reapi::Directory: DIRECTORY, MAX_ENTRIES;
    reapi::ActionResult: RESULT, MAX_ENTRIES;
    reapi::UpdateActionResultRequest: Shape(&[one(3, &RESULT)]), MAX_ENTRIES;
}

/// Entries of the message `data`. Errors: there are more than [`Counted::LIMIT`]; it is malformed.
pub fn count<M: Counted>(data: &[u8]) -> Result<usize, CountError> {
    let mut entries = 0;
    // What has no entries needs no look.
    if !M::SHAPE.0.is_empty() {
        add(data, &M::SHAPE, M::LIMIT, &mut entries)?;
    }
    Ok(entries)
}

/// Counts, then decodes.
pub fn decode<M: Counted>(data: impl Buf + AsRef<[u8]>) -> Result<M, CountError> {
    count::<M>(data.as_ref())?;
    Ok(M::decode(data)?)
}

fn add(
    mut data: &[u8],
    shape: &Shape,
    limit: usize,
    entries: &mut usize,
) -> Result<(), CountError> {
    while data.has_remaining() {
        let (tag, wire) = decode_key(&mut data)?;
        let field = shape.0.iter().find(|field| field.tag == tag);
        let Some(field) = field.filter(|_| wire == WireType::LengthDelimited) else {
            skip_field(wire, tag, &mut data, DecodeContext::default())?;
            continue;
        };
        *entries += usize::from(field.repeated);
        if *entries > limit {
            return Err(CountError::TooMany { limit });
        }
        let value = take(&mut data)?;
        if !field.of.0.is_empty() {
            add(value, field.of, limit, entries)?;
        }
    }
    Ok(())
}

/// The length-delimited value at the front of `data`.
pub(crate) fn take<'a>(data: &mut &'a [u8]) -> Result<&'a [u8], CountError> {
    let length = usize::try_from(decode_varint(data)?).unwrap_or(usize::MAX);
    let (value, rest) = data.split_at_checked(length).ok_or(CountError::Truncated)?;
    *data = rest;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use kiln_protos::reapi::{ActionResult, Directory, FileNode, NodeProperties, NodeProperty};
    use proptest::prelude::*;

    use super::*;

    /// `count` empty messages in field `tag`: two bytes each.
    fn empty(tag: u8, count: usize) -> Vec<u8> {
        [tag << 3 | 2, 0].repeat(count)
    }

    #[test]
    fn what_is_small_on_the_wire_and_large_in_memory_is_refused_before_it_is_decoded() {
        let error = decode::<Directory>(Bytes::from(empty(1, MAX_ENTRIES + 1))).unwrap_err();
        assert_eq!(error, CountError::TooMany { limit: MAX_ENTRIES });
        assert!(decode::<Directory>(Bytes::from(empty(1, 1000))).is_ok());
        let error = decode::<ActionResult>(Bytes::from(empty(12, MAX_ENTRIES + 1))).unwrap_err();
        assert_eq!(error, CountError::TooMany { limit: MAX_ENTRIES });
        let nested = FileNode {
            node_properties: Some(NodeProperties {
                properties: vec![NodeProperty::default(); MAX_ENTRIES],
                ..Default::default()
            }),
            ..Default::default()
        };
        let directory = Directory { files: vec![nested], ..Default::default() };
        let error = decode::<Directory>(Bytes::from(directory.encode_to_vec())).unwrap_err();
        assert_eq!(error, CountError::TooMany { limit: MAX_ENTRIES });
    }

    proptest! {
        #[test]
        fn what_prost_takes_is_taken(data: Vec<u8>) {
            let ours = decode::<Directory>(data.as_slice()).ok();
            prop_assert_eq!(ours, Directory::decode(data.as_slice()).ok());
        }
    }
}
