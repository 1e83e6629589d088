//! Action and Command messages become what a sandbox runs and which outputs it leaves.

mod outputs;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use kiln_cas::action::Action;
use kiln_protos::reapi;

use self::outputs::{directories, output_spec, writable};
use crate::config::WorkerConfig;
use crate::failure::Failure;
use crate::images::{Image, ImageReference};
use crate::outputs::OutputSpec;
use crate::paths;
use crate::platform::{self, Persistent, Wishes};
use crate::sandbox::{CommandSpec, Conditions, Limits, RootFs};

/// The PATH of an action that declares none: Buck2 sends none.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// The timeout of an action where neither it nor its lease names one.
const FALLBACK_TIMEOUT: Duration = Duration::from_secs(3_600);

/// A command ready to run once its input root is there.
#[derive(Debug)]
pub struct Prepared {
    pub spec: CommandSpec,
    pub outputs: OutputSpec,
    /// The image that has to be fetched and [used](Self::use_image) before the command runs;
    /// `None`: it runs in none.
    pub image: Option<ImageReference>,
    /// The tool that may do the action's work; `None`: the action asks for no tool that stays
    /// between actions.
    pub persistent: Option<Persistent>,
}

impl Prepared {
    /// Takes the image's files as root, and those of its environment variables that the action does
    /// not set.
    pub fn use_image(&mut self, image: &Image) {
        self.spec.root = RootFs::Directory(image.root());
        let own: BTreeSet<Vec<u8>> =
            self.spec.environment.iter().map(|(name, _)| name.clone()).collect();
        let of_image =
            image.environment.iter().map(|(name, value)| (name.as_bytes(), value.as_bytes()));
        let added = of_image.filter(|(name, _)| !own.contains(*name));
        self.spec.environment.extend(added.map(|(name, value)| (name.to_vec(), value.to_vec())));
        add_path(&mut self.spec.environment);
    }
}

/// Checks the command and makes of it what the sandbox is to run; `spec.lower` is left empty.
/// `default_timeout`: for actions that name none; zero: there is no default, and the fallback
/// counts.
pub fn prepare(
    action: &Action,
    command: reapi::Command,
    default_timeout: Duration,
    config: &WorkerConfig,
) -> Result<Prepared, Failure> {
    check_arguments(&command)?;
    #[allow(deprecated, reason = "Buck2 and clients before REAPI 2.2 set the platform here only")]
    let wishes = Wishes::of(action.platform.as_ref().or(command.platform.as_ref()))?;
    if wishes.network && !config.allow_network {
        return Err(Failure::InvalidAction(
            "platform property kiln-network = \"true\": this worker grants no network".to_owned(),
        ));
    }
    if wishes.root == Some(RootFs::Host) && !platform::shows_machine(&config.root_fs) {
        return Err(Failure::InvalidAction(
            "platform property kiln-root = \"host\": this worker shows actions nothing of its machine \
             (workers.root); name strict or inputs, or no root"
                .to_owned(),
        ));
    }
    let working_directory = paths::resolve("", &command.working_directory)
        .map_err(|error| Failure::InvalidAction(format!("command.working_directory: {error}")))?;
    let outputs = output_spec(&command, &working_directory)?;
    // Of an image the path is not known yet.
    let own_root = if wishes.image.is_some() { RootFs::Empty } else { config.root_fs.clone() };
    let root = wishes.root.unwrap_or(own_root);
    let mut environment = environment(&command)?;
    if wishes.image.is_none() {
        add_path(&mut environment);
    }
    let spec = CommandSpec {
        environment,
        writable: writable(&root, &outputs),
        directories: directories(&working_directory, &outputs),
        arguments: command.arguments.into_iter().map(String::into_bytes).collect(),
        working_directory,
        lower: Vec::<PathBuf>::new(),
        root,
        network: wishes.network,
        timeout: chosen_timeout(action.timeout, default_timeout),
        limits: limits(&config.limits, wishes.memory_bytes),
        conditions: Conditions::default(),
    };
    Ok(Prepared { spec, outputs, image: wishes.image, persistent: wishes.persistent })
}

fn check_arguments(command: &reapi::Command) -> Result<(), Failure> {
    if command.arguments.first().is_none_or(String::is_empty) {
        return Err(Failure::InvalidAction(
            "command.arguments names no program: its first element is absent or empty".to_owned(),
        ));
    }
    match command.arguments.iter().position(|argument| argument.contains('\0')) {
        Some(index) => {
            Err(Failure::InvalidAction(format!("command.arguments[{index}] contains a NUL byte")))
        }
        None => Ok(()),
    }
}

/// An environment variable: its name and its value.
type Variable = (Vec<u8>, Vec<u8>);

fn add_path(environment: &mut Vec<Variable>) {
    if !environment.iter().any(|(name, _)| name == b"PATH") {
        environment.push((b"PATH".to_vec(), DEFAULT_PATH.into()));
    }
}

/// The environment variables that the command declares, and no others. Fails where a name is empty,
/// occurs twice or cannot be one.
fn environment(command: &reapi::Command) -> Result<Vec<Variable>, Failure> {
    let mut variables = Vec::with_capacity(command.environment_variables.len() + 1);
    let mut names = BTreeSet::new();
    for (index, variable) in command.environment_variables.iter().enumerate() {
        let name = &variable.name;
        let fault = match name.as_str() {
            "" => Some("has an empty name"),
            name if name.contains(['=', '\0']) => Some("has '=' or a NUL byte in its name"),
            _ if variable.value.contains('\0') => Some("has a NUL byte in its value"),
            _ if !names.insert(name) => Some("names a variable for the second time"),
            _ => None,
        };
        if let Some(fault) = fault {
            return Err(Failure::InvalidAction(format!(
                "command.environment_variables[{index}] ({:?}) {fault}",
                paths::shorten(name)
            )));
        }
        variables.push((name.clone().into_bytes(), variable.value.clone().into_bytes()));
    }
    Ok(variables)
}

fn chosen_timeout(of_action: Option<Duration>, default: Duration) -> Duration {
    of_action.unwrap_or(if default.is_zero() { FALLBACK_TIMEOUT } else { default })
}

/// The limits of an action that asks for `memory` bytes: it may lower the worker's memory limit,
/// not raise it.
fn limits(of_worker: &Limits, memory: Option<u64>) -> Limits {
    let memory_bytes = match (of_worker.memory_bytes, memory) {
        (Some(worker), Some(action)) => Some(worker.min(action)),
        (worker, action) => worker.or(action),
    };
    Limits { memory_bytes, ..of_worker.clone() }
}

#[cfg(test)]
#[allow(deprecated, reason = "the old fields are tested too")]
mod tests {
    use kiln_cas::DigestFunction;
    use kiln_protos::reapi::command::EnvironmentVariable;

    use super::*;
    use crate::outputs::OutputKind;

    fn action() -> Action {
        let digest = DigestFunction::Sha256.digest(b"");
        Action {
            command: digest,
            input_root: digest,
            timeout: None,
            platform: None,
            do_not_cache: false,
        }
    }

    fn prepared(command: reapi::Command) -> Result<Prepared, Failure> {
        let config = WorkerConfig::new("w", "/nowhere", 1);
        prepare(&action(), command, Duration::from_secs(7), &config)
    }

    fn command() -> reapi::Command {
        reapi::Command { arguments: vec!["true".into()], ..Default::default() }
    }

    fn variable(name: &str, value: &str) -> EnvironmentVariable {
        EnvironmentVariable { name: name.into(), value: value.into() }
    }

    #[test]
    fn only_path_is_added_to_the_environment_and_only_where_it_is_absent() {
        let bare = prepared(command()).unwrap().spec;
        assert_eq!(bare.environment, [(b"PATH".to_vec(), DEFAULT_PATH.into())]);
        let environment_variables = vec![variable("A", "b"), variable("PATH", "/x")];
        let own = prepared(reapi::Command { environment_variables, ..command() }).unwrap().spec;
        let expected = [(b"A".to_vec(), b"b".to_vec()), (b"PATH".to_vec(), b"/x".to_vec())];
        assert_eq!(own.environment, expected);
        assert!(!own.network);
        assert_eq!(own.timeout, Duration::from_secs(7));
    }

    #[test]
    fn parents_of_outputs_and_the_working_directory_are_created() {
        let output_paths = vec!["a/b/out".into(), "top".into()];
        let new = reapi::Command { output_paths, working_directory: "w".into(), ..command() };
        assert_eq!(prepared(new).unwrap().spec.directories, ["w", "w/a/b"]);
        let old = reapi::Command {
            output_files: vec!["x/file".into()],
            output_directories: vec!["y/tree".into()],
            ..command()
        };
        assert_eq!(prepared(old).unwrap().spec.directories, ["x", "y", "y/tree"]);
    }

    #[test]
    fn outputs_among_inputs_that_are_the_root_are_writable() {
        let platform = |root: &str| {
            let property =
                reapi::platform::Property { name: "kiln-root".into(), value: root.into() };
            Some(reapi::Platform { properties: vec![property] })
        };
        let writable = |root| {
            let output_paths = [".", "../..", "../../install"].map(str::to_owned).to_vec();
            let working_directory = "build/here".into();
            let platform = platform(root);
            let command = reapi::Command { output_paths, working_directory, platform, ..command() };
            prepared(command).unwrap().spec.writable
        };
        assert_eq!(writable("inputs"), ["build/here", "install"]);
        assert!(writable("host").is_empty());
    }

    #[test]
    fn an_action_cannot_see_more_of_the_machine_than_the_worker_shows() {
        let asked = |value: &str, default: RootFs| {
            let property =
                reapi::platform::Property { name: "kiln-root".into(), value: value.into() };
            let platform = Some(reapi::Platform { properties: vec![property] });
            let config = WorkerConfig { root_fs: default, ..WorkerConfig::new("w", "/nowhere", 1) };
            let command = reapi::Command { platform, ..command() };
            prepare(&action(), command, Duration::ZERO, &config).map(|prepared| prepared.spec.root)
        };
        for default in [RootFs::Empty, RootFs::Inputs] {
            let error = asked("host", default.clone()).unwrap_err();
            assert!(matches!(error, Failure::InvalidAction(_)));
            assert!(error.to_string().contains("workers.root"), "{error}");
            assert_eq!(asked("strict", default.clone()).unwrap(), RootFs::Empty);
            assert_eq!(asked("inputs", default).unwrap(), RootFs::Inputs);
        }
        assert_eq!(asked("host", RootFs::Host).unwrap(), RootFs::Host);
        assert_eq!(asked("strict", RootFs::Host).unwrap(), RootFs::Empty);
    }

    #[test]
    fn output_paths_replace_the_old_fields() {
        let both = reapi::Command {
            output_paths: vec!["new".into()],
            output_files: vec!["old".into()],
            ..command()
        };
        let declared: Vec<_> = prepared(both)
            .unwrap()
            .outputs
            .expected
            .into_iter()
            .map(|output| output.declared)
            .collect();
        assert_eq!(declared, ["new"]);
    }

    #[test]
    fn a_path_in_both_old_fields_may_become_either_and_is_not_created() {
        let output_files = ["w/file", "w/twice", "w/twice"].map(str::to_owned).to_vec();
        let output_directories = ["w/twice", "w/tree"].map(str::to_owned).to_vec();
        let both = reapi::Command { output_files, output_directories, ..command() };
        let prepared = prepared(both).unwrap();
        let kinds = prepared.outputs.expected.iter().map(|o| (o.declared.as_str(), o.kind));
        let expected = [
            ("w/file", OutputKind::File),
            ("w/tree", OutputKind::Directory),
            ("w/twice", OutputKind::Any),
        ];
        assert_eq!(kinds.collect::<Vec<_>>(), expected);
        assert_eq!(prepared.spec.directories, ["w", "w/tree"]);
    }

    #[test]
    fn what_cannot_run_is_refused_and_the_field_is_named() {
        let bad = [
            (reapi::Command::default(), "command.arguments names no program"),
            (
                reapi::Command { arguments: vec!["a".into(), "\0".into()], ..Default::default() },
                "command.arguments[1]",
            ),
            (
                reapi::Command { working_directory: "../x".into(), ..command() },
                "command.working_directory",
            ),
            (
                reapi::Command { output_paths: vec!["/etc/passwd".into()], ..command() },
                "command.output_paths[0]",
            ),
            (
                reapi::Command { output_files: vec!["../../x".into()], ..command() },
                "command.output_files[0]",
            ),
            (
                reapi::Command { output_paths: vec!["b".into(), "a/../b".into()], ..command() },
                "command.output_paths[1] = \"a/../b\"",
            ),
            (reapi::Command { output_paths: vec!["b/".into()], ..command() }, "empty segment"),
            (reapi::Command { output_paths: vec!["a//b".into()], ..command() }, "empty segment"),
            (reapi::Command { output_paths: vec!["a/./b".into()], ..command() }, "a/./b"),
            (
                reapi::Command { environment_variables: vec![variable("A=", "b")], ..command() },
                "command.environment_variables[0]",
            ),
            (
                reapi::Command {
                    environment_variables: vec![variable("A", "1"), variable("A", "2")],
                    ..command()
                },
                "second time",
            ),
        ];
        for (command, said) in bad {
            let error = prepared(command).unwrap_err();
            assert!(matches!(error, Failure::InvalidAction(_)));
            assert!(error.to_string().contains(said), "{error} lacks {said}");
        }
    }

    #[test]
    fn an_action_may_lower_the_memory_limit_only() {
        let worker = Limits { memory_bytes: Some(100), ..Default::default() };
        assert_eq!(limits(&worker, Some(50)).memory_bytes, Some(50));
        assert_eq!(limits(&worker, Some(500)).memory_bytes, Some(100));
        assert_eq!(limits(&Limits::default(), Some(5)).memory_bytes, Some(5));
    }
}
