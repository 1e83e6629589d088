//! Strict JSON. A document that two readers could take for different things is refused: a member
//! that stands twice in an object, bytes behind the end, more bytes than its kind may have.

use std::collections::HashSet;
use std::fmt;

use serde::de::{DeserializeOwned, DeserializeSeed, Error as _, MapAccess, SeqAccess, Visitor};
use serde::{Deserializer, Serialize};

/// Why a document was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum JsonError {
    #[error("{size} bytes are more than the {limit} that such a document may have")]
    TooLarge { size: usize, limit: usize },
    #[error("not the JSON that was expected")]
    Malformed(#[source] serde_json::Error),
    #[error("cannot be written as JSON")]
    Unwritable(#[source] serde_json::Error),
}

/// Reads a document of at most `limit` bytes. Whether members that `T` does not know are refused is
/// said by `T` (`deny_unknown_fields`).
pub fn read<T: DeserializeOwned>(data: &[u8], limit: usize) -> Result<T, JsonError> {
    if data.len() > limit {
        return Err(JsonError::TooLarge { size: data.len(), limit });
    }
    refuse_duplicates(data).map_err(JsonError::Malformed)?;
    serde_json::from_slice(data).map_err(JsonError::Malformed)
}

/// Writes a document without white space; members of maps come in the order of their names.
pub fn write<T: Serialize>(value: &T) -> Result<Vec<u8>, JsonError> {
    serde_json::to_vec(value).map_err(JsonError::Unwritable)
}

fn refuse_duplicates(data: &[u8]) -> Result<(), serde_json::Error> {
    let mut reader = serde_json::Deserializer::from_slice(data);
    Unique.deserialize(&mut reader)?;
    reader.end()
}

/// Walks through a document and keeps nothing but the names in the objects that are open.
struct Unique;

impl<'de> DeserializeSeed<'de> for Unique {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Unique {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }

    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }

    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }

    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }

    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while list.next_element_seed(Self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut object: A) -> Result<(), A::Error> {
        let mut names = HashSet::new();
        while let Some(name) = object.next_key::<String>()? {
            object.next_value_seed(Self)?;
            if let Some(twice) = names.replace(name) {
                return Err(A::Error::custom(format!("the member {twice:?} stands there twice")));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;

    fn fails(text: &str) -> bool {
        read::<Value>(text.as_bytes(), 1024).is_err()
    }

    #[test]
    fn a_member_that_stands_twice_is_refused_at_any_depth() {
        assert!(fails(r#"{"a":1,"a":1}"#));
        assert!(fails(r#"{"a":[{"b":{"c":1,"d":2,"c":3}}]}"#));
        // The same name, written in two ways.
        assert!(fails(r#"{"a":1,"\u0061":2}"#));
        assert!(!fails(r#"{"a":{"b":1},"c":{"b":1},"A":2}"#));
    }

    #[test]
    fn there_is_one_document_and_it_ends() {
        assert!(fails("{} {}"));
        assert!(fails("{}\0"));
        assert!(fails("{"));
        assert!(fails(""));
        assert!(fails("\u{feff}{}"));
        assert!(!fails(" {} \n"));
    }

    #[test]
    fn size_and_depth_are_bounded() {
        let long = format!("[{}1]", "1,".repeat(1024));
        assert!(matches!(
            read::<Value>(long.as_bytes(), 1024),
            Err(JsonError::TooLarge { limit: 1024, .. })
        ));
        assert!(fails(&"[".repeat(1000)));
        assert!(fails(&format!("{}{}", "[".repeat(500), "]".repeat(500))));
    }
}
