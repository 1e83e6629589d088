//! `kiln audit`.

mod log;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::hermeticity::HermeticityCommand;
use crate::cli::target::Target;

/// Print what operators, people and policies did
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln audit log
  kiln audit log --limit 500 --json
  kiln audit log --check")]
pub struct AuditCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Log(log::Log),
    /// As `kiln hermeticity` was called before: scripts may still say so.
    #[command(hide = true)]
    Hermeticity(HermeticityCommand),
}

impl AuditCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        match self.what {
            What::Log(command) => command.run(target).await,
            What::Hermeticity(command) => command.run(target).await,
        }
    }
}
