//! `kiln tests`: what runs of tests say, from files. No server is asked.

mod files;
mod import;
mod shards;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};

/// Cut a suite into shards, and read what test runners report.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests shards --durations .test_durations --shards 8
  kiln tests shards --durations .test_durations --target-time 5m --format json
  kiln tests import --junit report.xml --dry-run")]
pub struct TestsCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Shards(shards::Shards),
    Import(import::Import),
}

impl TestsCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::Shards(shards) => shards.run(),
            What::Import(import) => import.run(),
        }
    }
}
