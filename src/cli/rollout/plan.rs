//! `kiln rollout plan`.

use std::path::PathBuf;

use clap::Args;
use kiln_deploy::rollouts::plan::{self, Plan, PlannedStep};

use super::declared;
use crate::cli::error::{CliError, Exit};
use crate::cli::text::{self, Look, Table, look};

/// Show, step by step, what a rollout would do.
///
/// Reads its declaration and does nothing: how many targets have the new version in each step, which share of the
/// requests it gets, when the step begins at the earliest, and what was rounded.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout plan rollout.toml
  kiln rollout plan rollout.toml --json | jq '.steps[0].targets'

A declaration (docs/rollouts.md has every key):
  name = \"api\"
  targets = 40
  steps = [1, 10, 50, 100]
  bake = \"10m\"
  soak = \"1h\"")]
pub struct PlanCommand {
    /// The declaration, in TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl PlanCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        let (_, declared) = declared::read(&self.file)?;
        let plan = plan::plan(&declared);
        match self.json {
            true => text::print_json(&plan)?,
            false => text::print(&written(&plan))?,
        }
        Ok(Exit::Done)
    }
}

fn written(plan: &Plan) -> String {
    let mut table = Table::new(
        &["step", "begins", "targets", "new", "traffic", "compared", "bakes", ""],
        &[1, 2, 3, 4, 5, 6],
    );
    plan.steps.iter().for_each(|step| table.row(row(step, plan.targets)));
    let head = format!("{}: {}, {} targets\n", plan.name, plan.strategy, plan.targets);
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

fn row(step: &PlannedStep, all: usize) -> [String; 8] {
    let traffic =
        step.traffic.map_or_else(|| "as targets".to_owned(), |share| format!("{share} %"));
    let gate = step.gate.then(|| "a person lets it in".to_owned());
    let words: Vec<_> = gate.into_iter().chain(step.note.clone()).collect();
    [
        step.name.clone(),
        format!("+{}", time(step.begins_s)),
        format!("{} of {all}", step.targets),
        format!("+{}", step.added),
        traffic,
        step.compared.to_string(),
        time(step.bake_s),
        words.join("; "),
    ]
}

/// In its two largest units: `1h 30m`.
fn time(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let mut rest = seconds;
    let mut parts = Vec::new();
    for (unit, size) in units {
        if rest >= size {
            parts.push(format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    parts.truncate(2);
    if parts.is_empty() { "0s".to_owned() } else { parts.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_short() {
        let shown: Vec<_> = [0, 59, 600, 5_400, 90_061].into_iter().map(time).collect();
        assert_eq!(shown, ["0s", "59s", "10m", "1h 30m", "1d 1h"]);
    }
}
