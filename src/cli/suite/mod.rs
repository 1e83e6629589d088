//! `kiln tests`: what runs of tests say, from files. No server is asked.

mod import;
mod shards;

use std::fs::File;
use std::io::Read;
use std::path::Path;

use clap::{Args, Subcommand};

use super::{CliError, Exit};

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

/// What stands for standard input.
const STDIN: &str = "-";

/// A file that the user named, or standard input.
fn open(path: &Path) -> Result<Box<dyn Read>, CliError> {
    if path.as_os_str() == STDIN {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    match File::open(path) {
        Ok(file) => Ok(Box::new(file)),
        Err(error) => Err(CliError::usage(format!("cannot open {}: {error}", path.display()))),
    }
}

/// How a file is named in messages.
fn shown(path: &Path) -> String {
    if path.as_os_str() == STDIN { "standard input".to_owned() } else { path.display().to_string() }
}
