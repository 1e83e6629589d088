//! `kiln rollout pause`, `resume`, `promote`, `abort` and `abandon`.

use clap::{Args, ValueHint};

use super::show::text;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{RolloutAbandon, RolloutSaid, RolloutSay};

#[derive(Debug, Args)]
pub struct SayCommand {
    /// The rollout
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Give up one whose records cannot be read, where it stands: nothing is reverted, and its place is free
///
/// Abort one that can be read. Targets keep what they were told last, and balancers the shares that they have: look after
/// both, or start the next rollout.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout abandon m9x2kq41c7ab --reason 'its log was lost with a disk'")]
pub struct AbandonCommand {
    /// The rollout
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl AbandonCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = RolloutAbandon { id: self.id, reason: self.reason };
        let answer = Api::new(target)?.post("/rollouts/abandon", &request).await?;
        let text = |it: &RolloutAbandon| format!("{} is given up: its place is free\n", it.id);
        api::print(answer, self.json, text)?;
        Ok(Exit::Done)
    }
}

impl SayCommand {
    pub async fn run(self, target: &Target, what: RolloutSaid) -> Result<Exit, CliError> {
        let request = RolloutSay { id: self.id, what, reason: self.reason };
        let answer = Api::new(target)?.post("/rollouts/say", &request).await?;
        api::print(answer, self.json, text)?;
        Ok(Exit::Done)
    }
}
