//! `kiln release provenance`.

use clap::{Args, ValueHint};
use kiln_deploy::releases::ReleaseName;

use super::show::path;
use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use kiln_web::json::ReleaseProvenance;

/// Show where a release comes from: each action, each source
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln release provenance team/app:1.4
  kiln release provenance team/app:1.4 --json | jq .provenance
  kiln release provenance team/app:1.4 --skip 1000      # further lines")]
pub struct Provenance {
    #[arg(value_name = "NAME", value_hint = ValueHint::Other)]
    name: ReleaseName,
    /// Lines of the closure that are left out
    #[arg(long, value_name = "N", default_value_t = 0)]
    skip: usize,
    /// Most lines
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=1000))]
    limit: u32,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Provenance {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let path = path("provenance", target, &self.name);
        let path = format!("{path}&skip={}&limit={}", self.skip, self.limit);
        api::print(Api::new(target)?.get(&path).await?, self.json, text)?;
        Ok(Exit::Done)
    }
}

fn text(it: &ReleaseProvenance) -> String {
    let mut text = format!("{} {}\n", it.name, it.digest);
    for line in &it.closure {
        let word = |name: &str| line.get(name).and_then(|it| it.as_str()).unwrap_or_default();
        let first = || {
            let outputs = line.get("outputs").and_then(|it| it.as_object());
            outputs.and_then(|it| it.keys().next().cloned()).unwrap_or_default()
        };
        text += &match word("kind") {
            "executed" => format!(
                "executed  {} {} -> {} (action {}, worker {})\n",
                word("mnemonic"),
                word("target"),
                first(),
                word("action"),
                word("worker")
            ),
            "written" => format!("written   {} (by {})\n", first(), word("by")),
            "source" => format!("source    {} {}\n", word("path"), word("digest")),
            _ => format!("missing   {} {}\n", word("path"), word("directory")),
        };
    }
    if let Some(skip) = it.next_skip {
        text += &format!("more with --skip {skip}\n");
    }
    text
}
