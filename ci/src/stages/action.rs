//! A stage's command as the Command and the Action of REAPI.

use std::collections::BTreeMap;
use std::time::Duration;

use kiln_protos::{protobuf, reapi};

use crate::pipelines::{Command, Program, Task};

/// The platform properties that a stage has words of its own for.
const IMAGE: &str = "container-image";
const NETWORK: &str = "kiln-network";

/// Why a command is not run at all.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error(
        "a command may have no secrets: what an action is given is kept in the store, where others read it. \
         Hand {0:?} to a program that the server's operator lists, and name that program in the stage"
    )]
    Secret(String),
    #[error(
        "it asks for the network, which this server does not grant to stages: stages.allow_network does"
    )]
    Network,
    #[error("the platform property {0} is what a stage says by {1}")]
    Property(&'static str, &'static str),
    #[error("it names no program")]
    NoProgram,
}

/// Checks that this server may run the command. Errors: why it may not.
pub fn check(command: &Command, allow_network: bool) -> Result<(), Unfit> {
    if let Some(name) = command.secrets.values().next() {
        return Err(Unfit::Secret(name.chars().take(80).collect()));
    }
    if command.network && !allow_network {
        return Err(Unfit::Network);
    }
    for (property, key) in [(IMAGE, "image"), (NETWORK, "network")] {
        // An image may be named either way, but once.
        let twice = property == IMAGE && command.image.is_none();
        if command.platform.contains_key(property) && !twice {
            return Err(Unfit::Property(property, key));
        }
    }
    match &command.program {
        Program::Arguments(arguments) if arguments.first().is_none_or(String::is_empty) => {
            Err(Unfit::NoProgram)
        }
        _ => Ok(()),
    }
}

/// What runs. A script has one stream, so that the parts of what it prints stay in order.
fn arguments(program: &Program) -> Vec<String> {
    match program {
        Program::Arguments(arguments) => arguments.clone(),
        // In its first line: numbers of lines in messages are those of the script.
        Program::Script(text) => {
            vec!["/bin/sh".into(), "-euc".into(), format!("exec 2>&1; {text}")]
        }
    }
}

/// The Command, in its canonical form: REAPI wants variables and paths sorted.
pub fn command_message(task: &Task, command: &Command) -> reapi::Command {
    let mut environment: BTreeMap<&str, &str> = BTreeMap::new();
    for (name, value) in task.variables.iter().chain(&command.environment) {
        environment.insert(name, value);
    }
    let variable = |(name, value): (&str, &str)| reapi::command::EnvironmentVariable {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    let mut output_paths: Vec<_> =
        command.outputs.iter().chain(&command.reports).cloned().collect();
    output_paths.sort();
    output_paths.dedup();
    reapi::Command {
        arguments: arguments(&command.program),
        environment_variables: environment.into_iter().map(variable).collect(),
        output_paths,
        working_directory: command.directory.clone(),
        ..Default::default()
    }
}

fn platform(command: &Command) -> reapi::Platform {
    let mut properties = command.platform.clone();
    properties.extend(command.image.clone().map(|it| (IMAGE.to_owned(), it)));
    if command.network {
        properties.insert(NETWORK.to_owned(), "true".to_owned());
    }
    let property = |(name, value)| reapi::platform::Property { name, value };
    reapi::Platform { properties: properties.into_iter().map(property).collect() }
}

/// The Action. Its salt makes it the action of this attempt alone: no other attempt is answered by its result, and whoever
/// goes on with the attempt finds it by its digest. `longest`: of any action of this server.
pub fn action_message(
    task: &Task,
    command: &Command,
    (command_digest, input_root): (reapi::Digest, reapi::Digest),
    longest: Duration,
) -> reapi::Action {
    let timeout = task.timeout.min(longest).max(Duration::from_secs(1));
    reapi::Action {
        command_digest: Some(command_digest),
        input_root_digest: Some(input_root),
        timeout: Some(protobuf::Duration {
            seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            nanos: 0,
        }),
        do_not_cache: false,
        salt: format!("kiln pipeline {}", task.key).into_bytes(),
        platform: Some(platform(command)),
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{command, task};
    use super::*;
    use crate::pipelines::Work;

    #[test]
    fn messages_are_canonical_and_each_attempt_has_an_action_of_its_own() {
        let mut it = command("make");
        it.environment.insert("A".into(), "own".into());
        it.outputs = vec!["z".into(), "a".into()];
        it.reports = vec!["a".into()];
        it.network = true;
        it.image = Some("docker://alpine".into());
        let mut task = task(1, Work::Command(it.clone()));
        task.variables = BTreeMap::from([("A".into(), "run".into()), ("B".into(), "2".into())]);
        let message = command_message(&task, &it);
        assert_eq!(message.arguments, ["/bin/sh", "-euc", "exec 2>&1; make"]);
        assert_eq!(message.output_paths, ["a", "z"]);
        let variables: Vec<_> = message
            .environment_variables
            .iter()
            .map(|it| format!("{}={}", it.name, it.value))
            .collect();
        assert_eq!(variables, ["A=own", "B=2"]);
        let digest = |hash: &str| reapi::Digest { hash: hash.to_owned(), size_bytes: 1 };
        let day = Duration::from_secs(86_400);
        let first = action_message(&task, &it, (digest("c"), digest("r")), day);
        assert_eq!(first, action_message(&task, &it, (digest("c"), digest("r")), day));
        let names = first.platform.clone().unwrap().properties;
        let names: Vec<_> = names.iter().map(|it| format!("{}={}", it.name, it.value)).collect();
        assert_eq!(names, ["container-image=docker://alpine", "kiln-network=true"]);
        task.key.attempt = 2;
        assert_ne!(first, action_message(&task, &it, (digest("c"), digest("r")), day));
        task.timeout = 2 * day;
        let limited = action_message(&task, &it, (digest("c"), digest("r")), day).timeout.unwrap();
        assert_eq!((limited.seconds, limited.nanos), (86_400, 0));
    }

    #[test]
    fn secrets_and_network_are_refused_where_they_cannot_be_had() {
        let mut it = command("true");
        assert_eq!(check(&it, false), Ok(()));
        it.network = true;
        assert_eq!((check(&it, false), check(&it, true)), (Err(Unfit::Network), Ok(())));
        it.network = false;
        it.platform.insert(NETWORK.to_owned(), "true".to_owned());
        assert!(matches!(check(&it, true), Err(Unfit::Property(..))));
        it.platform.clear();
        it.secrets.insert("TOKEN".to_owned(), "deploy".to_owned());
        assert!(check(&it, true).unwrap_err().to_string().contains("\"deploy\""));
        let none = Command { program: Program::Arguments(vec![]), ..command("true") };
        assert_eq!(check(&none, true), Err(Unfit::NoProgram));
    }
}
