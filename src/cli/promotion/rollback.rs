//! `kiln rollback`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{PlacedRelease, RollbackRequest};

/// Return to the release that stood in an environment before
///
/// It happens at once: no freeze, hold, approval or promotion that waits holds it up. Without --to it is the last release that
/// stood there long enough (settle, in the policy) and was neither rejected nor rolled back. What is replaced is not promoted there
/// again unless a person says --again.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollback --env prod --reason 'errors since noon'
  kiln rollback --env prod --to team/app:1.4.0 --reason 'the last one with the old schema'")]
pub struct RollbackCommand {
    /// Where
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    env: String,
    /// A release that stood there
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    to: Option<ReleaseName>,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// It is a program that asks, and no person: it never rolls back what was rolled back to
    #[arg(long)]
    automation: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl RollbackCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = RollbackRequest {
            environment: self.env.clone(),
            to: self.to.map(|it| it.to_string()),
            reason: self.reason,
            automation: self.automation,
        };
        let answer = Api::new(target)?.post("/promotions/rollback", &request).await?;
        let shown = |it: &PlacedRelease| {
            format!("{} is back in {}, generation {}\n", it.release, self.env, it.generation)
        };
        api::print(answer, self.json, shown)?;
        Ok(Exit::Done)
    }
}
