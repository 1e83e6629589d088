//! `kiln rollout`: rollouts, as far as no server is needed for them.

mod parts;
mod plan;
mod signals;
mod traffic;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};

/// Look at what a rollout would do.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout plan rollout.toml
  kiln rollout plan rollout.toml --json")]
pub struct RolloutCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    Plan(plan::PlanCommand),
    Signals(signals::SignalsCommand),
    Traffic(traffic::TrafficCommand),
}

impl RolloutCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::Plan(plan) => plan.run(),
            What::Signals(signals) => signals.run(),
            What::Traffic(traffic) => traffic.run(),
        }
    }
}
