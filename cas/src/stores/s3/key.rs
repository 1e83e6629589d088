//! Keys of objects.

use crate::digest::{Digest, DigestFunction};
use crate::stores::indexed::Generation;

/// What all keys of blobs begin with.
pub fn root(prefix: &str) -> String {
    let slash = if prefix.is_empty() { "" } else { "/" };
    format!("{prefix}{slash}blobs/")
}

/// What the keys of all generations of one blob begin with. `root` is [`root`]'s.
pub fn blob_root(root: &str, digest: &Digest) -> String {
    let hex = digest.hex();
    format!("{root}{}/{}/{hex}-{}-", digest.function, &hex[..2], digest.size)
}

pub fn key(root: &str, digest: &Digest, generation: Generation) -> String {
    format!("{}{:016x}", blob_root(root, digest), generation.0)
}

/// The reverse of [`key`]; `None` for keys that it does not make.
pub fn parse(root: &str, text: &str) -> Option<(Digest, Generation)> {
    let mut parts = text.strip_prefix(root)?.split('/');
    let (function, _, name) = (parts.next()?, parts.next()?, parts.next()?);
    let function = DigestFunction::ALL.into_iter().find(|known| known.to_string() == function)?;
    let mut fields = name.split('-');
    let (hex, size, generation) = (fields.next()?, fields.next()?, fields.next()?);
    let digest = Digest::from_hex(hex.as_bytes(), size.parse().ok()?, function).ok()?;
    let generation = Generation(u64::from_str_radix(generation, 16).ok()?);
    // What is written in another way, e.g. with a plus sign, is not ours.
    (key(root, &digest, generation) == text).then_some((digest, generation))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_back() {
        for prefix in ["", "kiln", "kiln/main"] {
            let root = root(prefix);
            for function in DigestFunction::ALL {
                let digest = function.digest(b"kiln");
                for generation in [Generation(0), Generation(0xab), Generation(u64::MAX)] {
                    let key = key(&root, &digest, generation);
                    assert!(key.starts_with(prefix) && !key.starts_with('/'), "{key}");
                    assert_eq!(parse(&root, &key), Some((digest, generation)));
                    assert!(key.starts_with(&blob_root(&root, &digest)));
                }
            }
        }
    }

    #[test]
    fn other_keys_are_not_taken_for_blobs() {
        let root = root("kiln");
        let digest = DigestFunction::Sha256.digest(b"kiln");
        let good = key(&root, &digest, Generation(7));
        for bad in [
            "kiln/clock".to_owned(),
            good.replace("sha256", "md5"),
            good.replace("-4-", "-+4-"),
            good.replace("-4-", "-04-"),
            good.to_uppercase(),
            format!("{good}/x"),
            format!("{good}-1"),
            good.replace("/blobs/", "/blob/"),
        ] {
            assert_eq!(parse(&root, &bad), None, "{bad}");
        }
    }
}
