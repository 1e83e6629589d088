//! `kiln rollout list` and `show`.

use clap::{Args, ValueHint};

use crate::cli::api::{self, Api, plain};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Look, Table, look, names};
use kiln_web::format::counted;
use kiln_web::json::{RolloutLook, RolloutShown, RolloutSummary, Rollouts};

/// The most reasons of one look that are printed.
const MAX_REASONS: usize = 5;
/// The most targets that are named.
const MAX_NAMES: usize = 5;

/// List rollouts, newest first
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout list
  kiln rollout list --limit 200 --json | jq '.rollouts[] | select(.phase == \"rolled_back\")'")]
pub struct ListCommand {
    /// How many
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// Only those before this one
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other)]
    before: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Show one rollout: its steps, what the judge says and why, and targets that are not there yet
///
/// The exit code says how it stands.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout show m9x2kq41c7ab
  kiln rollout show m9x2kq41c7ab --json | jq .reverted_s

Exit codes:
  0  all targets have it
  1  it was reverted or rejected, or is being reverted
  6  it goes on, or waits")]
pub struct ShowCommand {
    /// The rollout
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl ListCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let before = self.before.map(|it| format!("&before={}", plain(&it))).unwrap_or_default();
        let path = format!("/rollouts?limit={}{before}", self.limit);
        let answer = Api::new(target)?.get(&path).await?;
        api::print(answer, self.json, listed)?;
        Ok(Exit::Done)
    }
}

impl ShowCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let answer = Api::new(target)?.get(&format!("/rollouts/{}", plain(&self.id))).await?;
        let read: RolloutShown = api::read(answer.clone())?;
        api::print(answer, self.json, text)?;
        Ok(exit(&read))
    }
}

/// The exit code of a command about a rollout in this phase.
pub fn exit(it: &RolloutShown) -> Exit {
    match it.rollout.phase.as_str() {
        "succeeded" => Exit::Done,
        "rolling_back" | "rolled_back" | "rollback_failed" | "rejected" | "overtaken" => {
            Exit::Negative
        }
        _ => Exit::Code(6),
    }
}

fn listed(all: &Rollouts) -> String {
    if all.rollouts.is_empty() {
        return "nothing was rolled out yet\n".to_owned();
    }
    let mut table =
        Table::new(&["rollout", "release", "where", "phase", "targets", "began", "by"], &[]);
    for it in &all.rollouts {
        table.row([
            it.id.clone(),
            it.release.clone(),
            format!("{} in {}", it.service, it.environment),
            phase(it),
            format!("{} of {}", it.changed, it.targets),
            it.started.clone(),
            it.by.clone(),
        ]);
    }
    table.text("")
}

/// The phase of a rollout in words, with whether it is paused or a drill.
pub fn phase(it: &RolloutSummary) -> String {
    let paused = if it.paused { ", paused" } else { "" };
    let drill = if it.drill_s.is_some() { ", a drill" } else { "" };
    format!("{}{paused}{drill}", it.phase.replace('_', " "))
}

/// A rollout with its steps and targets, as text for people.
pub fn text(it: &RolloutShown) -> String {
    let one = &it.rollout;
    let how = match exit(it) {
        Exit::Done => Look::Good,
        Exit::Negative => Look::Bad,
        _ => Look::Busy,
    };
    let mut text = format!(
        "{}  {} for {} in {}: {}\n",
        one.id,
        one.release,
        one.service,
        one.environment,
        look(how, &phase(one))
    );
    text += &format!("  began {} by {}: {}\n", one.started, one.by, one.reason);
    let previous = one.previous.as_deref().unwrap_or("nothing: it is the first");
    text += &format!("  returns to {previous}\n");
    let mut table = Table::new(&["step", "targets", "traffic", "bakes", ""], &[]);
    for step in &it.steps {
        let traffic =
            step.traffic.map_or_else(|| "as targets".to_owned(), |share| format!("{share} %"));
        let gate = if step.gate { ", a person lets it in" } else { "" };
        table.row([
            step.name.clone(),
            format!("{} of {}", step.targets, one.targets),
            traffic,
            format!("{} s", step.bake_s),
            format!("{}{gate}{}", step.standing, anew(&step.fresh)),
        ]);
    }
    text += &table.text("  ");
    if let Some(sets) = &it.sets {
        text += &format!("  requests go from {} to {}\n", sets.live, sets.idle);
    }
    if let Some(down) = it.crowded {
        let down = counted(down as u64, "target");
        let waits = format!("waits: down are {down}, which is as many as may be");
        text += &format!("  {}\n", look(Look::Bad, &waits));
    }
    for (what, said) in [
        ("next decision at the earliest", &it.next),
        ("reverted after", &it.deadline),
        ("waits", &it.waits_for),
        ("paused", &it.paused_why),
        ("reverted because", &it.why),
    ] {
        if let Some(said) = said {
            text += &format!("  {what}: {said}\n");
        }
    }
    if let Some(took) = it.reverted_s {
        text += &format!("  reverted within {took:.1} s\n");
    }
    if let Some(latest) = it.judgements.first().or(it.latest.as_ref()) {
        text += &said(latest);
    }
    for target in it.told.iter().filter(|it| it.standing != "settled").take(20) {
        text += &format!("  {}: {}\n", target.name, look(Look::Bad, &target.standing));
    }
    text
}

/// The targets that are started anew with a step, to be compared with; empty where there are none.
fn anew(fresh: &[String]) -> String {
    match fresh.is_empty() {
        true => String::new(),
        false => format!(", started anew: {}", names(fresh, MAX_NAMES)),
    }
}

/// The judgement of one look, on a few lines.
pub fn said(it: &RolloutLook) -> String {
    let how = match it.verdict.as_str() {
        "promote" => Look::Good,
        "rollback" => Look::Bad,
        _ => Look::Busy,
    };
    let (verdict, canary) = (look(how, &it.verdict), counted(it.canary as u64, "target"));
    let mut text = format!("  judged {}: {verdict}, {canary} with {}\n", it.at, it.baseline);
    for reason in it.reasons.iter().take(MAX_REASONS) {
        text += &format!("    {reason}\n");
    }
    text
}
