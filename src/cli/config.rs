//! `kiln config`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use crate::cli::error::{CliError, Exit};
use crate::cli::process::settings;
use crate::cli::text;
use crate::config::{default_toml, serve_options, shown, status_server_options, worker_options};
use crate::serve::Admission;

/// Print configuration keys, their values and where those come from.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln config default > kiln.toml
  kiln config check --config kiln.toml
  kiln config show --config kiln.toml
  KILN_STORAGE_LEASE=24h kiln config show --json")]
pub struct ConfigCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// A commented file with every key at its default
    Default,
    /// Say what `kiln serve` and `kiln worker` would refuse; nothing is started or written
    Check {
        /// Configuration file (TOML)
        #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// The values in force and their origins
    Show {
        /// Configuration file (TOML)
        #[arg(long, env = "KILN_CONFIG", value_name = "FILE")]
        config: Option<PathBuf>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
}

impl ConfigCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        match self.what {
            What::Default => text::print(&default_toml())?,
            What::Check { config } => check(config.as_ref())?,
            What::Show { config, json } => show(config.as_ref(), json)?,
        }
        Ok(Exit::Done)
    }
}

/// Reads what a start would read, files of certificates and access included.
fn check(file: Option<&PathBuf>) -> Result<(), CliError> {
    let settings = settings(file, Vec::new())?;
    let options = serve_options(&settings)?;
    worker_options(&settings)?;
    status_server_options(&settings)?;
    Admission::load(&options.listen, options.tls, options.auth)?;
    text::print("the configuration can be used\n")
}

fn show(file: Option<&PathBuf>, json: bool) -> Result<(), CliError> {
    let settings = settings(file, Vec::new())?;
    if json {
        let all: serde_json::Map<String, serde_json::Value> = settings
            .iter()
            .map(|(key, setting)| {
                let value = serde_json::json!({
                    "value": shown(key, setting),
                    "origin": setting.origin.to_string(),
                });
                (key.name.to_owned(), value)
            })
            .collect();
        return text::print_json(&all);
    }
    let lines = settings.iter().map(|(key, setting)| {
        format!("{:<34} {:<44} {}\n", key.name, shown(key, setting), setting.origin)
    });
    text::print(&lines.collect::<String>())
}
