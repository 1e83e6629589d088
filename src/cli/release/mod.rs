//! `kiln release`: releases, as far as no server is needed for them.

mod verify;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};

/// Verify a release without a network.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release verify app-1.4 --key release.pub
  kiln release verify app-1.4 --key keys.json --source git+https://git.example/app --level 3")]
pub struct ReleaseCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Verify(verify::Verify),
}

impl ReleaseCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::Verify(verify) => verify.run(),
        }
    }
}
