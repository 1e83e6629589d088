//! `kiln pipeline explain`.

use std::path::PathBuf;

use clap::{Args, ValueHint};
use kiln_ci::pipelines::{Begun, Explained, ExplainedStage, explain, lay_out};
use kiln_net::causes::chain;

use super::inputs::{declared, pair, values};
use crate::cli::error::{CliError, Exit};
use crate::cli::text::{self, Look, Table, look};
use kiln_web::format::counted;

/// Stages that one needs and that are named.
const MAX_NAMES: usize = 4;

/// Show what a run would do, and do nothing
///
/// Matrices are laid out and conditions decided: which stages run and which are left out and why, which of them may run at the same
/// time, and the critical path, by the limits of time of its stages.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline explain kiln-pipeline.toml
  kiln pipeline explain kiln-pipeline.toml --branch main --input version=1.4.2
  kiln pipeline explain kiln-pipeline.toml --trigger schedule --json | jq .critical")]
pub struct ExplainCommand {
    /// The file, in TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// As if it were begun so
    #[arg(long, value_name = "TRIGGER", default_value = "manual", value_parser = ["manual", "push", "schedule", "release", "webhook"])]
    trigger: String,
    /// As if it were of this branch
    #[arg(long, value_name = "NAME", default_value = "", value_hint = ValueHint::Other)]
    branch: String,
    /// A value of an input
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair, value_hint = ValueHint::Other)]
    input: Vec<(String, String)>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ExplainCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        let (_, declared) = declared(&self.file)?;
        let begun = Begun {
            id: "RUN".to_owned(),
            trigger: self.trigger,
            branch: self.branch,
            by: "you".to_owned(),
            inputs: values(self.input)?,
            ..Begun::default()
        };
        let laid = lay_out(&declared, &begun).map_err(|error| {
            CliError::usage(chain(&error))
                .hint("inputs are given as --input NAME=VALUE; docs/pipelines.md has every key")
        })?;
        let explained = explain(&declared, &laid);
        match self.json {
            true => text::print_json(&explained)?,
            false => text::print(&written(&explained))?,
        }
        Ok(Exit::Done)
    }
}

fn written(it: &Explained) -> String {
    let (run, out): (Vec<_>, Vec<_>) = it.stages.iter().partition(|it| it.left_out.is_none());
    let head = format!("{}: {}\n", it.name, counted(run.len() as u64, "stage"));
    let mut table = Table::new(&["", "stage", "kind", "at most", "needs", ""], &[0, 3]);
    let mut sorted = run;
    sorted.sort_by_key(|it| it.wave);
    sorted.iter().for_each(|it| table.row(row(it)));
    let mut text = look(Look::Bold, &head) + &table.text("  ");
    for it in out {
        let why = it.left_out.as_deref().unwrap_or_default();
        text += &format!("  {} is left out: {why}\n", text::one_line(&it.name));
    }
    if let Some(group) = &it.group {
        text += &format!("takes turns with runs of {:?}\n", text::one_line(group));
    }
    let path = it.critical.iter().map(|it| text::one_line(it)).collect::<Vec<_>>().join(" -> ");
    text += &format!("critical path, {} s at most: {path}\n", it.at_most_s);
    text
}

fn row(it: &ExplainedStage) -> [String; 6] {
    let name = match it.critical {
        true => look(Look::Busy, &format!("{} *", it.name)),
        false => it.name.clone(),
    };
    [
        it.wave.to_string(),
        name,
        it.kind.to_owned(),
        format!("{} s", it.timeout_s),
        text::names(&it.needs, MAX_NAMES),
        it.notes.join("; "),
    ]
}
