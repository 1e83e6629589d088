//! `kiln build`.

use clap::{Args, Subcommand};

use super::action::row;
use super::api::{self, Api};
use super::status::counts;
use super::text::{self, Table};
use super::{CliError, Exit, Target};
use crate::web::format::{ago, count, duration, encode, now, short, utc};
use crate::web::json::{Build, Builds, Execution, Executions};

/// Most entries that one request of the API answers.
const PAGE: usize = 1000;

/// See builds: what ran, what was cached, where the time went.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln build list
  kiln build show 5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
  kiln build show last --failed
  kiln build show last --all --json")]
pub struct BuildCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The newest builds
    List {
        /// Builds to list
        #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
        limit: u16,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// One build and its slowest actions
    Show(Show),
}

#[derive(Debug, Args)]
struct Show {
    /// The invocation id that Bazel or Buck2 printed; `last`: of the newest build
    invocation: String,
    /// List the actions that failed
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

impl BuildCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let api = Api::new(target)?;
        match self.what {
            What::List { limit, json } => {
                let answer = api.get(&format!("/builds?limit={limit}")).await?;
                api::print(answer, json, list)?;
            }
            What::Show(show) => show.run(&api).await?,
        }
        Ok(Exit::Done)
    }
}

fn list(builds: &Builds) -> String {
    if builds.builds.is_empty() {
        return "no builds yet\n".to_owned();
    }
    let head = ["build", "began", "took", "executed", "cached", "failed", "tool"];
    let mut table = Table::new(&head, &[2, 3, 4, 5]);
    let now = now();
    for build in &builds.builds {
        table.row([
            build.invocation_id.clone(),
            ago(build.first_at, now),
            duration(span(build.first_at, build.last_at)),
            count(build.counts.executed),
            count(build.counts.cache_hits),
            count(build.counts.failed),
            tool(&build.tool_name, &build.tool_version),
        ]);
    }
    table.text("")
}

fn span(start: i64, end: i64) -> u64 {
    u64::try_from(end.saturating_sub(start)).unwrap_or(0)
}

fn tool(name: &str, version: &str) -> String {
    short(format!("{name} {version}").trim(), 40)
}

impl Show {
    async fn run(self, api: &Api) -> Result<(), CliError> {
        let invocation = match self.invocation.as_str() {
            "last" => last(api).await?,
            named => named.to_owned(),
        };
        let mut build = api.get(&format!("/builds/{}", encode(&invocation, true))).await?;
        let executions = executions(api, &invocation).await?;
        if self.json {
            build["executions"] = serde_json::Value::Array(executions);
            return text::print(&format!("{build:#}\n"));
        }
        let executions: Vec<Execution> = api::read(executions.into())?;
        text::print(&(summary(&api::read(build)?) + &self.actions(&executions)))
    }

    fn actions(&self, newest_first: &[Execution]) -> String {
        let mut listed: Vec<&Execution> = newest_first.iter().rev().collect();
        let title = if self.all {
            "all actions"
        } else if self.failed {
            listed.retain(|run| run.exit_code != 0 || run.status_code != 0);
            "failed actions"
        } else {
            listed.retain(|run| run.origin == "executed");
            listed.sort_by_key(|run| std::cmp::Reverse(run.timeline.run_ns()));
            listed.truncate(self.slowest);
            "slowest actions"
        };
        if listed.is_empty() {
            let none = if self.failed { "  no action failed\n" } else { "" };
            return none.to_owned();
        }
        let mut table = Table::new(&["ran for", "ended", "what", "action"], &[0]);
        listed.iter().for_each(|run| table.row(row(run)));
        format!("  {title}\n{}", table.text("    "))
    }
}

async fn last(api: &Api) -> Result<String, CliError> {
    let builds: Builds = api::read(api.get("/builds?limit=1").await?)?;
    let newest = builds.builds.into_iter().next();
    newest.map(|build| build.invocation_id).ok_or_else(|| {
        let hint = "build something with --remote_executor first";
        CliError::not_found("the server has seen no build yet").hint(hint)
    })
}

/// All of a build, newest first, in as many requests as it takes.
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

fn summary(build: &Build) -> String {
    let sum = &build.counts;
    let mut text = format!(
        "build {}\n  {} at {}, took {}, {} targets\n  {}\n  in sum: {} running, {} waiting for a worker\n",
        build.invocation_id,
        tool(&build.tool_name, &build.tool_version),
        utc(build.first_at),
        duration(span(build.first_at, build.last_at)),
        count(build.targets),
        counts(sum),
        duration(sum.run_ns),
        duration(sum.queue_ns),
    );
    let mut table =
        Table::new(&["mnemonic", "executed", "cached", "failed", "ran for"], &[1, 2, 3, 4]);
    for mnemonic in &build.mnemonics {
        let name = if mnemonic.mnemonic.is_empty() { "(none)" } else { &mnemonic.mnemonic };
        table.row([
            short(name, 60),
            count(mnemonic.counts.executed),
            count(mnemonic.counts.cache_hits),
            count(mnemonic.counts.failed),
            duration(mnemonic.counts.run_ns),
        ]);
    }
    if !build.mnemonics.is_empty() {
        text.push_str(&table.text("  "));
    }
    text
}
