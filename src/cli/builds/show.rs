//! `kiln build show`.

use clap::builder::NonEmptyStringValueParser;
use clap::{Args, ValueHint};

use super::failed::{failed, indented};
use super::summary::summary;
use crate::cli::actions::rows::row;
use crate::cli::api::{self, Api};
use crate::cli::digest::invocation;
use crate::cli::error::CliError;
use crate::cli::text::{self, Look, Table, look, one_line};
use kiln_web::format::{duration, encode, short};
use kiln_web::json::{Build, Builds, Execution, Executions, Running};

/// Most entries that one request of the API answers.
const PAGE: usize = 1000;
/// Lines shown of what an action that runs has printed.
const LIVE_LINES: usize = 4;

#[derive(Debug, Args)]
pub struct Show {
    /// The invocation id that Bazel or Buck2 printed, its beginning or the address of its page;
    /// `last`: of the newest build
    #[arg(value_hint = ValueHint::Other, value_parser = NonEmptyStringValueParser::new())]
    invocation: String,
    /// Show the actions that failed, each with the end of its log
    #[arg(long, conflicts_with = "all")]
    failed: bool,
    /// List all actions in the order in which they ended
    #[arg(long)]
    all: bool,
    /// Slowest actions to list
    #[arg(long, default_value_t = 5, value_name = "N")]
    slowest: usize,
    /// For programs: the build with all its executions
    #[arg(long)]
    json: bool,
}

impl Show {
    pub async fn run(self, api: &Api) -> Result<(), CliError> {
        let invocation = match self.invocation.as_str() {
            "last" => last(api).await?,
            named => invocation(named),
        };
        let mut build = api.get(&format!("/builds/{}", encode(&invocation, true))).await?;
        // The whole id where only its beginning was given.
        let invocation = build["invocation_id"].as_str().unwrap_or(&invocation).to_owned();
        let executions = executions(api, &invocation).await?;
        if self.json {
            build["executions"] = serde_json::Value::Array(executions);
            return text::print(&format!("{build:#}\n"));
        }
        let executions: Vec<Execution> = api::read(executions.into())?;
        let build: Build = api::read(build)?;
        let mut shown = summary(&build) + &running(&build.operations);
        shown +=
            &if self.failed { failed(api, &executions).await? } else { self.actions(&executions) };
        text::print(&shown)
    }

    fn actions(&self, newest_first: &[Execution]) -> String {
        let mut listed: Vec<&Execution> = newest_first.iter().rev().collect();
        let title = if self.all {
            "all actions"
        } else {
            listed.retain(|run| run.origin == "executed" && !run.cancelled);
            listed.sort_by_key(|run| std::cmp::Reverse(run.timeline.run_ns()));
            listed.truncate(self.slowest);
            "slowest actions"
        };
        if listed.is_empty() {
            return String::new();
        }
        let mut table = Table::new(&["ran for", "ended", "what", "action"], &[0]);
        listed.iter().for_each(|run| table.row(row(run)));
        format!("  {}\n{}", look(Look::Bold, title), table.text("    "))
    }
}

/// Lines about operations that run or wait, with the end of what each has printed; empty where
/// there are none.
fn running(operations: &[Running]) -> String {
    if operations.is_empty() {
        return String::new();
    }
    let mut text = format!("  {}\n", look(Look::Bold, "running and waiting"));
    for one in operations {
        let operation = &one.operation;
        let time = duration(operation.for_ms.saturating_mul(1_000_000));
        let target =
            if operation.target.is_empty() { "(no target named)" } else { &operation.target };
        let how = match one.is_running {
            true => {
                look(Look::Busy, &format!("runs for {time} on {}", one_line(&operation.worker)))
            }
            false => look(Look::Dim, &format!("waits for {time}")),
        };
        let what = one_line(&format!("{} {}", short(target, 80), operation.mnemonic));
        text += &format!("    {what}  {how}\n");
        text += &format!("      kiln action show {}\n", operation.name);
        if let Some(lacking) = &one.lacking {
            text += &format!("      {}\n", look(Look::Bad, &one_line(lacking)));
        }
        if !one.output.trim().is_empty() {
            text += &indented(&one.output, LIVE_LINES, "      | ");
        }
    }
    text
}

pub async fn last(api: &Api) -> Result<String, CliError> {
    let builds: Builds = api::read(api.get("/builds?limit=1").await?)?;
    let newest = builds.builds.into_iter().next();
    newest.map(|build| build.invocation_id).ok_or_else(|| {
        let hint = "build something with --remote_executor first";
        CliError::not_found("the server has seen no build yet").hint(hint)
    })
}

/// All executions of a build, newest first, in as many requests as it takes.
async fn executions(api: &Api, invocation: &str) -> Result<Vec<serde_json::Value>, CliError> {
    let invocation = encode(invocation, false);
    let mut all = Vec::new();
    let mut before = String::new();
    loop {
        let path = format!("/executions?invocation={invocation}&limit={PAGE}{before}");
        let mut answer = api.get(&path).await?;
        if let Some(page) = answer["executions"].as_array_mut() {
            all.append(page);
        }
        let page: Executions = api::read(answer)?;
        match page.next_before {
            Some(next) => before = format!("&before={next}"),
            None => return Ok(all),
        }
    }
}
