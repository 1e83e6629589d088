//! `kiln rollout drill`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::{declared, watch};
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Look, look};
use kiln_web::json::{RolloutRequest, RolloutShown};

/// Prove that a bad canary would be reverted in time
///
/// Rolls a release out to the first step of a declaration, has the judge be told that its canary crashes, and waits until
/// what ran before is back. The release need not stand in the environment, and is blamed for nothing. With `drill_every` in a
/// declaration nothing is rolled out where no drill has passed for so long.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout drill rollout.toml --release team/app:1.4.1 --env prod --reason 'every month'

Exit codes:
  0  it was reverted within drill_budget
  1  it was not")]
pub struct DrillCommand {
    /// The declaration, in TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// A release that is not the one that runs there
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    release: ReleaseName,
    /// Where
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    env: String,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// What to return to, where no rollout has ended well there yet
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    previous: Option<ReleaseName>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl DrillCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (declared, _) = declared::read(&self.file)?;
        let request = RolloutRequest {
            declared,
            release: self.release.to_string(),
            environment: self.env,
            reason: self.reason,
            supersede: false,
            again: false,
            drill: true,
            without_drill: false,
            previous: self.previous.map(|it| it.to_string()),
        };
        let answer = Api::new(target)?.patient().post("/rollouts", &request).await?;
        let started: RolloutShown = api::read(answer)?;
        let api = Api::new(target)?;
        let id = &started.rollout.id;
        watch::until(&api, id, watch::Until::End, self.json).await?;
        let ended: RolloutShown = api::read(api.get(&format!("/rollouts/{id}")).await?)?;
        let Some(drill) = ended.drill else {
            return Err(CliError::answered("the server does not say how the drill went")
                .hint("are server and command of the same version?"));
        };
        if !self.json {
            let said = match drill.passed {
                true => look(Look::Good, "the drill passed"),
                false => look(Look::Bad, "the drill FAILED"),
            };
            let time = |seconds: Option<f64>| {
                seconds.map_or_else(|| "never".to_owned(), |it| format!("{it:.1} s"))
            };
            let (fired, restored) = (time(drill.fired_s), time(drill.restored_s));
            text::print(&format!(
                "{said}: found after {fired}, restored after {restored} more; {} s were allowed\n",
                drill.budget_s
            ))?;
        }
        Ok(if drill.passed { Exit::Done } else { Exit::Negative })
    }
}
