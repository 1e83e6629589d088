//! `kiln tests`: what runs of tests say, from files and from a server.

pub mod asking;
pub mod changed;
mod files;
mod flakes;
pub mod gate;
mod import;
mod known;
mod list;
mod next;
mod plan;
mod quarantine;
mod refused;
mod send;
mod shards;
mod show;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;

/// See how tests do and what failures mean, cut a suite into shards, and read what test runners report.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests list --outcome failing --sort failures
  kiln tests show //app/parser:parser_test
  kiln tests shards --durations .test_durations --shards 8
  kiln tests shards //app:all_test --shards 8 --format gtest
  kiln tests shards --durations .test_durations --target-time 5m --format json
  kiln tests import --junit report.xml --commit \"$(git rev-parse HEAD)\"
  kiln tests next --plan \"$RUN_ID\" --runner \"$NODE\" --format pytest
  kiln tests flakes
  kiln tests gate --invocation 5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
  kiln tests quarantine list")]
pub struct TestsCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    List(list::List),
    Show(show::Show),
    Flakes(flakes::ShowFlakes),
    Shards(shards::Shards),
    Next(next::Next),
    Plan(plan::ShowPlan),
    Import(import::Import),
    Gate(gate::GateCommand),
    Quarantine(quarantine::QuarantineCommand),
}

impl TestsCommand {
    /// `target` is asked for only where a server is.
    pub async fn run(
        self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        match self.what {
            What::List(list) => list.run(&target()?).await,
            What::Show(show) => show.run(&target()?).await,
            What::Flakes(flakes) => flakes.run(&target()?).await,
            What::Shards(shards) => shards.run(target).await,
            What::Next(next) => next.run(&target()?).await,
            What::Plan(plan) => plan.run(&target()?).await,
            What::Import(import) => import.run(target).await,
            What::Gate(gate) => gate.run(&target()?).await,
            What::Quarantine(quarantine) => quarantine.run(&target()?).await,
        }
    }
}
