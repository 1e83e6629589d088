//! `kiln pipeline validate`.

use std::path::PathBuf;

use clap::Args;
use serde_json::json;

use super::inputs::declared;
use crate::cli::error::{CliError, Exit};
use crate::cli::text;
use kiln_web::format::counted;

/// Check files of pipelines, and say what is wrong with line and column
///
/// Keys and their values, stages that are needed, circles, values that texts ask for, schedules and their time zones. No server is
/// asked.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln pipeline validate kiln-pipeline.toml
  kiln pipeline validate pipelines/*.toml --json

Exit codes:
  0  all of them can be run
  2  one cannot; the message says where and why")]
pub struct ValidateCommand {
    /// The files, in TOML
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl ValidateCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        let mut valid = Vec::new();
        for file in &self.files {
            let (_, declared) = declared(file)?;
            let stages = declared.stages.len();
            let path = file.to_string_lossy().into_owned();
            valid.push(json!({ "file": path, "name": declared.name, "stages": stages }));
            if !self.json {
                text::print(&format!(
                    "{}: pipeline {:?}, {}\n",
                    file.display(),
                    declared.name,
                    counted(stages as u64, "stage")
                ))?;
            }
        }
        if self.json {
            text::print_json(&json!({ "valid": valid }))?;
        }
        Ok(Exit::Done)
    }
}
