//! `kiln approve`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::changed;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{Said, SayRequest};

/// Stand for a release in an environment
///
/// An approval is for the content that the name stands for now, and for one environment. Whether it counts says the policy: of a
/// group, and never of whoever made the release.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln approve team/app:1.4.2 --for prod --reason 'tried by hand'
  kiln approve team/app:1.4.2 --for prod --withdraw --reason 'found a leak'")]
pub struct ApproveCommand {
    /// The release
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    /// The environment that the release may be promoted to
    #[arg(long = "for", value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    environment: String,
    /// Why: it is kept with the promotion and in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_hint = ValueHint::Other)]
    reason: String,
    /// Take it back
    #[arg(long)]
    withdraw: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl ApproveCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = SayRequest {
            environment: self.environment,
            what: if self.withdraw { Said::Withdraw } else { Said::Approve },
            release: Some(self.name.to_string()),
            reason: self.reason,
            lasts_s: None,
        };
        let answer = Api::new(target)?.post("/promotions/say", &request).await?;
        api::print(answer, self.json, changed)?;
        Ok(Exit::Done)
    }
}
