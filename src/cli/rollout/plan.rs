//! `kiln rollout plan`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueHint};
use kiln_deploy::rollouts::plan::{self, Declared, Plan, PlannedStep, Targets};
use kiln_net::counts::duration;
use kiln_web::format::counted;
use kiln_web::json::{RolloutPlanRequest, RolloutPlanned};

use super::declared;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::target::Target;
use crate::cli::text::{self, Look, Table, look};

/// The most targets that are named.
const MAX_NAMES: usize = 20;

/// Show, step by step, what a rollout would do.
///
/// Reads its declaration and does nothing: how many targets have the new version in each step, which share of the
/// requests it gets, when the step begins at the earliest, and what was rounded. With --env a server says besides which
/// targets these are, which of them are down, who is started anew to be compared with, and whether two sets have room.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout plan rollout.toml
  kiln rollout plan rollout.toml --json | jq '.steps[0].targets'
  kiln --server https://kiln.example rollout plan rollout.toml --env prod

A declaration (docs/rollouts.md has every key):
  name = \"api\"
  targets = 40
  steps = [1, 10, 50, 100]
  bake = \"10m\"
  soak = \"1h\"

Exit codes:
  0  that would happen
  1  with --env: there is no room for both versions")]
pub struct PlanCommand {
    /// The declaration, in TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Ask the server about the targets that are there
    #[arg(long, value_name = "ENVIRONMENT", value_hint = ValueHint::Other)]
    env: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PlanCommand {
    pub fn run(self, target: impl FnOnce() -> Result<Target, CliError>) -> Result<Exit, CliError> {
        let (text, declared) = declared::read(&self.file)?;
        if let Some(environment) = self.env {
            let request = RolloutPlanRequest { declared: text, environment };
            return block_on(asked(&target()?, &request, self.json));
        }
        let plan = plan::plan(&declared);
        match self.json {
            true => text::print_json(&plan)?,
            false => text::print(&format!("{}{}", written(&plan), anew(&declared, &plan)))?,
        }
        Ok(Exit::Done)
    }
}

async fn asked(
    target: &Target,
    request: &RolloutPlanRequest,
    json: bool,
) -> Result<Exit, CliError> {
    let answer = Api::new(target)?.post("/rollouts/plan", request).await?;
    let planned: RolloutPlanned = api::read(answer.clone())?;
    // The server's: its operator may let fewer targets be down than the declaration does.
    let plan: Plan = api::read(planned.plan.clone())?;
    api::print(answer, json, |it: &RolloutPlanned| {
        format!("{}{}", written(&plan), found(it, &plan))
    })?;
    let lacks = planned.sets.is_some_and(|it| it.lacks.is_some());
    Ok(if lacks { Exit::Negative } else { Exit::Done })
}

/// The targets that are started anew in each step, where targets have names.
fn anew(declared: &Declared, plan: &Plan) -> String {
    let Targets::Named(all) = &declared.targets else { return String::new() };
    let step = |step: &PlannedStep| {
        let fresh = all.get(step.anew(all.len())).unwrap_or_default();
        let line =
            || format!("started anew with {}: {}\n", step.name, text::names(fresh, MAX_NAMES));
        (!fresh.is_empty()).then(line)
    };
    plan.steps.iter().filter_map(step).collect()
}

/// The targets that a server found for the plan, as text.
fn found(it: &RolloutPlanned, plan: &Plan) -> String {
    let mut text = format!("targets: {}\n", text::names(&it.targets, MAX_NAMES));
    for (step, fresh) in plan.steps.iter().zip(&it.fresh).filter(|(_, fresh)| !fresh.is_empty()) {
        text += &format!("started anew with {}: {}\n", step.name, text::names(fresh, MAX_NAMES));
    }
    if let Some(sets) = &it.sets {
        let (live, idle) = (&sets.live, &sets.idle);
        text += &format!(
            "{live} serves, with {}; {idle} gets the release: {} of {} answer, {} have to\n",
            counted(sets.live_targets as u64, "target"),
            sets.heard,
            sets.idle_targets,
            sets.needed
        );
        if let Some(lacks) = &sets.lacks {
            text += &format!("{} {lacks}\n", look(Look::Bad, "refused:"));
        }
    }
    for down in it.down.iter().take(MAX_NAMES) {
        text += &format!("{} {}: {}\n", look(Look::Bad, "down:"), down.name, down.why);
    }
    text
}

fn written(plan: &Plan) -> String {
    let mut table = Table::new(
        &["step", "begins", "targets", "new", "waves", "traffic", "compared", "bakes", ""],
        &[1, 2, 3, 4, 5, 6, 7],
    );
    plan.steps.iter().for_each(|step| table.row(row(step, plan.targets)));
    let most =
        plan.unavailable.map(|it| format!(", at most {it} down at once")).unwrap_or_default();
    let beside = if plan.beside { " beside those that serve" } else { "" };
    let targets = counted(plan.targets as u64, "target");
    let head = format!("{}: {}, {targets}{beside}{most}\n", plan.name, plan.strategy);
    let warning = |warning: &String| format!("{} {warning}\n", look(Look::Busy, "note:"));
    format!(
        "{}{}soaks {}; done after {} at the earliest, reverted after {}\n{}",
        look(Look::Bold, &head),
        table.text("  "),
        time(plan.soak_s),
        time(plan.least_s),
        time(plan.deadline_s),
        plan.warnings.iter().map(warning).collect::<String>(),
    )
}

fn row(step: &PlannedStep, all: usize) -> [String; 9] {
    let traffic =
        step.traffic.map_or_else(|| "as targets".to_owned(), |share| format!("{share} %"));
    let gate = step.gate.then(|| "a person lets it in".to_owned());
    let fresh = (step.fresh > 0).then(|| format!("{} with the old version start anew", step.fresh));
    let words: Vec<_> = gate.into_iter().chain(fresh).chain(step.note.clone()).collect();
    [
        step.name.clone(),
        format!("+{}", time(step.begins_s)),
        format!("{} of {all}", step.targets),
        format!("+{}", step.added),
        step.waves.to_string(),
        traffic,
        step.compared.to_string(),
        time(step.bake_s),
        words.join("; "),
    ]
}

fn time(seconds: u64) -> String {
    duration(Duration::from_secs(seconds))
}
