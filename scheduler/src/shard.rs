//! Which shard of a test an action is, where its client shards it, and how long such a shard runs. No I/O.

use kiln_cas::bazel;
use kiln_protos::reapi;
use prost::Message;

use crate::config::Parts;
use crate::fanout::MARK;
use crate::job::{LeaseMessages, TestShard};

/// Milliseconds that an action is expected to run: of a shard by what is known of that very one, else by what is known of
/// its target. `command`: encoded, where it was read.
pub fn expected_ms(
    parts: &Parts,
    instance: &str,
    metadata: &reapi::RequestMetadata,
    command: Option<&[u8]>,
) -> Option<u64> {
    let (target, mnemonic) = (&metadata.target_id, &metadata.action_mnemonic);
    let of_shard = || {
        let command = command.filter(|_| bazel::is_test(mnemonic))?;
        let said = Said::of(command)?;
        let label = if target.is_empty() { said.label.as_str() } else { target.as_str() };
        let (index, count) = (said.index, said.count);
        let configuration = metadata.configuration_id.as_str();
        parts.shards.shard_ms(&TestShard { instance, label, configuration, index, count })
    };
    of_shard().or_else(|| parts.estimator.expected_ms(target, mnemonic))
}

/// The label and the shard that the environment of a command names.
#[derive(Debug, PartialEq, Eq)]
struct Said {
    label: String,
    index: u32,
    count: u32,
}

impl Said {
    /// `None`: it is no test, or its client does not shard it. What makes the report of a shard says of which one, but no
    /// label.
    fn of(command: &[u8]) -> Option<Self> {
        if command.len() > LeaseMessages::MOST_BYTES {
            return None;
        }
        // A command that cannot be decoded is refused by its worker.
        let command = reapi::Command::decode(command).ok()?;
        let variables = command.environment_variables;
        let value = |name: &str| {
            let found = variables.iter().find(|it| it.name == name);
            found.map(|it| it.value.as_str()).filter(|value| !value.is_empty())
        };
        let label = value("TEST_TARGET")?.to_owned();
        let count = value("TEST_TOTAL_SHARDS")?.parse().ok()?;
        let index = value("TEST_SHARD_INDEX")?.parse().ok()?;
        let is_shard = index < count && count > 1 && value(MARK).is_none();
        is_shard.then_some(Self { label, index, count })
    }
}

#[cfg(test)]
mod tests {
    use kiln_protos::reapi::command::EnvironmentVariable;

    use super::*;

    fn said(variables: &[(&str, &str)]) -> Option<Said> {
        let variable = |(name, value): &(&str, &str)| EnvironmentVariable {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        let environment_variables = variables.iter().map(variable).collect();
        let command = reapi::Command { environment_variables, ..Default::default() };
        Said::of(&command.encode_to_vec())
    }

    #[test]
    fn the_environment_says_which_shard_an_action_is() {
        let (label, index) = (("TEST_TARGET", "//a:t"), ("TEST_SHARD_INDEX", "2"));
        let count = |count| ("TEST_TOTAL_SHARDS", count);
        let expected = Said { label: "//a:t".to_owned(), index: 2, count: 4 };
        assert_eq!(said(&[index, label, count("4")]), Some(expected));
        assert_eq!(said(&[index, count("4")]), None, "it makes a report");
        assert_eq!(said(&[index, label, count("2")]), None, "there is no such shard");
        assert_eq!(said(&[index, label, count("many")]), None);
        assert_eq!(said(&[("TEST_SHARD_INDEX", "0"), label, count("0")]), None);
        assert_eq!(said(&[("TEST_SHARD_INDEX", "0"), label, count("1")]), None);
        assert_eq!(said(&[index, label, count("4"), (MARK, "3/4")]), None, "the server cut it");
        assert_eq!(Said::of(b"\xff"), None);
    }
}
