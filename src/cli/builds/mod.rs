//! `kiln build`.

mod diff;
mod failed;
mod list;
mod show;
mod summary;

use clap::{Args, Subcommand};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use list::list;
pub use show::last;

/// See builds: what ran, what was cached, where the time went.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln build list
  kiln build show 5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
  kiln build show 5f3c1e1a                        # where one build begins so
  kiln build show http://127.0.0.1:8980/builds/5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
  kiln build show last --failed
  kiln build show last --all --json
  kiln build diff 5f3c1e1a last                   # flags, outcomes, and what was not cached any more")]
pub struct BuildCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The newest builds
    List {
        /// Builds to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// One build and its slowest actions
    Show(show::Show),
    /// What differs between two builds
    Diff(diff::Diff),
}

impl BuildCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        match self.what {
            What::List { limit, json } => {
                let answer = api.get(&format!("/builds?limit={limit}")).await?;
                api::print(answer, json, list)?;
            }
            What::Show(show) => show.run(&api).await?,
            What::Diff(diff) => diff.run(&api).await?,
        }
        Ok(Exit::Done)
    }
}
