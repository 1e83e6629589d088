//! `kiln rollout start`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::{declared, watch};
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{RolloutRequest, RolloutShown};

/// Roll a release out
///
/// The server drives it from then on, whoever goes away: step by step, watched by the signals that the declaration names, and
/// reverted on a breach. The release has to stand in the environment (`kiln promote`), be signed, and not be rejected.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout start rollout.toml --release team/app:1.4.2 --env prod --reason 'release of June'
  kiln rollout start rollout.toml --release team/app:1.4.2 --env prod --reason 'June' --wait
  kiln rollout start rollout.toml --release team/app:1.4.3 --env prod --reason 'a fix' --supersede

Exit codes:
  0  it began; with --wait: all targets have it
  1  with --wait: it was reverted, or rejected
  4  refused: the release does not stand there, something is rolled out or locked, a freeze holds
  6  with --wait: it waits for a person")]
pub struct StartCommand {
    /// The declaration, in TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The release
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    release: ReleaseName,
    /// Where
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    env: String,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// Revert what is being rolled out there, and begin when it is
    #[arg(long)]
    supersede: bool,
    /// Although it was reverted there
    #[arg(long)]
    again: bool,
    /// Although a drill is overdue there: that is in the audit log, with the reason
    #[arg(long)]
    without_drill: bool,
    /// What to return to, where no rollout has ended well there yet
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    previous: Option<ReleaseName>,
    /// Wait until it ends, or needs a person
    #[arg(long)]
    wait: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl StartCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (declared, _) = declared::read(&self.file)?;
        let request = RolloutRequest {
            declared,
            release: self.release.to_string(),
            environment: self.env,
            reason: self.reason,
            supersede: self.supersede,
            again: self.again,
            drill: false,
            without_drill: self.without_drill,
            previous: self.previous.map(|it| it.to_string()),
        };
        let api = Api::new(target)?;
        // All that was signed is verified.
        let answer = Api::new(target)?.patient().post("/rollouts", &request).await?;
        let started: RolloutShown = api::read(answer.clone())?;
        if self.wait {
            return watch::until(&api, &started.rollout.id, watch::Until::Person, self.json).await;
        }
        let id = &started.rollout.id;
        api::print(answer, self.json, |it: &RolloutShown| {
            let where_ = format!("{} in {}", it.rollout.service, it.rollout.environment);
            format!("{id}: {} is rolled out to {where_}\n", it.rollout.release)
        })?;
        Ok(Exit::Done)
    }
}
