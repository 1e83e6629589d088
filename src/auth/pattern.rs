//! Patterns over names: `*` stands for any characters, also none and also slashes.

use std::fmt;

use serde::Deserialize;

/// `main` is that name alone, `team/*` everything below `team`, `*` everything.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(from = "String")]
pub struct Pattern(String);

impl From<String> for Pattern {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Pattern {
    pub fn everything() -> Self {
        Self("*".to_owned())
    }

    pub fn is_everything(&self) -> bool {
        !self.0.is_empty() && self.0.bytes().all(|byte| byte == b'*')
    }

    /// Whether the pattern matches the whole name. It takes time linear in the lengths, since each
    /// part between two stars is looked for from the left.
    pub fn matches(&self, name: &str) -> bool {
        let mut parts = self.0.split('*');
        let first = parts.next().unwrap_or_default();
        let Some(mut rest) = name.strip_prefix(first) else { return false };
        let Some(last) = parts.next_back() else { return rest.is_empty() };
        for part in parts {
            let Some(at) = rest.find(part) else { return false };
            rest = &rest[at + part.len()..];
        }
        rest.ends_with(last)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Pattern(pattern.to_owned()).matches(name)
    }

    #[test]
    fn stars_stand_for_anything() {
        for (pattern, name) in [
            ("", ""),
            ("main", "main"),
            ("*", ""),
            ("*", "a/b"),
            ("team/*", "team/a/b"),
            ("team-*/main", "team-x/y/main"),
            ("*.example", "w.example"),
            ("a*b*c", "aXbYc"),
            ("a**c", "ac"),
            ("ab*bc", "abbc"),
        ] {
            assert!(matches(pattern, name), "{pattern} {name}");
        }
        for (pattern, name) in [
            ("", "x"),
            ("main", "main2"),
            ("main", "mai"),
            ("team/*", "team"),
            ("team/*", "xteam/a"),
            ("ab*bc", "abc"),
            ("a*b*c", "acb"),
        ] {
            assert!(!matches(pattern, name), "{pattern} {name}");
        }
        assert!(Pattern::everything().is_everything() && !Pattern(String::new()).is_everything());
    }

    /// The definition of a match, letter by letter, which the faster code is compared with.
    fn defined(pattern: &[u8], name: &[u8]) -> bool {
        match pattern.split_first() {
            None => name.is_empty(),
            Some((b'*', rest)) => (0..=name.len()).any(|skip| defined(rest, &name[skip..])),
            Some((letter, rest)) => name.first() == Some(letter) && defined(rest, &name[1..]),
        }
    }

    proptest! {
        #[test]
        fn matching_follows_the_definition(pattern in "[ab/*]{0,8}", name in "[ab/]{0,10}") {
            let expected = defined(pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
