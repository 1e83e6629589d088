//! `kiln pipeline show` and `log`.

use clap::{Args, ValueHint};

use crate::cli::api::{self, Api, plain};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Look, Table, look, one_line};
use kiln_web::json::{PipelineLog, PipelineRun, PipelineShown, PipelineStage};

/// The exit code of a command about a run that has not ended.
const GOES_ON: u8 = 6;

/// Show one run: its stages, what they wait for, and its critical path
///
/// The exit code says how it stands. Stages with a * are on the critical path.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline show mdx2kq41c7ab
  kiln pipeline show mdx2kq41c7ab --json | jq '.stages[] | select(.critical) | .name'

Exit codes:
  0  it passed
  1  it failed, was cancelled, or another run took its place
  6  it goes on, or waits")]
pub struct ShowCommand {
    /// The run
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Print what a stage printed
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline log mdx2kq41c7ab --stage build
  kiln pipeline log mdx2kq41c7ab --stage 'test (os=linux)' --attempt 1")]
pub struct LogCommand {
    /// The run
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// The stage
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    stage: String,
    /// The attempt at the stage [default: the last one]
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    attempt: Option<u32>,
}

impl ShowCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let answer = Api::new(target)?.get(&format!("/pipelines/{}", plain(&self.id))).await?;
        let shown: PipelineShown = api::read(answer.clone())?;
        api::print(answer, self.json, summary)?;
        Ok(exit(&shown))
    }
}

impl LogCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        let path = format!("/pipelines/{}", plain(&self.id));
        let shown: PipelineShown = api::read(api.get(&path).await?)?;
        let found = shown.stages.iter().position(|it| it.name == self.stage);
        let at = found.ok_or_else(|| {
            CliError::not_found(format!("there is no stage {:?} in this run", self.stage))
                .hint("`kiln pipeline show` says which there are")
        })?;
        let attempts = shown.stages.get(at).map_or(0, |it| it.attempts);
        let attempt = self.attempt.unwrap_or(attempts.max(1));
        let mut offset = 0;
        loop {
            let query = format!("{path}/log?stage={at}&attempt={attempt}&offset={offset}");
            let part: PipelineLog = api::read(api.get(&query).await?)?;
            if part.text.is_empty() {
                return Ok(Exit::Done);
            }
            text::print(&part.text)?;
            offset = part.next;
        }
    }
}

/// The exit code of a command about a run in this state.
pub fn exit(it: &PipelineShown) -> Exit {
    match it.passed() {
        Some(true) => Exit::Done,
        Some(false) => Exit::Negative,
        None => Exit::Code(GOES_ON),
    }
}

pub fn is_end(it: &PipelineStage) -> bool {
    matches!(
        it.stands.as_str(),
        "passed" | "failed" | "left_out" | "not_needed" | "blocked" | "cancelled"
    )
}

fn coloured(stands: &str) -> String {
    let how = match stands {
        "passed" => Look::Good,
        "failed" | "blocked" | "cancelled" | "superseded" => Look::Bad,
        "waiting" | "left_out" | "not_needed" | "queued" => Look::Dim,
        _ => Look::Busy,
    };
    look(how, &stands.replace('_', " "))
}

/// How a stage stands, in colour.
pub fn stands(it: &PipelineStage) -> String {
    coloured(&it.stands)
}

pub fn run_stands(it: &PipelineRun) -> String {
    coloured(&it.stands)
}

/// A run with all its stages, as text for people.
pub fn summary(it: &PipelineShown) -> String {
    let run = &it.run;
    let mut text = format!(
        "{}  {} {}, {} of {} stages passed, {:.1} s\n",
        run.id,
        one_line(&run.pipeline),
        run_stands(run),
        run.passed,
        run.stages,
        it.took_s
    );
    let branch = if run.branch.is_empty() { String::new() } else { format!(", {}", run.branch) };
    text += &format!("  {} by {}{}\n", run.trigger, one_line(&run.by), one_line(&branch));
    if let Some(why) = &it.stopped {
        text += &format!("  {}\n", one_line(why));
    }
    let mut table = Table::new(&["stage", "kind", "stands", "attempts", "took", ""], &[3, 4]);
    for stage in &it.stages {
        let mark = if stage.critical { " *" } else { "" };
        let took = match stage.started {
            Some(_) => format!("{:.1} s", stage.took_s),
            None => String::new(),
        };
        table.row([
            format!("{}{mark}", stage.name),
            stage.kind.clone(),
            stands(stage),
            stage.attempts.to_string(),
            took,
            stage.reason.clone().unwrap_or_default(),
        ]);
    }
    text + &table.text("  ")
}
