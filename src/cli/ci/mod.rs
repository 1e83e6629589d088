//! `kiln ci`.

mod command_line;
mod run;
mod told;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;

/// Run builds for a pipeline
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln ci run -- bazel test //...
  kiln ci run --base origin/main --wait 15m -- bazel test --config=ci //...")]
pub struct CiCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Run(run::Run),
}

impl CiCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let What::Run(command) = self.what;
        command.run(target).await
    }
}
