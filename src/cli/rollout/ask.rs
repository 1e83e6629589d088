//! `kiln rollout pause`, `resume`, `promote` and `abort`.

use clap::{Args, ValueHint};

use super::show::text;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{RolloutSaid, RolloutSay};

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

impl SayCommand {
    pub async fn run(self, target: &Target, what: RolloutSaid) -> Result<Exit, CliError> {
        let request = RolloutSay { id: self.id, what, reason: self.reason };
        let answer = Api::new(target)?.post("/rollouts/say", &request).await?;
        api::print(answer, self.json, text)?;
        Ok(Exit::Done)
    }
}
