//! Base64 as the formats write it, and hexadecimal digits.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Bytes in base64: the standard alphabet, padded.
pub(crate) fn base64(data: &[u8]) -> String {
    STANDARD.encode(data)
}

/// DSSE lets a writer choose between both alphabets; padding must be there and exact.
pub(crate) fn from_base64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).or_else(|_| URL_SAFE.decode(text)).ok()
}

/// Lowercase hexadecimal digits, two for each byte.
pub(crate) fn hex(data: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    let digit = |value: u8| DIGITS.get(usize::from(value & 15)).copied().unwrap_or('0');
    data.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

/// The bytes of lowercase hexadecimal digits.
pub(crate) fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !is_hex(text, digits.len()) || !digits.len().is_multiple_of(2) {
        return None;
    }
    let value = |digit: u8| if digit < b'a' { digit - b'0' } else { digit - b'a' + 10 };
    digits.chunks_exact(2).map(|it| Some(value(*it.first()?) << 4 | value(*it.get(1)?))).collect()
}

/// Whether a text is `digits` lowercase hexadecimal digits.
pub(crate) fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'))
}

/// Bytes that stand in a document as base64.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Base64(pub Vec<u8>);

impl Serialize for Base64 {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&base64(&self.0))
    }
}

impl<'de> Deserialize<'de> for Base64 {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let bytes = from_base64(&text).map(Self);
        bytes.ok_or_else(|| serde::de::Error::custom("not base64 with its padding"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_alphabets_are_read_and_padding_is_exact() {
        assert_eq!(from_base64("+/8="), Some(vec![0xfb, 0xff]));
        assert_eq!(from_base64("-_8="), Some(vec![0xfb, 0xff]));
        for wrong in ["+/8", "+/9=", "+_8=", "+/8=\n", " +/8="] {
            assert_eq!(from_base64(wrong), None, "{wrong:?}");
        }
    }

    #[test]
    fn hexadecimal_digits_are_lowercase() {
        assert_eq!(hex(&[0, 0x9a, 0xff]), "009aff");
        assert_eq!(from_hex("009aff"), Some(vec![0, 0x9a, 0xff]));
        assert_eq!((from_hex("00f"), from_hex("0G")), (None, None));
        assert!(is_hex("009aff", 6));
        assert!(!is_hex("009aFF", 6) && !is_hex("009af", 6) && !is_hex("00xaff", 6));
    }
}
