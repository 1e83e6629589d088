//! Compressed bytes with what is needed to trust them: a kind, a version, their length and a checksum.

use std::io;

use thiserror::Error;

/// Kind, version, length and checksum of what is within, four bytes each.
const HEADER: usize = 16;

/// Higher ones take several times as long and save a few percent.
const LEVEL: i32 = 9;
/// The level for what is not kept for long: a fifth of the time for some ten percent more.
const QUICK: i32 = 1;

/// Why bytes are not what they should be.
#[derive(Debug, Error)]
pub enum Damage {
    #[error("it is cut short")]
    Short,
    #[error("it is of another kind")]
    Kind,
    #[error("it has version {0}, which is not known here")]
    Version(u32),
    #[error("it says that it has {0} bytes, which is too much")]
    Length(u64),
    #[error("its checksum is wrong")]
    Checksum,
    #[error("it cannot be decompressed")]
    Compression(#[source] io::Error),
    #[error("its {0} is not well-formed")]
    Form(&'static str),
}

/// Compresses bytes and puts a header before them.
pub fn seal(kind: [u8; 4], version: u32, raw: &[u8]) -> Result<Vec<u8>, Damage> {
    seal_at(LEVEL, kind, version, raw)
}

/// Does what [`seal`] does in a fraction of the time, for what is removed or written anew soon.
pub fn seal_quickly(kind: [u8; 4], version: u32, raw: &[u8]) -> Result<Vec<u8>, Damage> {
    seal_at(QUICK, kind, version, raw)
}

fn seal_at(level: i32, kind: [u8; 4], version: u32, raw: &[u8]) -> Result<Vec<u8>, Damage> {
    let length = u32::try_from(raw.len()).map_err(|_| Damage::Length(raw.len() as u64))?;
    let mut out = Vec::with_capacity(HEADER + raw.len() / 3);
    out.extend(kind);
    out.extend(version.to_le_bytes());
    out.extend(length.to_le_bytes());
    out.extend(crc32fast::hash(raw).to_le_bytes());
    out.extend(zstd::bulk::compress(raw, level).map_err(Damage::Compression)?);
    Ok(out)
}

/// What was sealed, at most so many bytes of it: nothing is set aside for more.
pub fn open(kind: [u8; 4], version: u32, sealed: &[u8], most: usize) -> Result<Vec<u8>, Damage> {
    open_one_of(kind, &[version], sealed, most).map(|(_, raw)| raw)
}

/// Does what [`open`] does for what may have one of several versions, and says which one it has.
pub fn open_one_of(
    kind: [u8; 4],
    versions: &[u32],
    sealed: &[u8],
    most: usize,
) -> Result<(u32, Vec<u8>), Damage> {
    let (header, compressed) = sealed.split_at_checked(HEADER).ok_or(Damage::Short)?;
    let word = |at: usize| {
        let mut word = [0; 4];
        word.copy_from_slice(&header[at..at + 4]);
        u32::from_le_bytes(word)
    };
    if header[..4] != kind {
        return Err(Damage::Kind);
    }
    let version = word(4);
    if !versions.contains(&version) {
        return Err(Damage::Version(version));
    }
    let length = word(8) as usize;
    if length > most {
        return Err(Damage::Length(length as u64));
    }
    let raw = zstd::bulk::decompress(compressed, length).map_err(Damage::Compression)?;
    if raw.len() != length || crc32fast::hash(&raw) != word(12) {
        return Err(Damage::Checksum);
    }
    Ok((version, raw))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KIND: [u8; 4] = *b"TEST";

    #[test]
    fn limits_and_kinds_are_checked() {
        let sealed = seal(KIND, 3, &[7; 1000]).unwrap();
        assert!(sealed.len() < 100);
        assert_eq!(open(KIND, 3, &sealed, 1000).unwrap(), [7; 1000]);
        assert!(matches!(open(KIND, 3, &sealed, 999), Err(Damage::Length(1000))));
        assert!(matches!(open(KIND, 4, &sealed, 1000), Err(Damage::Version(3))));
        assert_eq!(open_one_of(KIND, &[2, 3], &sealed, 1000).unwrap(), (3, vec![7; 1000]));
        assert!(matches!(open(*b"ELSE", 3, &sealed, 1000), Err(Damage::Kind)));
        assert!(matches!(open(KIND, 3, &sealed[..15], 1000), Err(Damage::Short)));
    }

    proptest! {
        #[test]
        fn whatever_is_damaged_is_refused(raw in proptest::collection::vec(any::<u8>(), 0..300), at: prop::sample::Index, bit in 0_u8..8) {
            let quick = seal_quickly(KIND, 1, &raw).unwrap();
            prop_assert_eq!(&open(KIND, 1, &quick, 1000).unwrap(), &raw);
            let sealed = seal(KIND, 1, &raw).unwrap();
            prop_assert_eq!(&open(KIND, 1, &sealed, 1000).unwrap(), &raw);
            let mut damaged = sealed.clone();
            let at = at.index(damaged.len());
            damaged[at] ^= 1 << bit;
            // Bits that mean nothing to the decompressor may change; contents may not.
            if let Ok(read) = open(KIND, 1, &damaged, 1000) {
                prop_assert_eq!(read, raw);
            }
        }
    }
}
