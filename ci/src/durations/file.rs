//! Files of durations as pytest-split writes them: a JSON object from names to seconds, or, by older
//! versions, a list of pairs.

use std::collections::HashSet;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;

use serde::Deserializer;
use serde::de::{Error, MapAccess, SeqAccess, Visitor};
use thiserror::Error;

use super::LONGEST_S;

/// Names with seconds, in the order of the file. No name is there twice, each number is finite and not
/// negative.
pub type Durations = Vec<(String, f64)>;

/// Bytes that a file may have: some millions of tests.
const MAX_BYTES: u64 = 1 << 30;

#[derive(Debug, Error)]
pub enum FileError {
    #[error("cannot read it: {0}")]
    Io(#[from] std::io::Error),
    #[error("it is empty")]
    Empty,
    #[error("it has more than {MAX_BYTES} bytes, which are some millions of tests: split it")]
    TooLong,
    #[error("it is no file of durations: {0}")]
    Json(#[from] serde_json::Error),
}

pub fn read(source: impl Read) -> Result<Durations, FileError> {
    let mut bytes = Vec::new();
    source.take(MAX_BYTES + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > MAX_BYTES {
        return Err(FileError::TooLong);
    }
    let text = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    if text.trim_ascii().is_empty() {
        return Err(FileError::Empty);
    }
    let mut json = serde_json::Deserializer::from_slice(text);
    let durations = json.deserialize_any(Whole)?;
    json.end()?;
    Ok(durations)
}

struct Whole;

impl<'de> Visitor<'de> for Whole {
    type Value = Durations;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("an object from names of tests to seconds")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Durations, A::Error> {
        let mut found = Found::default();
        while let Some(name) = map.next_key::<String>()? {
            found.check(&name)?;
            let seconds = map.next_value_seed(Seconds(&name))?;
            found.durations.push((name, seconds));
        }
        Ok(found.durations)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Durations, A::Error> {
        let mut found = Found::default();
        while let Some((name, seconds)) = list.next_element_seed(Pair)? {
            found.check(&name)?;
            found.durations.push((name, seconds));
        }
        Ok(found.durations)
    }
}

#[derive(Default)]
struct Found {
    durations: Durations,
    /// Hashes of their names: the names themselves would be held twice.
    hashes: HashSet<u64>,
}

impl Found {
    fn check<E: Error>(&mut self, name: &str) -> Result<(), E> {
        if name.is_empty() {
            return Err(E::custom("a test has an empty name"));
        }
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        let is_known = !self.hashes.insert(hasher.finish());
        match is_known && self.durations.iter().any(|(known, _)| known == name) {
            true => Err(E::custom(format_args!("{name:?} is there twice"))),
            false => Ok(()),
        }
    }
}

/// Reads a pair of a name and its seconds: `["name", 1.5]`.
struct Pair;

impl<'de> serde::de::DeserializeSeed<'de> for Pair {
    type Value = (String, f64);

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<Self::Value, D::Error> {
        json.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Pair {
    type Value = (String, f64);

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        to.write_str("a pair of a test's name and seconds")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let missing = || A::Error::invalid_length(0, &Self);
        let name = list.next_element::<String>()?.ok_or_else(missing)?;
        let seconds = list.next_element_seed(Seconds(&name))?.ok_or_else(missing)?;
        match list.next_element::<serde::de::IgnoredAny>()? {
            None => Ok((name, seconds)),
            Some(_) => Err(A::Error::invalid_length(3, &Self)),
        }
    }
}

/// The seconds of the test of this name.
struct Seconds<'a>(&'a str);

impl<'de> serde::de::DeserializeSeed<'de> for Seconds<'_> {
    type Value = f64;

    fn deserialize<D: Deserializer<'de>>(self, json: D) -> Result<f64, D::Error> {
        json.deserialize_any(self)
    }
}

impl Visitor<'_> for Seconds<'_> {
    type Value = f64;

    fn expecting(&self, to: &mut fmt::Formatter) -> fmt::Result {
        write!(to, "the seconds of {:?}", self.0)
    }

    fn visit_f64<E: Error>(self, seconds: f64) -> Result<f64, E> {
        let name = self.0;
        match seconds {
            _ if seconds < 0.0 => {
                Err(E::custom(format_args!("{name:?} takes {seconds} s: negative")))
            }
            _ if seconds <= LONGEST_S => Ok(seconds),
            _ => Err(E::custom(format_args!("{name:?} takes {seconds} s: more than a year"))),
        }
    }

    fn visit_u64<E: Error>(self, seconds: u64) -> Result<f64, E> {
        self.visit_f64(seconds as f64)
    }

    fn visit_i64<E: Error>(self, seconds: i64) -> Result<f64, E> {
        self.visit_f64(seconds as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_shapes_are_read() {
        let expected = vec![("b".to_owned(), 1.5), ("a".to_owned(), 2.0)];
        for json in [
            r#"{"b": 1.5, "a": 2}"#,
            r#"[["b", 1.5], ["a", 2]]"#,
            "\u{feff}\n{\"b\": 15e-1, \"a\": 2.0}\n",
        ] {
            assert_eq!(read(json.as_bytes()).expect(json), expected);
        }
        for json in ["{}", "[]"] {
            assert_eq!(read(json.as_bytes()).expect(json), []);
        }
    }

    #[test]
    fn what_is_no_duration_is_refused_with_its_test_and_line() {
        for (json, words) in [
            ("", &["it is empty"][..]),
            (" \n", &["it is empty"]),
            ("{\n\"t\": NaN}", &["line 2"]),
            ("{\n\"t\": -Infinity}", &["line 2"]),
            ("{\n\"t\": 1e999}", &["line 2"]),
            ("{\"t\": 1,\n\"t\": 1}", &["\"t\" is there twice", "line 2"]),
            ("[[\"t\", 1],\n[\"t\", 1]]", &["\"t\" is there twice", "line 2"]),
            ("{\"t\": -0.5}", &["\"t\" takes -0.5 s: negative", "line 1"]),
            ("{\"t\": -3}", &["\"t\" takes -3 s: negative"]),
            ("{\"t\": 1e10}", &["\"t\" takes 10000000000 s: more than a year"]),
            ("{\"t\": null}", &["null", "the seconds of \"t\""]),
            ("{\"t\": \"1\"}", &["string", "the seconds of \"t\""]),
            ("{\"\": 1}", &["an empty name"]),
            ("{\"t\": 1", &["EOF"]),
            ("{\"t\": 1} x", &["trailing"]),
            ("[[\"t\"]]", &["a pair of"]),
            ("[[\"t\", 1, 2]]", &["a pair of"]),
            ("[\"t\"]", &["a pair of"]),
            ("3", &["an object from names of tests to seconds"]),
        ] {
            let error = read(json.as_bytes()).expect_err(json).to_string();
            assert!(words.iter().all(|word| error.contains(word)), "{json}: {error}");
        }
    }
}
