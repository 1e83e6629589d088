//! Digests as people paste them.

use std::str::FromStr;

use kiln_cas::{Digest, DigestFunction};

/// `HASH/SIZE`, `HASH:SIZE`, `blake3/HASH/SIZE`, or an address that ends so.
#[derive(Debug, Clone, Copy)]
pub struct DigestArgument(pub Digest);

pub const FORMS: &str = "write it as HASH/SIZE, with blake3/ in front where it applies";

impl FromStr for DigestArgument {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = text.split_once('?').map_or(text, |(address, _)| address);
        let mut parts = address.trim_end_matches('/').rsplit(['/', ':']);
        let (Some(size), Some(hash)) = (parts.next(), parts.next()) else {
            return Err(format!("the size is missing: {FORMS}"));
        };
        let function = match parts.next() {
            Some("blake3") => DigestFunction::Blake3,
            _ => DigestFunction::Sha256,
        };
        let size = size.parse().map_err(|_| format!("{size:?} is not a size in bytes: {FORMS}"))?;
        Digest::from_hex(hash.as_bytes(), size, function)
            .map(Self)
            .map_err(|_| format!("{hash:?} is not 64 lowercase hexadecimal digits: {FORMS}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_are_taken_from_wherever_they_stand() {
        let hash = "ab".repeat(32);
        for (text, function) in [
            (format!("{hash}/142"), DigestFunction::Sha256),
            (format!("{hash}:142"), DigestFunction::Sha256),
            (format!("sha256/{hash}/142"), DigestFunction::Sha256),
            (format!("blake3/{hash}/142"), DigestFunction::Blake3),
            (format!("a/b/blobs/blake3/{hash}/142"), DigestFunction::Blake3),
            (format!("http://h:1/actions/sha256/{hash}/142?operation=a/b"), DigestFunction::Sha256),
        ] {
            let DigestArgument(digest) = text.parse().expect(&text);
            assert_eq!((digest.hex(), digest.size, digest.function), (hash.clone(), 142, function));
        }
        for bad in ["", "abc", "abc/1", &hash, &format!("{hash}/x"), &format!("{hash}/-1")] {
            assert!(bad.parse::<DigestArgument>().is_err(), "{bad}");
        }
    }
}
