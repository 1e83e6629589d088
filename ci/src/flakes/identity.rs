//! What makes two runs of a test runs of the same thing.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::model::without_run;

/// What Bazel sets anew for each of several runs (`--runs_per_test`), so that their actions differ. The
/// directories of their outputs differ as well.
const RUN_NUMBER: &str = "TEST_RUN_NUMBER";
const RANDOM_SEED: &str = "TEST_RANDOM_SEED";
/// Named by a hash of label, shard and run.
const TMPDIR: &str = "TEST_TMPDIR";

/// What a run depends on. Left out are its timeout, salt and caching, which change nothing that the test
/// sees, and its output paths, into which Buck2 hashes which repetition it is.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    pub argv: &'a [String],
    /// Names and values, in any order.
    pub environment: &'a [(String, String)],
    pub working_directory: &'a str,
    /// The digest of the input root, as `hash/size`.
    pub input_root: &'a str,
    /// Platform properties, in any order.
    pub platform: &'a [(String, String)],
}

/// Equal for runs with equal inputs. A run that was filtered or cut into shards has another one than the
/// whole, since its environment or arguments differ: what it shows about the whole is weaker evidence.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Identity([u8; 16]);

impl Identity {
    pub fn of(run: &Run<'_>) -> Self {
        let mut hash = blake3::Hasher::new_derive_key("kiln 2026 identity of a test run");
        // Each text is preceded by its length and each list by its own, so that no two runs share a stream.
        list(&mut hash, run.argv.iter().map(String::as_str));
        let mut environment: Vec<_> = run
            .environment
            .iter()
            .filter(|(name, _)| ![RUN_NUMBER, RANDOM_SEED, TMPDIR].contains(&name.as_str()))
            .map(|(name, value)| (name.as_str(), without_run(value)))
            .collect();
        environment.sort_unstable();
        list(&mut hash, environment.iter().flat_map(|(name, value)| [*name, value]));
        list(&mut hash, [run.working_directory, run.input_root].into_iter());
        let mut platform: Vec<_> = run.platform.iter().collect();
        platform.sort_unstable();
        list(&mut hash, platform.iter().flat_map(|(name, value)| [name.as_str(), value]));
        let mut short = [0; 16];
        hash.finalize_xof().fill(&mut short);
        Self(short)
    }

    /// The identity as it is stored.
    pub fn bytes(self) -> [u8; 16] {
        self.0
    }

    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// The seed that a run was given, if any: equal inputs with other seeds are weaker evidence.
pub fn seed(environment: &[(String, String)]) -> Option<&str> {
    environment.iter().find(|(name, _)| name == RANDOM_SEED).map(|(_, value)| value.as_str())
}

fn list<'a>(hash: &mut blake3::Hasher, texts: impl Iterator<Item = &'a str>) {
    let texts: Vec<_> = texts.collect();
    hash.update(&(texts.len() as u64).to_le_bytes());
    for text in texts {
        hash.update(&(text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Identity({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    fn of(argv: &[&str], environment: &[(&str, &str)], platform: &[(&str, &str)]) -> Identity {
        let argv: Vec<_> = argv.iter().map(|it| (*it).to_owned()).collect();
        let (environment, platform) = (pairs(environment), pairs(platform));
        Identity::of(&Run {
            argv: &argv,
            environment: &environment,
            working_directory: "",
            input_root: "ab/12",
            platform: &platform,
        })
    }

    #[test]
    fn repetitions_are_the_same_run_and_other_inputs_are_not() {
        let one =
            of(&["t"], &[("A", "1"), ("TEST_RUN_NUMBER", "1"), ("TEST_RANDOM_SEED", "7")], &[]);
        assert_eq!(one, of(&["t"], &[("TEST_RANDOM_SEED", "8"), ("A", "1")], &[]));
        assert_ne!(one, of(&["t"], &[("A", "2")], &[]));
        assert_ne!(one, of(&["t", "x"], &[("A", "1")], &[]));
        assert_ne!(one, of(&["t"], &[("A", "1")], &[("OSFamily", "linux")]));
        assert_ne!(one, of(&["t"], &[("A", "1"), ("TEST_SHARD_INDEX", "0")], &[]));
        // What is an argument cannot be taken for a variable.
        assert_ne!(of(&["A", "1"], &[], &[]), of(&[], &[("A", "1")], &[]));
        assert_ne!(of(&["ab"], &[], &[]), of(&["a", "b"], &[], &[]));
    }

    #[test]
    fn it_does_not_change_between_versions() {
        let it = of(&["bin/test", "--x"], &[("HOME", "/tmp")], &[("OSFamily", "linux")]);
        assert_eq!(it.to_string(), "2d5974759145afed88652e7ecbd43b0f");
        let environment = pairs(&[("TEST_RANDOM_SEED", "3")]);
        assert_eq!(seed(&environment), Some("3"));
    }

    proptest! {
        #[test]
        fn order_of_the_environment_does_not_matter(mut names in proptest::collection::vec("[A-Z]{1,3}", 0..6)) {
            names.sort();
            names.dedup();
            let forwards: Vec<_> = names.iter().map(|it| (it.as_str(), "v")).collect();
            let backwards: Vec<_> = forwards.iter().rev().copied().collect();
            prop_assert_eq!(of(&[], &forwards, &backwards), of(&[], &backwards, &forwards));
        }
    }
}
