//! Keys of the journal's records.
//!
//! | key | value |
//! | --- | --- |
//! | `journal/meta` | [`Meta`](super::store::Meta): counts and the last sequence number |
//! | `journal/x/{seq}` | the encoded `kiln.events.v1.Execution` |
//! | `journal/id/{id}` | `{seq}` |
//! | `journal/action/{action}/{seq}` | empty |
//! | `journal/target/{target}/{mnemonic}/{seq}` | empty |
//! | `journal/invocation/{invocation}/{seq}` | empty |
//! | `journal/build/{invocation}` | [`BuildSummary`](super::BuildSummary) |
//! | `journal/builds/{first seq}/{invocation}` | empty |
//! | `journal/duration/{target}/{mnemonic}` | what was learned of their run time |
//!
//! `{seq}` is the place in the journal as 16 hexadecimal digits, so that the order of keys is
//! the order of time. Strings from outside are escaped, and hashed where they are long.

use std::fmt::Write as _;

use kiln_cas::{Digest, DigestFunction};

pub const META: &str = "journal/meta";
pub const EXECUTIONS: &str = "journal/x/";
pub const BUILDS: &str = "journal/builds/";
pub const DURATIONS: &str = "journal/duration/";

/// Longest part of a key in bytes; longer ones are replaced by their hash.
const MAX_PART: usize = 300;

pub fn execution(seq: u64) -> String {
    format!("{EXECUTIONS}{seq:016x}")
}

pub fn id(id: &str) -> String {
    format!("journal/id/{}", part(id))
}

pub fn actions(action: &Digest) -> String {
    format!("journal/action/{action}/")
}

/// Prefixes of the keys of all actions whose hash begins with `beginning`.
pub fn actions_like(beginning: &str) -> [String; 2] {
    ["", "blake3/"].map(|function| format!("journal/action/{function}{beginning}"))
}

/// The action in a key of [`actions`], as text.
pub fn action_in(key: &str) -> Option<&str> {
    Some(key.strip_prefix("journal/action/")?.rsplit_once('/')?.0)
}

/// Parses the text that [`action_in`] found. `None`: it is no digest.
pub fn parse_action(text: &str) -> Option<Digest> {
    let (function, rest) = match text.strip_prefix("blake3/") {
        Some(rest) => (DigestFunction::Blake3, rest),
        None => (DigestFunction::Sha256, text),
    };
    let (hash, size) = rest.split_once('/')?;
    Digest::from_hex(hash.as_bytes(), size.parse().ok()?, function).ok()
}

pub fn targets(target: &str, mnemonic: Option<&str>) -> String {
    match mnemonic {
        Some(mnemonic) => format!("journal/target/{}/{}/", part(target), part(mnemonic)),
        None => format!("journal/target/{}/", part(target)),
    }
}

pub fn invocations(invocation: &str) -> String {
    format!("journal/invocation/{}/", part(invocation))
}

pub fn build(invocation: &str) -> String {
    format!("journal/build/{}", part(invocation))
}

pub fn build_by_time(first_seq: u64, invocation: &str) -> String {
    format!("{BUILDS}{first_seq:016x}/{}", part(invocation))
}

pub fn duration(target: &str, mnemonic: &str) -> String {
    format!("{DURATIONS}{}/{}", part(target), part(mnemonic))
}

/// `prefix` with a sequence number behind it.
pub fn at(prefix: &str, seq: u64) -> String {
    format!("{prefix}{seq:016x}")
}

/// The sequence number at the end of a key.
pub fn seq_of(key: &str) -> Option<u64> {
    u64::from_str_radix(key.rsplit('/').next()?, 16).ok()
}

/// Sequence number and escaped invocation of a key of [`BUILDS`].
pub fn parse_build_by_time(key: &str) -> Option<(u64, &str)> {
    let (seq, invocation) = key.strip_prefix(BUILDS)?.split_once('/')?;
    Some((u64::from_str_radix(seq, 16).ok()?, invocation))
}

/// The key of the summary, from the escaped invocation.
pub fn build_escaped(escaped: &str) -> String {
    format!("journal/build/{escaped}")
}

/// One segment of a key: everything but plain ASCII is percent-encoded, so that no string from
/// outside can reach into another key. `~` begins the hash of a long one, `-` stands for none.
fn part(text: &str) -> String {
    if text.is_empty() {
        return "-".to_owned();
    }
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b':' | b'@' => {
                escaped.push(char::from(byte));
            }
            b'-' if text.len() > 1 => escaped.push('-'),
            _ => {
                // Writing to a String cannot fail.
                let _ = write!(escaped, "%{byte:02x}");
            }
        }
    }
    if escaped.len() > MAX_PART {
        return format!("~{}", DigestFunction::Sha256.digest(text.as_bytes()).hex());
    }
    escaped
}

#[cfg(test)]
mod tests {
    use kiln_cas::records::MAX_KEY;
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn different_strings_have_different_parts(a in ".{0,400}", b in ".{0,400}") {
            prop_assert_eq!(a == b, part(&a) == part(&b));
        }

        #[test]
        fn keys_are_short_and_their_parts_hold_no_slash(target in ".{0,600}", seq: u64) {
            prop_assert!(!part(&target).contains('/'));
            let key = at(&targets(&target, Some(&target)), seq);
            prop_assert!(key.len() <= MAX_KEY);
            prop_assert_eq!(seq_of(&key), Some(seq));
        }
    }
}
