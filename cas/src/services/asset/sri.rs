//! The `checksum.sri` qualifier (W3C Subresource Integrity).

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use sha2::Digest;

/// Padding may be left out, as in the grammar of the specification.
const CONFIG: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
/// Either alphabet may be used.
const BASE64: [GeneralPurpose; 2] =
    [GeneralPurpose::new(&STANDARD, CONFIG), GeneralPurpose::new(&URL_SAFE, CONFIG)];

/// Checksums of one algorithm; content has to match any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Integrity {
    algorithm: Algorithm,
    sums: Vec<Vec<u8>>,
}

/// Hash functions, in rising order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    /// The specification does not have it, but Bazel knows it.
    Blake3,
    Sha256,
    Sha384,
    Sha512,
}

pub(super) enum Checker {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Integrity {
    /// One or more of `sha256-…`, `sha384-…`, `sha512-…`, `blake3-…`, separated by spaces. Of several
    /// algorithms the strongest counts; unknown ones are left out, unless there are no others.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut found: Vec<(Algorithm, Vec<u8>)> = Vec::new();
        for part in text.split_ascii_whitespace() {
            let (name, sum) = part.split_once('-').unwrap_or((part, ""));
            let Some((algorithm, length)) = algorithm(name) else { continue };
            let sum = decoded(sum, length)
                .ok_or_else(|| format!("{part:?} is not {name}- and {length} bytes in base64"))?;
            found.push((algorithm, sum));
        }
        let strongest = found.iter().map(|(algorithm, _)| *algorithm).max();
        let algorithm = strongest.ok_or_else(|| {
            format!("{text:?} holds none of sha256-…, sha384-…, sha512-… and blake3-… (base64)")
        })?;
        let sums = found.into_iter().filter(|(a, _)| *a == algorithm).map(|(_, sum)| sum).collect();
        Ok(Self { algorithm, sums })
    }

    pub(super) fn checker(&self) -> Checker {
        match self.algorithm {
            Algorithm::Blake3 => Checker::Blake3(Box::default()),
            Algorithm::Sha256 => Checker::Sha256(Digest::new()),
            Algorithm::Sha384 => Checker::Sha384(Digest::new()),
            Algorithm::Sha512 => Checker::Sha512(Digest::new()),
        }
    }

    pub(super) fn accepts(&self, checker: Checker) -> bool {
        let sum = match checker {
            Checker::Blake3(state) => state.finalize().as_bytes().to_vec(),
            Checker::Sha256(state) => state.finalize().to_vec(),
            Checker::Sha384(state) => state.finalize().to_vec(),
            Checker::Sha512(state) => state.finalize().to_vec(),
        };
        self.sums.contains(&sum)
    }
}

impl Checker {
    pub(super) fn update(&mut self, data: &[u8]) {
        match self {
            Self::Blake3(state) => drop(state.update(data)),
            Self::Sha256(state) => state.update(data),
            Self::Sha384(state) => state.update(data),
            Self::Sha512(state) => state.update(data),
        }
    }
}

/// With the length of its sums in bytes.
fn algorithm(name: &str) -> Option<(Algorithm, usize)> {
    Some(match name.to_ascii_lowercase().as_str() {
        "blake3" => (Algorithm::Blake3, 32),
        "sha256" => (Algorithm::Sha256, 32),
        "sha384" => (Algorithm::Sha384, 48),
        "sha512" => (Algorithm::Sha512, 64),
        _ => return None,
    })
}

/// What follows a `?` are options, of which there are none yet.
fn decoded(sum: &str, length: usize) -> Option<Vec<u8>> {
    let sum = sum.split('?').next()?;
    let sum = BASE64.iter().find_map(|base64| base64.decode(sum).ok())?;
    (sum.len() == length).then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepts(text: &str, data: &[u8]) -> bool {
        let integrity = Integrity::parse(text).expect(text);
        let mut checker = integrity.checker();
        checker.update(data);
        integrity.accepts(checker)
    }

    #[test]
    fn the_strongest_algorithm_counts() {
        let sha256 = "sha256-LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=";
        assert!(accepts(sha256, b"hello"));
        assert!(!accepts(sha256, b"other"));
        let zeros = |length: usize| BASE64[0].encode(vec![0; length]);
        let wrong = format!("sha512-{}", zeros(64));
        assert!(!accepts(&format!("{sha256} {wrong}"), b"hello"));
        assert!(accepts(&format!("{sha256} blake3-{}", zeros(32)), b"hello"));
        let blake3 = BASE64[1].encode(blake3::hash(b"hello").as_bytes());
        assert!(accepts(&format!("blake3-{blake3}"), b"hello"));
    }

    #[test]
    fn unknown_algorithms_are_left_out_and_known_ones_have_to_be_right() {
        let sha256 = "SHA256-LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ?option";
        for list in [format!("md5-xyz {sha256}"), format!("{sha256}\tsha3-512-AAAA\n what-ever")] {
            assert!(accepts(&list, b"hello") && !accepts(&list, b"other"), "{list}");
        }
        for bad in ["", "md5-xyz", "sha256-", "sha256-AAAA", "sha256", "sha1-AAAA what"] {
            assert!(Integrity::parse(bad).is_err(), "{bad}");
        }
        assert!(Integrity::parse(&format!("{sha256} sha512-AAAA")).is_err());
    }
}
