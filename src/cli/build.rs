//! `kiln build`.

use clap::{Args, Subcommand, ValueHint};

use super::action::{ended, has_failed, named, row, what};
use super::api::{self, Api};
use super::digest::invocation;
use super::status::counts;
use super::text::{self, Look, Table, look};
use super::{CliError, Exit, Target};
use crate::web::format::{ago, count, counted, duration, encode, now, short, utc};
use crate::web::json::{Action, Build, Builds, Execution, Executions, Log, Running};

/// Most entries that one request of the API answers.
const PAGE: usize = 1000;

/// See builds: what ran, what was cached, where the time went.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln build list
  kiln build show 5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
  kiln build show 5f3c1e1a                        # where one build begins so
  kiln build show http://127.0.0.1:8980/builds/5f3c1e1a-7a7e-4c0e-a8fd-0b1a6a0d94b2
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
    /// The invocation id that Bazel or Buck2 printed, its beginning or the address of its page;
    /// `last`: of the newest build
    #[arg(value_hint = ValueHint::Other)]
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
    let head = ["build", "began", "took", "executed", "cached", "failed", "now", "tool"];
    let mut table = Table::new(&head, &[2, 3, 4, 5]);
    let now = now();
    for build in &builds.builds {
        table.row([
            build.invocation_id.clone(),
            ago(build.first_at, now),
            duration(elapsed(build, now)),
            count(build.counts.executed),
            count(build.counts.cache_hits),
            failures(build.counts.failed),
            state(build),
            tool(&build.tool_name, &build.tool_version),
        ]);
    }
    table.text("")
}

/// What is to be said of how a build goes.
fn state(build: &Build) -> String {
    match &*build.state {
        "running" => look(Look::Busy, &format!("{} open", count(build.open))),
        "cancelled" => look(Look::Dim, "cancelled"),
        "lost" => look(Look::Bad, &format!("{} lost", count(build.lost))),
        _ => String::new(),
    }
}

fn failures(failed: u64) -> String {
    if failed == 0 { "0".to_owned() } else { look(Look::Bad, &count(failed)) }
}

/// Nanoseconds from the first request to the last answer, or to `now`.
fn elapsed(build: &Build, now: i64) -> u64 {
    span(build.first_at, if build.state == "running" { now } else { build.last_at })
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

/// Failed actions that are shown with their logs; of more, the first.
const MAX_FAILED: usize = 20;
/// Lines shown of the end of a log.
const LOG_LINES: usize = 20;
/// Lines shown of what an action that runs has printed.
const LIVE_LINES: usize = 4;

/// Each failed action with what it is, how it ended and the end of its log.
async fn failed(api: &Api, newest_first: &[Execution]) -> Result<String, CliError> {
    let failed: Vec<_> = newest_first.iter().rev().filter(|run| has_failed(run)).collect();
    if failed.is_empty() {
        return Ok("  no action failed\n".to_owned());
    }
    let mut text = String::new();
    for run in failed.iter().take(MAX_FAILED) {
        let title = format!("{}: {}", what(run), ended(run));
        text += &format!("\n{}\n", look(Look::Bad, &title));
        let named = named(run.action.as_ref(), &run.digest_function);
        text += &format!("  kiln action show {named} --operation {}\n", run.id);
        if !run.status_message.is_empty() {
            text += &indented(&run.status_message, LOG_LINES, "    ");
        }
        for (name, log) in logs(api, run).await? {
            text +=
                &format!("  {}\n{}", look(Look::Dim, name), indented(&log.text, LOG_LINES, "    "));
        }
    }
    if failed.len() > MAX_FAILED {
        text += &format!("\n  and {} more\n", failed.len() - MAX_FAILED);
    }
    Ok(text)
}

/// What is kept of stdout and stderr of one run.
async fn logs(api: &Api, run: &Execution) -> Result<Vec<(&'static str, Log)>, CliError> {
    let Some(action) = &run.action else { return Ok(Vec::new()) };
    let path = format!(
        "/actions/{}/{}/{}?operation={}",
        run.digest_function,
        action.hash,
        action.size_bytes,
        encode(&run.id, false)
    );
    let action: Action = api::read(api.get(&path).await?)?;
    let logs = [("stdout", action.stdout), ("stderr", action.stderr)];
    let logs = logs.into_iter().filter_map(|(name, log)| Some((name, log?)));
    Ok(logs.filter(|(_, log)| !log.text.trim().is_empty()).collect())
}

/// The last `lines`, each after `margin`.
fn indented(text: &str, lines: usize, margin: &str) -> String {
    let all: Vec<_> = text.trim_end().lines().collect();
    let last = &all[all.len().saturating_sub(lines)..];
    last.iter().map(|line| format!("{margin}{line}\n")).collect()
}

/// What runs and waits, with the end of what it has printed.
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
            true => look(Look::Busy, &format!("runs for {time} on {}", operation.worker)),
            false => look(Look::Dim, &format!("waits for {time}")),
        };
        text += &format!("    {} {}  {how}\n", short(target, 80), operation.mnemonic);
        text += &format!("      kiln action show {}\n", operation.name);
        if let Some(lacking) = &one.lacking {
            text += &format!("      {}\n", look(Look::Bad, lacking));
        }
        if !one.output.trim().is_empty() {
            text += &indented(&one.output, LIVE_LINES, "      | ");
        }
    }
    text
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
    let time = duration(elapsed(build, now()));
    let (time, going) = match &*build.state {
        "running" => {
            let verb = if build.open == 1 { "runs or waits" } else { "run or wait" };
            let open = look(Look::Busy, &format!("{} {verb}", counted(build.open, "action")));
            (format!("for {time} now"), format!("  {open}\n"))
        }
        "cancelled" => {
            let how = "the last of it was stopped: cancelled, or its client went away";
            (format!("took {time}"), format!("  {}\n", look(Look::Dim, how)))
        }
        "lost" => {
            let how =
                format!("{} will never end: their server is gone", counted(build.lost, "action"));
            (format!("took {time}"), format!("  {}\n", look(Look::Bad, &how)))
        }
        _ => (format!("took {time}"), String::new()),
    };
    let mut text = format!(
        "{}\n  {} at {}, {}, {}\n{}  {}\n  in sum: {} running, {} waiting for a worker\n",
        look(Look::Bold, &format!("build {}", build.invocation_id)),
        tool(&build.tool_name, &build.tool_version),
        utc(build.first_at),
        time,
        counted(build.targets, "target"),
        going,
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
            failures(mnemonic.counts.failed),
            duration(mnemonic.counts.run_ns),
        ]);
    }
    if !build.mnemonics.is_empty() {
        text.push_str(&table.text("  "));
    }
    text
}
