//! The `checksum.sri` qualifier (W3C Subresource Integrity).

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::Digest;

/// Checksums of one algorithm; content has to match any of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Integrity {
    algorithm: Algorithm,
    sums: Vec<Vec<u8>>,
}

/// In rising order of strength.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Algorithm {
    Sha256,
    Sha384,
    Sha512,
}

pub(super) enum Checker {
    Sha256(sha2::Sha256),
    Sha384(sha2::Sha384),
    Sha512(sha2::Sha512),
}

impl Integrity {
    /// One or more of `sha256-…`, `sha384-…`, `sha512-…`, separated by spaces. Of several
    /// algorithms the strongest counts.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut found: Vec<(Algorithm, Vec<u8>)> = Vec::new();
        for part in text.split_ascii_whitespace() {
            found.push(parse_one(part).ok_or_else(|| {
                format!("{part:?} is not of the form sha256-…, sha384-… or sha512-… (base64)")
            })?);
        }
        let strongest = found.iter().map(|(algorithm, _)| *algorithm).max();
        let algorithm = strongest.ok_or("it is empty")?;
        let sums = found.into_iter().filter(|(a, _)| *a == algorithm).map(|(_, sum)| sum).collect();
        Ok(Self { algorithm, sums })
    }

    pub(super) fn checker(&self) -> Checker {
        match self.algorithm {
            Algorithm::Sha256 => Checker::Sha256(Digest::new()),
            Algorithm::Sha384 => Checker::Sha384(Digest::new()),
            Algorithm::Sha512 => Checker::Sha512(Digest::new()),
        }
    }

    pub(super) fn accepts(&self, checker: Checker) -> bool {
        let sum = match checker {
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
            Self::Sha256(state) => state.update(data),
            Self::Sha384(state) => state.update(data),
            Self::Sha512(state) => state.update(data),
        }
    }
}

fn parse_one(part: &str) -> Option<(Algorithm, Vec<u8>)> {
    let (name, sum) = part.split_once('-')?;
    let (algorithm, length) = match name {
        "sha256" => (Algorithm::Sha256, 32),
        "sha384" => (Algorithm::Sha384, 48),
        "sha512" => (Algorithm::Sha512, 64),
        _ => return None,
    };
    let sum = STANDARD.decode(sum.split('?').next()?).ok()?;
    (sum.len() == length).then_some((algorithm, sum))
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
        let wrong = format!("sha512-{}", STANDARD.encode([0; 64]));
        assert!(!accepts(&format!("{sha256} {wrong}"), b"hello"));
        for bad in ["", "md5-xyz", "sha256-", "sha256-AAAA", "sha256"] {
            assert!(Integrity::parse(bad).is_err(), "{bad}");
        }
    }
}
