//! `kiln pipeline cancel`, `resume`, `abandon`, `approve` and `refuse`.

use clap::{Args, ValueHint};

use super::show::summary;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::{PipelineAbandon, PipelineSaid, PipelineSay};

#[derive(Debug, Args)]
pub struct SayCommand {
    /// The run
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Give up a run whose records cannot be read, where it stands: the next one of its group has its turn
///
/// Cancel one that can be read. What runs of this one is not cancelled: it ends by itself, or when its time is over.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline abandon mdx2kq41c7ab --reason 'its history was lost with a disk'")]
pub struct AbandonCommand {
    /// The run
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// Why: it is kept, and in the audit log
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
pub struct JudgeCommand {
    /// The run
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    id: String,
    /// The stage [default: the one that waits for people]
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    stage: Option<String>,
    /// Why: it is kept, and in the audit log. To refuse takes one
    #[arg(long, value_name = "TEXT", default_value = "", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl SayCommand {
    pub async fn run(self, target: &Target, what: PipelineSaid) -> Result<Exit, CliError> {
        let say = PipelineSay { id: self.id, what, stage: None, reason: self.reason };
        told(target, &say, self.json).await
    }
}

impl AbandonCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let request = PipelineAbandon { id: self.id, reason: self.reason };
        let answer = Api::new(target)?.post("/pipelines/abandon", &request).await?;
        let text = |it: &PipelineAbandon| format!("{} is given up: its place is free\n", it.id);
        api::print(answer, self.json, text)?;
        Ok(Exit::Done)
    }
}

impl JudgeCommand {
    pub async fn run(self, target: &Target, what: PipelineSaid) -> Result<Exit, CliError> {
        let say = PipelineSay { id: self.id, what, stage: self.stage, reason: self.reason };
        told(target, &say, self.json).await
    }
}

async fn told(target: &Target, say: &PipelineSay, json: bool) -> Result<Exit, CliError> {
    let answer = Api::new(target)?.post("/pipelines/say", say).await?;
    api::print(answer, json, summary)?;
    Ok(Exit::Done)
}
