//! The actions of the parts, made of the whole one's. No I/O.

use bytes::Bytes;
use kiln_cas::{Digest, DigestFunction};
use kiln_protos::reapi;
use kiln_protos::reapi::command::EnvironmentVariable;
use prost::Message;

use super::subject::{MARK, Subject};
use super::wish::{FILTER, SHARDS};

/// Makes the digest of a part that of no action which a client would make.
const SALT: &[u8] = b"kiln-shard";

/// Which cases a part runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cases {
    /// The cases that the runner itself takes for this shard.
    OfShard,
    /// The cases that this filter lets through, as the runner reads it.
    Filtered(String),
}

/// One of `count` parts of a test; `index` is counted from 0.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    pub index: u32,
    pub count: u32,
    pub cases: Cases,
}

/// The messages of one part, which have to be in the store.
#[derive(Debug, Clone)]
pub struct Derived {
    pub action: (Digest, Bytes),
    pub command: (Digest, Bytes),
}

/// The messages of the whole test, decoded.
#[derive(Debug, Clone)]
pub struct Whole {
    pub action: reapi::Action,
    pub command: reapi::Command,
}

impl Whole {
    pub fn derive(&self, subject: &Subject, part: &Part, function: DigestFunction) -> Derived {
        let mut command = self.command.clone();
        set_all(&mut command, variables(subject, part));
        declare(&mut command, &subject.status);
        #[allow(deprecated, reason = "clients before REAPI 2.2 set the platform here only")]
        forget_wish(command.platform.as_mut());
        let command = encoded(&command, function);
        let mut action = self.action.clone();
        action.command_digest = Some(command.0.to_wire());
        action.salt = SALT.into();
        forget_wish(action.platform.as_mut());
        Derived { action: encoded(&action, function), command }
    }
}

fn encoded(message: &impl Message, function: DigestFunction) -> (Digest, Bytes) {
    let data = Bytes::from(message.encode_to_vec());
    (function.digest(&data), data)
}

fn variables(subject: &Subject, part: &Part) -> Vec<(&'static str, String)> {
    let mark = (MARK, format!("{}/{}", part.index + 1, part.count));
    match &part.cases {
        Cases::Filtered(filter) => vec![mark, ("TESTBRIDGE_TEST_ONLY", filter.clone())],
        Cases::OfShard => {
            let (index, count) = (part.index.to_string(), part.count.to_string());
            let status = subject.status.clone();
            vec![
                mark,
                ("GTEST_SHARD_INDEX", index.clone()),
                ("GTEST_SHARD_STATUS_FILE", status.clone()),
                ("GTEST_TOTAL_SHARDS", count.clone()),
                ("TEST_SHARD_INDEX", index),
                ("TEST_SHARD_STATUS_FILE", status),
                ("TEST_TOTAL_SHARDS", count),
            ]
        }
    }
}

/// Sets environment variables; REAPI wants them sorted by name.
fn set_all(command: &mut reapi::Command, variables: Vec<(&'static str, String)>) {
    let all = &mut command.environment_variables;
    all.retain(|variable| variables.iter().all(|(name, _)| *name != variable.name));
    let variable =
        |(name, value): (&str, String)| EnvironmentVariable { name: name.to_owned(), value };
    all.extend(variables.into_iter().map(variable));
    all.sort_by(|one, other| one.name.cmp(&other.name));
}

/// Declares one more output; REAPI wants outputs sorted as well.
fn declare(command: &mut reapi::Command, path: &str) {
    #[allow(deprecated, reason = "older clients name files and directories apart")]
    let paths = match command.output_paths.is_empty() {
        true => &mut command.output_files,
        false => &mut command.output_paths,
    };
    if !paths.iter().any(|declared| declared == path) {
        paths.push(path.to_owned());
        paths.sort();
    }
}

fn forget_wish(platform: Option<&mut reapi::Platform>) {
    if let Some(platform) = platform {
        platform.properties.retain(|it| it.name != SHARDS && it.name != FILTER);
    }
}

#[cfg(test)]
mod tests {
    use super::super::subject::tests::{REPORT, test_command};
    use super::*;

    fn whole() -> Whole {
        let property =
            |name: &str| reapi::platform::Property { name: name.to_owned(), value: "4".to_owned() };
        let platform = reapi::Platform { properties: vec![property(SHARDS), property("os")] };
        let action = reapi::Action { platform: Some(platform), ..Default::default() };
        Whole { action, command: test_command(&[("TEST_TOTAL_SHARDS", "0")]) }
    }

    fn derived(part: &Part) -> (reapi::Action, reapi::Command) {
        let whole = whole();
        let subject = Subject::of(&whole.command, "TestRunner", &[]);
        let subject =
            subject.unwrap_or_else(|_| Subject::of(&test_command(&[]), "TestRunner", &[]).unwrap());
        let derived = whole.derive(&subject, part, DigestFunction::Sha256);
        let (action, command) = (derived.action, derived.command);
        assert_eq!(DigestFunction::Sha256.digest(&command.1), command.0);
        let action = reapi::Action::decode(action.1).unwrap();
        assert_eq!(action.command_digest, Some(command.0.to_wire()));
        (action, reapi::Command::decode(command.1).unwrap())
    }

    fn value<'a>(command: &'a reapi::Command, name: &str) -> Option<&'a str> {
        let mut found = command.environment_variables.iter().filter(|it| it.name == name);
        let first = found.next().map(|it| it.value.as_str());
        assert!(found.next().is_none(), "{name} is there once");
        first
    }

    #[test]
    fn a_part_is_told_which_shard_it_is_and_leaves_the_status_file() {
        let (action, command) = derived(&Part { index: 2, count: 4, cases: Cases::OfShard });
        let status = "bazel-out/k8/testlogs/a/t/test.shard";
        for (name, expected) in [
            ("TEST_TOTAL_SHARDS", "4"),
            ("TEST_SHARD_INDEX", "2"),
            ("TEST_SHARD_STATUS_FILE", status),
            ("GTEST_TOTAL_SHARDS", "4"),
            ("GTEST_SHARD_INDEX", "2"),
            ("GTEST_SHARD_STATUS_FILE", status),
            (MARK, "3/4"),
        ] {
            assert_eq!(value(&command, name), Some(expected), "{name}");
        }
        let names = command.environment_variables.iter().map(|it| &it.name);
        assert!(names.is_sorted());
        assert_eq!(command.output_paths, [status, REPORT]);
        let properties = action.platform.unwrap().properties;
        assert_eq!(properties.iter().map(|it| it.name.as_str()).collect::<Vec<_>>(), ["os"]);
        assert_eq!(action.salt, SALT);
    }

    #[test]
    fn a_list_of_cases_is_no_shard() {
        let cases = Cases::Filtered("A.b:A.c".to_owned());
        let (_, command) = derived(&Part { index: 0, count: 2, cases });
        assert_eq!(value(&command, "TESTBRIDGE_TEST_ONLY"), Some("A.b:A.c"));
        assert_eq!(value(&command, "TEST_SHARD_INDEX"), None);
    }

    #[test]
    fn the_same_part_has_the_same_digest_and_each_another() {
        let whole = whole();
        let subject = Subject::of(&test_command(&[]), "TestRunner", &[]).unwrap();
        let digest = |index, count| {
            let part = Part { index, count, cases: Cases::OfShard };
            whole.derive(&subject, &part, DigestFunction::Blake3).action.0
        };
        assert_eq!(digest(0, 2), digest(0, 2));
        assert_ne!(digest(0, 2), digest(1, 2));
        assert_ne!(digest(0, 2), digest(0, 3));
    }
}
