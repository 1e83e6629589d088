//! `kiln freeze`.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, Subcommand, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::changed;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::config::parse_time;
use kiln_web::json::{Said, SayRequest};

/// Hold an environment, or break the glass
///
/// While an environment is held, or in a freeze window of its policy, nothing is promoted to it; rollbacks go on. Two people of the
/// group that the policy names in break_glass can let one release through all the same.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln freeze hold prod --for 2h --reason 'database is moved'
  kiln freeze lift prod --reason 'moved'
  kiln freeze override team/app:1.4.3 --to prod --for 1h --reason 'fixes the outage'
  kiln freeze confirm team/app:1.4.3 --to prod --reason 'read the change'   # somebody else")]
pub struct FreezeCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Let nothing be promoted to an environment
    Hold(Hold),
    /// Let things be promoted again
    Lift(Lift),
    /// Ask that a release may be promoted in spite of freezes and holds
    Override(Override),
    /// Say, as a second person, that it may
    Confirm(Confirm),
}

#[derive(Debug, Args)]
struct Why {
    /// Why: it is in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Hold {
    #[arg(value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    environment: String,
    /// How long; without, until it is lifted
    #[arg(long = "for", value_name = "TIME", value_parser = ValueParser::from(parse_time))]
    lasts: Option<Duration>,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Lift {
    #[arg(value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    environment: String,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Override {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    to: String,
    /// How long; at most a day
    #[arg(long = "for", value_name = "TIME", default_value = "1h", value_parser = ValueParser::from(parse_time))]
    lasts: Duration,
    #[command(flatten)]
    why: Why,
}

#[derive(Debug, Args)]
struct Confirm {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    to: String,
    #[command(flatten)]
    why: Why,
}

impl What {
    fn request(self) -> (SayRequest, bool) {
        let request =
            |environment, what, release: Option<ReleaseName>, lasts: Option<Duration>, why: Why| {
                let request = SayRequest {
                    environment,
                    what,
                    release: release.map(|it| it.to_string()),
                    reason: why.reason,
                    lasts_s: lasts.map(|it| it.as_secs()),
                };
                (request, why.json)
            };
        match self {
            Self::Hold(it) => request(it.environment, Said::Hold, None, it.lasts, it.why),
            Self::Lift(it) => request(it.environment, Said::Lift, None, None, it.why),
            Self::Override(it) => {
                request(it.to, Said::AskOverride, Some(it.name), Some(it.lasts), it.why)
            }
            Self::Confirm(it) => request(it.to, Said::ConfirmOverride, Some(it.name), None, it.why),
        }
    }
}

impl FreezeCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (request, json) = self.what.request();
        let answer = Api::new(target)?.post("/promotions/say", &request).await?;
        api::print(answer, json, changed)?;
        Ok(Exit::Done)
    }
}
