//! `kiln promote`.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Look, look};
use crate::config::parse_time;
use kiln_web::json::{GateReason, PromotionAnswer, PromotionRequest};

/// The exit code when a gate is undecided.
const WAITS: u8 = 6;

/// Promote a release to an environment
///
/// The policy of the environment is asked: who signed, where it was built from, how long it stood in the environment before,
/// whose approval it has, and more (docs/promotion.md). Everything that stands in the way is said at once. The content is the same
/// in each environment: what moves is a pointer to its digest.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln promote team/app:1.4.2 --to prod --dry-run
  kiln promote team/app:1.4.2 --to prod --reason 'release of June'
  kiln promote team/app:1.4.2 --to prod --wait 24h    # done by the server as soon as it may be
  kiln promote team/app:1.4.2 --to prod --automation  # in a pipeline: never again what was rolled back

Exit codes:
  0  promoted, or it stands there already; of a dry run: it would be
  1  refused
  6  it waits, or has to")]
pub struct PromoteCommand {
    /// The release
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    /// Where to
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    to: String,
    /// Why: it is kept with the promotion and in the audit log
    #[arg(long, value_name = "TEXT", default_value = "", value_hint = ValueHint::Other)]
    reason: String,
    /// Let it wait so long, if it cannot be done at once: the server does it then. It takes the place of what waits for that
    /// environment already
    #[arg(long, value_name = "TIME", value_parser = ValueParser::from(parse_time))]
    wait: Option<Duration>,
    /// Only say what would be met
    #[arg(long, conflicts_with = "wait")]
    dry_run: bool,
    /// Although it was rolled back there
    #[arg(long, conflicts_with = "automation")]
    again: bool,
    /// It is a program that asks, and no person
    #[arg(long)]
    automation: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl PromoteCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = PromotionRequest {
            environment: self.to,
            release: self.name.to_string(),
            reason: self.reason,
            again: self.again,
            automation: self.automation,
            dry_run: self.dry_run,
            wait_s: self.wait.map(|it| it.as_secs()),
        };
        // Checks take their time.
        let answer = Api::new(target)?.patient().post("/promotions", &request).await?;
        let read: PromotionAnswer = api::read(answer.clone())?;
        api::print(answer, self.json, shown)?;
        Ok(exit(&read))
    }
}

fn exit(it: &PromotionAnswer) -> Exit {
    match it.outcome.as_str() {
        "promoted" | "already" | "would_be" => Exit::Done,
        "waits" | "not_now" => Exit::Code(WAITS),
        _ => Exit::Negative,
    }
}

fn shown(it: &PromotionAnswer) -> String {
    let (release, environment) = (&it.release, &it.environment);
    let generation = it.placed.as_ref().map_or(0, |it| it.generation);
    let until = it.until.as_deref().unwrap_or_default();
    let mut text = match it.outcome.as_str() {
        "promoted" => format!("{release} is promoted to {environment}, generation {generation}\n"),
        "already" => {
            format!("{release} stands in {environment} already, generation {generation}\n")
        }
        "would_be" => format!("{release} would be promoted to {environment}\n"),
        "waits" => format!("{release} waits to be promoted to {environment}, until {until}\n"),
        "not_now" => format!("{release} cannot be promoted to {environment} now\n"),
        _ => format!("{release} is refused in {environment}\n"),
    };
    it.reasons.iter().for_each(|it| text += &line(it));
    text
}

/// One gate of a promotion as one line.
pub fn line(it: &GateReason) -> String {
    let how = match it.standing.as_str() {
        "met" => Look::Good,
        "refused" => Look::Bad,
        _ => Look::Busy,
    };
    let until = it.until.as_ref().map(|it| format!(" (until {it})")).unwrap_or_default();
    let standing = look(how, &format!("{:7}", it.standing));
    format!("  {standing}  {:11}  {}{until}\n", it.gate.replace('_', " "), it.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_said_and_have_exit_codes() {
        let answer = |outcome: &str| PromotionAnswer {
            environment: "prod".to_owned(),
            release: "a:1".to_owned(),
            outcome: outcome.to_owned(),
            placed: None,
            until: None,
            reasons: Vec::new(),
        };
        for (outcome, code) in [
            ("promoted", Exit::Done),
            ("would_be", Exit::Done),
            ("waits", Exit::Code(6)),
            ("not_now", Exit::Code(6)),
            ("refused", Exit::Negative),
        ] {
            assert_eq!(exit(&answer(outcome)), code);
        }
        assert_eq!(shown(&answer("refused")), "a:1 is refused in prod\n");
    }
}
