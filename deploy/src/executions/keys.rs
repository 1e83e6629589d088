//! Keys of records of executions.
//!
//! | key | value |
//! | --- | --- |
//! | `executions/x/{id}` | what is kept of it ([`Kept`](kiln_protos::executions::Kept)), compressed |
//! | `executions/t/{id}` | the last day on which somebody was given its result |
//! | `executions/made/{instance}/{content}/{id}` | empty: this execution left this content |
//! | `executions/used/{invocation}/{part}` | which records a part of an invocation used |
//! | `executions/age/{day}/{part}` | what is looked at again when that day is too long ago |
//! | `executions/lost/{time}` | how many executions were not recorded at that time |
//!
//! `{id}` follows from the result, so that a hit leads to the execution that made it without asking anybody. Names from
//! outside are hashed.

use std::fmt;

use kiln_cas::{Digest, DigestFunction};

pub const AGES: &str = "executions/age/";
pub const LOST: &str = "executions/lost/";
/// Bytes of an id.
const ID: usize = 16;

/// Content, without its size.
pub type Hash = (DigestFunction, [u8; 32]);

/// Names a record: half a hash of the instance, the action and the result.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordId([u8; ID]);

impl RecordId {
    /// The id of a result, given as it is in the action cache.
    pub fn of(instance: &str, action: &Digest, result: &[u8]) -> Self {
        let mut hasher = DigestFunction::Blake3.hasher();
        hasher.update(&(instance.len() as u64).to_be_bytes());
        hasher.update(instance.as_bytes());
        hasher.update(action.to_string().as_bytes());
        hasher.update(&[0]);
        hasher.update(result);
        Self(half(&hasher.finish()))
    }

    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// 32 hexadecimal digits, as it is shown.
    pub fn parse(hex: &str) -> Option<Self> {
        if !crate::encoding::is_hex(hex, 2 * ID) {
            return None;
        }
        u128::from_str_radix(hex, 16).ok().map(|it| Self(it.to_be_bytes()))
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Shows the id as 32 hexadecimal digits.
impl fmt::Display for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&crate::encoding::hex(&self.0))
    }
}

impl fmt::Debug for RecordId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn half(digest: &Digest) -> [u8; ID] {
    digest.hash.first_chunk::<ID>().copied().unwrap_or_default()
}

fn hashed(parts: &[&str]) -> RecordId {
    let mut hasher = DigestFunction::Blake3.hasher();
    for part in parts {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    RecordId(half(&hasher.finish()))
}

pub fn record(id: RecordId) -> String {
    format!("executions/x/{id}")
}

pub fn touched(id: RecordId) -> String {
    format!("executions/t/{id}")
}

/// What the keys of all executions begin with that left content of this hash.
pub fn makers(instance: &str, content: &Hash) -> String {
    let (function, hash) = content;
    let hex = crate::encoding::hex(hash);
    format!("executions/made/{}/{function}.{hex}/", hashed(&[instance]))
}

pub fn made(instance: &str, content: &Hash, id: RecordId) -> String {
    format!("{}{id}", makers(instance, content))
}

/// The id at the end of a key of [`made`].
pub fn maker(key: &str) -> Option<RecordId> {
    RecordId::parse(key.rsplit('/').next()?)
}

/// What the keys of all parts of an invocation begin with.
pub fn parts(instance: &str, invocation: &str) -> String {
    format!("executions/used/{}/", hashed(&[instance, invocation]))
}

pub fn age(day: u32, part: &str) -> String {
    format!("{AGES}{day:08x}/{part}")
}

/// The day in a key of [`age`].
pub fn day_of(key: &str) -> Option<u32> {
    u32::from_str_radix(key.strip_prefix(AGES)?.split('/').next()?, 16).ok()
}

pub fn lost(at: i64, part: &str) -> String {
    format!("{LOST}{at:016x}/{part}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_leads_back_to_its_record() {
        let content = DigestFunction::Sha256.digest(b"content");
        let id = RecordId::of("team", &content, b"result");
        let hash = (content.function, content.hash);
        assert_eq!(maker(&made("team", &hash, id)), Some(id));
        assert_eq!(maker("executions/made/x/y/00"), None);
        assert_eq!(day_of(&age(20_000, "x")), Some(20_000));
        assert_eq!(RecordId::from_bytes(id.bytes()), Some(id));
    }

    #[test]
    fn what_is_shown_of_an_id_is_read_again_and_nothing_else() {
        let id = RecordId::from_bytes(&std::array::from_fn::<u8, ID, _>(|it| 17 * it as u8));
        let shown = id.map(|it| it.to_string()).unwrap_or_default();
        assert_eq!(shown, "00112233445566778899aabbccddeeff");
        assert_eq!(RecordId::parse(&shown), id);
        let others = [shown.to_uppercase(), format!("+{}", &shown[1..]), format!("{shown}0")];
        assert!(others.iter().all(|it| RecordId::parse(it).is_none()));
    }

    #[test]
    fn instance_action_and_result_are_told_apart() {
        let (one, two) = (DigestFunction::Sha256.digest(b"1"), DigestFunction::Sha256.digest(b"2"));
        let all = [
            RecordId::of("a", &one, b"r"),
            RecordId::of("b", &one, b"r"),
            RecordId::of("a", &two, b"r"),
            RecordId::of("a", &one, b"s"),
        ];
        for (index, id) in all.iter().enumerate() {
            assert!(!all.iter().skip(index + 1).any(|it| it == id));
        }
        assert_ne!(parts("a", "bc"), parts("ab", "c"));
    }
}
