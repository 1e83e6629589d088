//! The one encoding of what goes into the script and comes out: fields with their lengths.

use bytes::Bytes;

/// `N;` and, for each of the N fields, its length, `:` and its bytes.
pub fn encode<'a>(fields: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
    let fields: Vec<&[u8]> = fields.into_iter().collect();
    let mut out = format!("{};", fields.len()).into_bytes();
    for field in fields {
        out.extend_from_slice(format!("{}:", field.len()).as_bytes());
        out.extend_from_slice(field);
    }
    out
}

/// What a script or a channel said cannot be understood: it is of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the queue's script said what this version does not understand: {0}")]
pub struct Garbled(pub String);

/// Takes one group of fields from the front of `input`.
pub fn decode(input: &mut Bytes) -> Result<Vec<Bytes>, Garbled> {
    let count = number_until(input, b';')?;
    (0..count)
        .map(|_| {
            let length = number_until(input, b':')?;
            if length > input.len() {
                return Err(Garbled(format!("a field of {length} bytes is cut off")));
            }
            Ok(input.split_to(length))
        })
        .collect()
}

fn number_until(input: &mut Bytes, end: u8) -> Result<usize, Garbled> {
    let at = input.iter().take(20).position(|byte| *byte == end);
    let at = at.ok_or_else(|| Garbled("a length is missing".to_owned()))?;
    let digits = input.split_to(at + 1);
    parse(&digits[..at])
}

pub fn parse<T: std::str::FromStr>(field: &[u8]) -> Result<T, Garbled> {
    let text = std::str::from_utf8(field).ok().and_then(|text| text.parse().ok());
    text.ok_or_else(|| Garbled(format!("{:?} is not a number", String::from_utf8_lossy(field))))
}

pub fn text(field: &[u8]) -> String {
    String::from_utf8_lossy(field).into_owned()
}

/// How the script writes ids.
pub fn id(number: u64) -> String {
    format!("{number:016}")
}

pub fn pairs(pairs: &[(String, String)]) -> Vec<u8> {
    encode(pairs.iter().flat_map(|(name, value)| [name.as_bytes(), value.as_bytes()]))
}

pub fn parse_pairs(encoded: &Bytes) -> Result<Vec<(String, String)>, Garbled> {
    let fields = decode(&mut encoded.clone())?;
    Ok(fields.chunks_exact(2).map(|pair| (text(&pair[0]), text(&pair[1]))).collect())
}
