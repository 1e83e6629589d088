//! Names and digests, by the specification's grammar.

use proptest::prelude::*;

use super::super::{Algorithm, ContentDigest, DigestError, NameError, Reference, Repository, Tag};

fn is_repository(text: &str) -> bool {
    text.parse::<Repository>().is_ok()
}

#[test]
fn repositories_are_lowercase_words_with_separators_between_them() {
    for good in ["a", "app", "team/app", "a.b_c__d-e---f/0", "a1/b2/c3", &"a".repeat(255)] {
        assert!(is_repository(good), "{good}");
    }
    let bad = [
        "",
        "/",
        "a/",
        "/a",
        "a//b",
        "A",
        "a.",
        ".a",
        "a..b",
        "a___b",
        "a._b",
        "a-_b",
        "a b",
        "ä",
        "a/..",
        "..",
        "a:b",
        "a\0",
        "a--/b",
        "_a",
        &"a".repeat(256),
    ];
    for bad in bad {
        assert!(!is_repository(bad), "{bad}");
    }
}

#[test]
fn tags_begin_with_a_word_character() {
    for good in ["latest", "v1.2.3", "_", "A-b.C_d", &"x".repeat(128)] {
        assert!(good.parse::<Tag>().is_ok(), "{good}");
    }
    for bad in ["", ".a", "-a", "a/b", "a:b", "a+b", "ä", "a ", &"x".repeat(129)] {
        assert!(matches!(bad.parse::<Tag>(), Err(NameError::Tag(_))), "{bad}");
    }
}

#[test]
fn a_digest_has_a_known_function_and_all_digits() {
    let sha256 = format!("sha256:{}", "a".repeat(64));
    let sha512 = format!("sha512:{}", "0".repeat(128));
    for good in [&sha256, &sha512] {
        let digest: ContentDigest = good.parse().unwrap();
        assert_eq!(digest.to_string(), *good);
        assert!(matches!(good.parse::<Reference>(), Ok(Reference::Digest(it)) if it == digest));
    }
    let upper = format!("sha256:{}", "A".repeat(64));
    let bad = [
        "sha256:",
        "sha256",
        ":",
        "sha256:baddigeststring",
        &upper,
        &sha256[..70],
        "SHA256:aa",
        "sha+:aa",
        "+:aa",
        "a b:aa",
        "sha384:",
    ];
    for bad in bad {
        assert!(matches!(bad.parse::<ContentDigest>(), Err(DigestError::Malformed(_))), "{bad}");
        assert!(bad.parse::<Reference>().is_err() || !bad.contains(':'), "{bad}");
    }
    let unknown = format!("sha384:{}", "a".repeat(96));
    for unknown in
        [unknown.as_str(), "multihash+base58:QmRZxt2b1FVZPNqd8hsiykDL3TdBDeTSPX9Kv46HmX4Gx8"]
    {
        let read = unknown.parse::<ContentDigest>();
        assert!(matches!(read, Err(DigestError::Algorithm(_))), "{unknown}");
    }
}

#[test]
fn a_digest_stands_for_itself_as_a_tag() {
    let digest = ContentDigest::of(b"");
    let expected = "sha256-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    assert_eq!(digest.fallback_tag(), expected);
    let long = Algorithm::Sha512.digest(b"").fallback_tag();
    assert_eq!(long.len(), "sha512-".len() + 64);
    assert!(long.parse::<Tag>().is_ok());
}

proptest! {
    #[test]
    fn a_name_that_is_taken_is_one_by_the_grammar(text in "[a-c._/-]{1,12}") {
        // The specification's expression, taken apart by hand.
        let component = |it: &str| {
            let words: Vec<&str> = it.split(|c: char| !c.is_ascii_alphanumeric()).collect();
            let first_and_last = !words[0].is_empty() && !words[words.len() - 1].is_empty();
            let separators: Vec<String> = it
                .split(|c: char| c.is_ascii_alphanumeric())
                .filter(|it| !it.is_empty())
                .map(str::to_owned)
                .collect();
            let separator = |it: &String| {
                matches!(it.as_str(), "." | "_" | "__") || it.chars().all(|c| c == '-')
            };
            first_and_last && separators.iter().all(separator)
        };
        prop_assert_eq!(is_repository(&text), text.split('/').all(component));
    }

    #[test]
    fn no_text_is_too_odd_to_be_read_or_refused(text in ".{0,80}") {
        let _ = (text.parse::<Repository>(), text.parse::<Tag>(), text.parse::<ContentDigest>());
    }
}
