//! Names that are numbers in disguise (hashes, UUIDs) as the bytes that they stand for.

use super::columns::{In, Out};
use crate::attempts::BlobName;
use crate::storage::Damage;

const NONE: u8 = 0;
const TEXT: u8 = 1;
const HEX: u8 = 2;
const UUID: u8 = 3;

/// Indexes of the dashes in the text of a UUID.
const DASHES: [usize; 4] = [8, 13, 18, 23];

pub fn put(out: &mut Out, name: Option<&str>) {
    let Some(name) = name else { return out.0.push(NONE) };
    if let Some(bytes) = uuid(name) {
        out.0.push(UUID);
        out.0.extend(bytes);
    } else if let Some(bytes) = hex(name).filter(|it| (8..=64).contains(&it.len())) {
        out.0.extend([HEX, bytes.len() as u8]);
        out.0.extend(bytes);
    } else {
        out.0.push(TEXT);
        out.text(name);
    }
}

pub fn get(read: &mut In<'_>) -> Result<Option<String>, Damage> {
    let [tag] = read.array()?;
    match tag {
        NONE => Ok(None),
        TEXT => read.text().map(Some),
        HEX => {
            let [length] = read.array()?;
            Ok(Some(text(read.bytes(length.into())?)))
        }
        UUID => {
            let mut uuid = text(&read.array::<16>()?);
            DASHES.iter().for_each(|at| uuid.insert(*at, '-'));
            Ok(Some(uuid))
        }
        _ => Err(Damage::Form("name")),
    }
}

pub fn put_blob(out: &mut Out, blob: &BlobName) {
    put(out, Some(&blob.hash));
    out.number(blob.size);
}

pub fn get_blob(read: &mut In<'_>) -> Result<BlobName, Damage> {
    let hash = get(read)?.ok_or(Damage::Form("blob"))?;
    Ok(BlobName { hash, size: read.number()? })
}

/// Passes over a blob's name.
pub fn skip_blob(read: &mut In<'_>) -> Result<(), Damage> {
    match read.array()? {
        [NONE] => return Err(Damage::Form("blob")),
        [TEXT] => read.skip_text()?,
        [HEX] => {
            let [length] = read.array()?;
            read.bytes(length.into())?;
        }
        [UUID] => read.array::<16>().map(|_| ())?,
        _ => return Err(Damage::Form("name")),
    }
    read.number().map(|_| ())
}

fn uuid(name: &str) -> Option<Vec<u8>> {
    let bytes = name.as_bytes();
    let has_dashes = bytes.len() == 36 && DASHES.iter().all(|at| bytes[*at] == b'-');
    let digits = if has_dashes { name.replace('-', "") } else { return None };
    hex(&digits).filter(|it| it.len() == 16)
}

/// Bytes that a text in hexadecimal stands for; `None` unless its digits are lower-case, so that the text comes out as
/// it was.
fn hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

fn text(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn round(name: Option<&str>) -> (Option<String>, usize) {
        let mut out = Out::default();
        put(&mut out, name);
        let mut read = In(&out.0);
        let back = get(&mut read).unwrap();
        assert!(read.end().is_ok());
        (back, out.0.len())
    }

    #[test]
    fn names_come_out_as_they_were_and_are_short() {
        let uuid = "0b66d8a4-30ee-4ba5-9f41-7b1bd3be3a87";
        for (name, bytes) in [
            (Some(uuid), 17),
            (Some(&*"ab".repeat(32)), 34),
            (Some("c0ffee"), 8),
            (Some(&*"AB".repeat(32)), 66),
            (Some(&uuid.to_uppercase()), 38),
            (Some(""), 2),
            (None, 1),
        ] {
            assert_eq!(round(name), (name.map(str::to_owned), bytes), "{name:?}");
        }
    }

    proptest! {
        #[test]
        fn any_name_comes_out_as_it_was(name in "[0-9a-fA-F-]{0,70}|.{0,40}") {
            prop_assert_eq!(round(Some(&name)).0, Some(name));
        }
    }
}
