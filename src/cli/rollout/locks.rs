//! `kiln rollout lock`, `unlock` and `locks`.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueHint};

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::Table;
use crate::config::parse_time;
use kiln_web::json::{DeployLock, DeployLocks, LockRequest, UnlockRequest};

/// Take the deploy lock of a service: no rollout begins there until it ends
///
/// A rollout that runs has the lock itself, and is not stopped: pause or abort it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout lock api --env prod --for 2h --reason 'a migration'")]
pub struct LockCommand {
    /// The service
    #[arg(value_name = "SERVICE", value_hint = ValueHint::Other)]
    service: String,
    /// Where
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    env: String,
    /// For how long, at most 30 days
    #[arg(long = "for", value_name = "TIME", value_parser = ValueParser::from(parse_time))]
    lasts: Duration,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Give a deploy lock back, whoever has it, also one whose record cannot be read
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout unlock api --env prod --reason 'the migration is done'")]
pub struct UnlockCommand {
    /// The service
    #[arg(value_name = "SERVICE", value_hint = ValueHint::Other)]
    service: String,
    /// Where
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    env: String,
    /// Why: it is in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// List deploy locks that somebody has
#[derive(Debug, Args)]
pub struct LocksCommand {
    /// For programs
    #[arg(long)]
    json: bool,
}

fn line(it: &DeployLock) -> String {
    let DeployLock { service, environment, owner, until, reason, .. } = it;
    format!("{service} in {environment}: {owner} until {until}: {reason}\n")
}

impl LockCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = LockRequest {
            service: self.service,
            environment: self.env,
            reason: self.reason,
            lasts_s: self.lasts.as_secs(),
        };
        let answer = Api::new(target)?.post("/locks", &request).await?;
        api::print(answer, self.json, line)?;
        Ok(Exit::Done)
    }
}

impl UnlockCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request =
            UnlockRequest { service: self.service, environment: self.env, reason: self.reason };
        let answer = Api::new(target)?.post("/locks/remove", &request).await?;
        api::print(answer, self.json, |it: &DeployLock| format!("given back: {}", line(it)))?;
        Ok(Exit::Done)
    }
}

impl LocksCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let answer = Api::new(target)?.get("/locks").await?;
        api::print(answer, self.json, |all: &DeployLocks| {
            if all.locks.is_empty() {
                return "nobody has a deploy lock\n".to_owned();
            }
            let mut table = Table::new(&["service", "environment", "owner", "until", "why"], &[]);
            for it in &all.locks {
                let cells = [&it.service, &it.environment, &it.owner, &it.until, &it.reason];
                table.row(cells.map(Clone::clone));
            }
            table.text("")
        })?;
        Ok(Exit::Done)
    }
}
