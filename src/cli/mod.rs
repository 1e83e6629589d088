//! The command line. Errors become message, cause and hint here, and nowhere earlier.

mod actions;
mod agent;
mod api;
mod audit;
mod builds;
mod cas;
mod ci;
mod config;
mod digest;
mod error;
mod explain;
mod flags;
mod health;
mod hermeticity;
mod impact;
mod index;
mod judge;
mod man;
mod pipeline;
mod preview;
mod process;
mod promotion;
mod queue;
mod release;
mod rollout;
mod say;
mod serve;
mod signals;
mod status;
mod suite;
mod target;
mod text;
mod token;
mod workers;

use std::process::ExitCode;

use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser, Subcommand};

use error::{CliError, Exit};
use process::block_on;

/// Remote execution and caching for Bazel and Buck2, and what follows: tests, merges, releases, rollouts.
#[derive(Debug, Parser)]
#[command(name = "kiln", version, max_term_width = 100, after_help = EXAMPLES)]
pub struct Cli {
    #[command(flatten)]
    target: target::TargetOptions,

    #[command(subcommand)]
    command: Command,
}

const EXAMPLES: &str = "\
Examples:
  kiln serve
  bazel build --remote_executor=grpc://127.0.0.1:8980 //...
  kiln status
  kiln action show 7f3a...e1/142
  kiln --server https://build.example:8980 --token-file ~/.kiln-token status

Exit codes:
  0  done
  1  not found, a difference was found, no plan is quick enough, a gate is red, a merge queue or a
     promotion is refused, a release is not verified, a canary has to be rolled back, a rollout was
     reverted, or a pipeline did not pass
  2  the command line or the configuration is wrong
  3  the server cannot be reached
  4  the server answered with an error
  5  this machine cannot do it (port in use, data in use, disk, sandbox)
  6  a gate or a canary is undecided, a promotion has to wait, or a rollout or a
     pipeline goes on
  7  nothing is left of a plan for this runner";

#[derive(Debug, Subcommand)]
enum Command {
    Serve(serve::Serve),
    Worker(workers::WorkerCommand),
    Agent(Box<agent::AgentCommand>),
    Status(status::StatusCommand),
    Health(health::HealthCommand),
    Build(builds::BuildCommand),
    Action(actions::ActionCommand),
    Hermeticity(hermeticity::HermeticityCommand),
    Audit(audit::AuditCommand),
    Cas(cas::CasCommand),
    Index(index::IndexCommand),
    Impact(impact::ImpactCommand),
    Tests(suite::TestsCommand),
    Ci(ci::CiCommand),
    Queue(queue::QueueCommand),
    Release(release::ReleaseCommand),
    Promote(promotion::PromoteCommand),
    Rollback(promotion::RollbackCommand),
    Approve(promotion::ApproveCommand),
    Freeze(promotion::FreezeCommand),
    Env(promotion::EnvironmentCommand),
    Preview(preview::PreviewCommand),
    Explain(explain::ExplainCommand),
    Judge(judge::JudgeCommand),
    Rollout(rollout::RolloutCommand),
    Pipeline(pipeline::PipelineCommand),
    Token(token::TokenCommand),
    Config(config::ConfigCommand),
    Man(man::ManCommand),
    /// Print a completion script for a shell.
    Completions {
        shell: clap_complete::Shell,
    },
}

/// Commands that ask no server: flags that say which one are neither shown nor taken there.
const LOCAL: [&str; 12] = [
    "serve",
    "index",
    "impact",
    "judge",
    "pipeline validate",
    "pipeline explain",
    "rollout signals",
    "rollout traffic",
    "token",
    "config",
    "man",
    "completions",
];

/// Runs the command line of this process.
pub fn run() -> ExitCode {
    let matches = command().get_matches();
    let named = names_server(&matches);
    let done = refuse_client_flags(&matches).and_then(|()| {
        dispatch(Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit()), named)
    });
    match done {
        Ok(exit) => exit.into(),
        Err(error) => error.report(),
    }
}

/// The whole command line.
fn command() -> clap::Command {
    let mut command = Cli::command();
    // Hands flags that are common to client commands on to every command.
    command.build();
    command.mut_subcommands(|command| where_local(command, ""))
}

/// `above`: the commands that it is one of, each with a space behind it.
fn where_local(command: clap::Command, above: &str) -> clap::Command {
    let name = format!("{above}{}", command.get_name());
    match LOCAL.contains(&&*name) {
        true => without_client_flags(command),
        false => command.mut_subcommands(|inner| where_local(inner, &format!("{name} "))),
    }
}

fn without_client_flags(command: clap::Command) -> clap::Command {
    let hidden = |arg: clap::Arg| match target::FLAGS.contains(&arg.get_id().as_str()) {
        true => arg.hide(true),
        false => arg,
    };
    command.mut_args(hidden).mut_subcommands(without_client_flags)
}

fn refuse_client_flags(matches: &ArgMatches) -> Result<(), CliError> {
    let (mut name, mut inner) = (String::new(), matches);
    while !LOCAL.contains(&&*name) {
        let Some((next, below)) = inner.subcommand() else { return Ok(()) };
        name = format!("{name} {next}").trim_start().to_owned();
        inner = below;
    }
    let given = |flag: &&&str| inner.value_source(flag) == Some(ValueSource::CommandLine);
    let Some(flag) = target::FLAGS.iter().find(given) else { return Ok(()) };
    let flag = flag.replace('_', "-");
    let message =
        format!("--{flag} is for commands that ask a server, and `kiln {name}` asks none");
    Err(CliError::usage(message).hint(format!("`kiln {name} --help` prints what it takes")))
}

/// Whether the command line itself says which server is meant.
fn names_server(matches: &ArgMatches) -> bool {
    let mut inner = matches;
    while let Some((_, below)) = inner.subcommand() {
        inner = below;
    }
    inner.value_source("server") == Some(ValueSource::CommandLine)
}

/// `named`: the command line says which server is meant.
fn dispatch(cli: Cli, named: bool) -> Result<Exit, CliError> {
    match cli.command {
        Command::Serve(command) => command.run(),
        Command::Worker(command) => command.run(&cli.target.targets()?),
        Command::Agent(command) => command.run(cli.target.targets()?),
        Command::Status(command) => block_on(command.run(&cli.target.target()?)),
        Command::Health(command) => block_on(command.run(&cli.target.target()?)),
        Command::Build(command) => block_on(command.run(&cli.target.target()?)),
        Command::Action(command) => block_on(command.run(&cli.target.target()?)),
        Command::Hermeticity(command) => block_on(command.run(&cli.target.target()?)),
        Command::Audit(command) => block_on(command.run(|| cli.target.target())),
        Command::Cas(command) => block_on(command.run(&cli.target.target()?)),
        Command::Index(command) => block_on(command.run()),
        Command::Impact(command) => block_on(command.run()),
        Command::Tests(command) => block_on(command.run(|| cli.target.target())),
        Command::Ci(command) => block_on(command.run(&cli.target.target()?)),
        Command::Queue(command) => block_on(command.run(named, cli.target)),
        Command::Release(command) => block_on(command.run(|| cli.target.target())),
        Command::Explain(command) => block_on(command.run(&cli.target.target()?)),
        Command::Judge(command) => command.run(),
        Command::Rollout(command) => command.run(|| cli.target.target()),
        Command::Pipeline(command) => command.run(|| cli.target.target()),
        Command::Promote(command) => block_on(command.run(&cli.target.target()?)),
        Command::Rollback(command) => block_on(command.run(&cli.target.target()?)),
        Command::Approve(command) => block_on(command.run(&cli.target.target()?)),
        Command::Freeze(command) => block_on(command.run(&cli.target.target()?)),
        Command::Env(command) => block_on(command.run(&cli.target.target()?)),
        Command::Preview(command) => block_on(command.run(&cli.target.target()?)),
        Command::Token(command) => command.run(),
        Command::Config(command) => command.run(),
        Command::Man(command) => command.run(self::command()),
        Command::Completions { shell } => {
            // To stdout directly it would panic when nobody reads to the end.
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut command(), "kiln", &mut script);
            text::print(&String::from_utf8_lossy(&script))?;
            Ok(Exit::Done)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_of_client_commands_are_those_that_are_listed() {
        let client: Vec<_> = Cli::command()
            .get_arguments()
            .filter(|arg| arg.is_global_set())
            .map(|arg| arg.get_id().to_string())
            .collect();
        assert_eq!(client, target::FLAGS);
        command().debug_assert();
    }
}
