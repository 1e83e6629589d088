//! `kiln pipeline list`.

use clap::{Args, ValueHint};

use super::show::run_stands;
use crate::cli::api::{self, Api, plain};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{Table, one_line};
use kiln_web::json::Pipelines;

/// List runs, newest first, and the pipelines that the server's operator declares
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline list
  kiln pipeline list --limit 200 --json | jq '.runs[] | select(.stands == \"failed\")'")]
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

impl ListCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let before = self.before.map(|it| format!("&before={}", plain(&it))).unwrap_or_default();
        let answer =
            Api::new(target)?.get(&format!("/pipelines?limit={}{before}", self.limit)).await?;
        api::print(answer, self.json, listed)?;
        Ok(Exit::Done)
    }
}

fn listed(all: &Pipelines) -> String {
    let mut text = String::new();
    for it in &all.declared {
        let next = it.next.as_ref().map(|at| format!(", next at {at}")).unwrap_or_default();
        text += &format!("{} is declared{next}: {}\n", it.name, one_line(&it.description));
    }
    if all.runs.is_empty() {
        return text + "nothing has run yet\n";
    }
    let mut table = Table::new(
        &["run", "pipeline", "stands", "passed", "trigger", "branch", "began", "by"],
        &[],
    );
    for it in &all.runs {
        table.row([
            it.id.clone(),
            it.pipeline.clone(),
            run_stands(it),
            format!("{} of {}", it.passed, it.stages),
            it.trigger.clone(),
            it.branch.clone(),
            it.created.clone(),
            it.by.clone(),
        ]);
    }
    text + &table.text("")
}
