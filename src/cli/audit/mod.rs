//! `kiln audit`.

mod log;
mod verify;

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
  kiln audit export > audit.jsonl
  kiln audit verify audit.jsonl --key server.pub")]
pub struct AuditCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    #[command(visible_alias = "list")]
    Log(log::Log),
    Export(verify::Export),
    Verify(verify::Verify),
    /// As `kiln hermeticity` was called before: scripts may still say so.
    #[command(hide = true)]
    Hermeticity(HermeticityCommand),
}

impl AuditCommand {
    pub async fn run(
        self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        match self.what {
            What::Log(command) => command.run(&target()?).await,
            What::Export(command) => command.run(&target()?).await,
            // A file is verified without any server.
            What::Verify(command) => command.run(target).await,
            What::Hermeticity(command) => command.run(&target()?).await,
        }
    }
}
