//! Digests, actions and builds as people paste them.

use std::str::FromStr;

use kiln_cas::{Digest, DigestFunction};
use kiln_net::urls;

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
            .map_err(|error| format!("{error}: {FORMS}"))
    }
}

/// An action as people paste it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActionName {
    /// A digest, or the address of a page, with the run and the instance that the address names.
    Exact { action: Digest, operation: String, instance: Option<String> },
    /// A label, the name of an operation or the beginning of a hash: the server knows it.
    Known(String),
}

impl FromStr for ActionName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err(format!("nothing is named: {FORMS}, or by a label or an operation"));
        }
        let is_address = text.contains("://");
        if let Ok(DigestArgument(action)) = text.parse() {
            let (operation, instance) = match text.split_once('?') {
                Some((_, query)) if is_address => {
                    (argument(query, "operation"), argument(query, "instance"))
                }
                _ => (None, None),
            };
            let operation = operation.unwrap_or_default();
            return Ok(Self::Exact { action, operation, instance });
        }
        if is_address {
            return Err(format!("{text:?} is not the address of an action's page"));
        }
        let is_label = text.contains("//");
        let digits = text.trim_end_matches('…').trim_end_matches("...");
        let is_beginning = digits.len() >= 4 && digits.bytes().all(|b| b.is_ascii_hexdigit());
        if is_label {
            return Ok(Self::Known(label(text)));
        }
        match (is_beginning, text.contains("operations/")) {
            (true, _) => Ok(Self::Known(digits.to_owned())),
            (_, true) => Ok(Self::Known(text.to_owned())),
            // What is wrong with it as a digest is the most that can be said.
            _ => Err(text.parse::<DigestArgument>().err().unwrap_or_default()),
        }
    }
}

/// A label with the target's name, `//a/b:b` for `//a/b`; anything else as it is.
pub fn label(text: &str) -> String {
    let Some((_, package)) = text.rsplit_once("//") else { return text.to_owned() };
    match package.rsplit('/').next() {
        Some(name) if !package.contains(':') && !name.is_empty() => format!("{text}:{name}"),
        _ => text.to_owned(),
    }
}

/// Returns the value of a parameter of an address's query, decoded; `None`: it has none of this
/// name.
fn argument(query: &str, name: &str) -> Option<String> {
    let query = query.split_once('#').map_or(query, |(query, _)| query);
    let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
    pairs.find(|(key, _)| *key == name).map(|(_, value)| decode(value))
}

/// Decodes the percent signs of an address; text that is not encoded well was pasted as it is, and
/// stays so.
fn decode(text: &str) -> String {
    urls::decoded(text).unwrap_or_else(|| text.to_owned())
}

/// The invocation id in what people paste: the id, its beginning, or the address of its page.
pub fn invocation(text: &str) -> String {
    let Some((_, path)) = text.split_once("/builds/").filter(|_| text.contains("://")) else {
        return text.trim_end_matches('…').to_owned();
    };
    let path = path.split(['?', '#']).next().unwrap_or_default();
    decode(path)
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

    #[test]
    fn actions_are_named_as_pages_and_build_tools_print_them() {
        let hash = "ab".repeat(32);
        let page = format!(
            "http://h:1/actions/sha256/{hash}/142?instance=a%2Fb&operation=a/b/operations/07-1"
        );
        let ActionName::Exact { action, operation, instance } = page.parse().expect("a page")
        else {
            panic!("{page}");
        };
        assert_eq!((action.hex(), action.size), (hash.clone(), 142));
        assert_eq!((&*operation, instance.as_deref()), ("a/b/operations/07-1", Some("a/b")));
        for (text, known) in [
            ("//a/b:c", "//a/b:c"),
            ("//a/b", "//a/b:b"),
            ("@@x//:y", "@@x//:y"),
            ("abcdef012345", "abcdef012345"),
            ("abcdef012345…", "abcdef012345"),
            ("operations/00ff-1", "operations/00ff-1"),
        ] {
            assert_eq!(text.parse(), Ok(ActionName::Known(known.to_owned())), "{text}");
        }
        for bad in ["", "abc", "http://h:1/builds/x", "xyz/1", &format!("{hash}/x")] {
            assert!(bad.parse::<ActionName>().is_err(), "{bad}");
        }
        for (text, id) in [
            ("http://h:1/builds/5f3c%20x?hold=1", "5f3c x"),
            ("http://h:1/builds/5f%ffx", "5f%ffx"),
            ("5f3c1e1a", "5f3c1e1a"),
            ("5f3c1e1a…", "5f3c1e1a"),
        ] {
            assert_eq!(invocation(text), id);
        }
    }
}
