//! `kiln agent tell` and `remove`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::show::Named;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{AgentOrder, FleetRemoval, FleetTelling};

/// Tell one agent what to run, whatever a rollout has told it
///
/// For hosts that no rollout looks after, and for emergencies: what a rollout says with a newer deploy lock counts again. It is
/// noted in the audit log, and takes the role release-manager or admin.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln agent tell api prod web-1 team/app:1.4.2 --reason 'first installation'")]
pub struct Tell {
    #[command(flatten)]
    agent: Named,
    #[arg(value_name = "RELEASE", value_hint = ValueHint::Other)]
    release: ReleaseName,
    /// Why
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Have the server forget an agent, and free its name
///
/// An agent that still runs registers again with its next report. It takes the role admin.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln agent remove api prod web-1")]
pub struct Remove {
    #[command(flatten)]
    agent: Named,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Tell {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let Named { service, environment, name } = self.agent;
        let release = self.release.to_string();
        let host = name.clone();
        let asked = FleetTelling { service, environment, name, release, reason: self.reason };
        let answer = Api::new(target)?.post("/fleet/tell", &asked).await?;
        api::print(answer, self.json, |it: &AgentOrder| {
            let generation = format!("{}.{}", it.generation.fence, it.generation.change);
            format!("{host} is told to run {}, generation {generation}\n", asked.release)
        })?;
        Ok(Exit::Done)
    }
}

impl Remove {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let Named { service, environment, name } = self.agent;
        let asked = FleetRemoval { service, environment, name };
        let answer = Api::new(target)?.post("/fleet/remove", &asked).await?;
        api::print(answer, self.json, |it: &FleetRemoval| format!("{} is forgotten\n", it.name))?;
        Ok(Exit::Done)
    }
}
