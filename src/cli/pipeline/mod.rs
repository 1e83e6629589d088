//! `kiln pipeline`: stages from sources to hosts.

mod explain;
mod inputs;
mod list;
mod run;
mod say;
mod show;
mod validate;
mod watch;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::target::Target;
use kiln_web::json::PipelineSaid;

/// Run a pipeline: stages that need each other, from building to rolling out
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline validate kiln-pipeline.toml
  kiln pipeline explain kiln-pipeline.toml --branch main
  kiln pipeline run kiln-pipeline.toml --source . --input version=1.4.2
  kiln pipeline show mdx2kq41c7ab
  kiln pipeline approve mdx2kq41c7ab --stage sign-off
  kiln pipeline resume mdx2kq41c7ab --reason 'the disk was full'")]
pub struct PipelineCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Validate(validate::ValidateCommand),
    Explain(explain::ExplainCommand),
    #[command(flatten)]
    Asks(Asks),
}

/// What a server is asked.
#[derive(Debug, Subcommand)]
enum Asks {
    Run(run::RunCommand),
    Watch(watch::WatchCommand),
    List(list::ListCommand),
    Show(show::ShowCommand),
    Log(show::LogCommand),
    /// End a run: what runs of it is cancelled, and what has not begun never does
    Cancel(say::SayCommand),
    /// Do again what did not pass of a run that has ended; what passed is not repeated
    Resume(say::SayCommand),
    Abandon(say::AbandonCommand),
    /// Let a run go on that waits for people
    Approve(say::JudgeCommand),
    /// Let the stage fail that waits for people
    Refuse(say::JudgeCommand),
}

impl PipelineCommand {
    /// `target`: the server, which only some of them ask.
    pub fn run(self, target: impl FnOnce() -> Result<Target, CliError>) -> Result<Exit, CliError> {
        match self.what {
            What::Validate(it) => it.run(),
            What::Explain(it) => it.run(),
            What::Asks(asks) => block_on(asks.run(&target()?)),
        }
    }
}

impl Asks {
    async fn run(self, target: &Target) -> Result<Exit, CliError> {
        match self {
            Self::Run(it) => it.run(target).await,
            Self::Watch(it) => it.run(target).await,
            Self::List(it) => it.run(target).await,
            Self::Show(it) => it.run(target).await,
            Self::Log(it) => it.run(target).await,
            Self::Cancel(it) => it.run(target, PipelineSaid::Cancel).await,
            Self::Resume(it) => it.run(target, PipelineSaid::Resume).await,
            Self::Abandon(it) => it.run(target).await,
            Self::Approve(it) => it.run(target, PipelineSaid::Approve).await,
            Self::Refuse(it) => it.run(target, PipelineSaid::Refuse).await,
        }
    }
}
