//! `kiln action`.

use std::collections::BTreeSet;

use clap::{Args, Subcommand, ValueHint};
use kiln_cas::Digest;

use super::api::{self, Api};
use super::digest::{ActionName, DigestArgument};
use super::text::{self, Look, Table, look};
use super::{CliError, Exit, Target};
use crate::web::format::{
    abbreviated, ago, bytes, code_name, command_line, duration, encode, now, path_of, short,
};
use crate::web::json::{self, Action, Execution, Executions, Explanation, Found, Log, Running};

/// Arguments that are shown of one command.
const MAX_ARGUMENTS: usize = 10_000;
const MAX_RUNS: usize = 5;
/// Longest target that is listed, in characters.
const MAX_TARGET: usize = 80;

/// See actions: command, inputs, result, timeline, and why they were not cached.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln action show 7f3a...e1/142
  kiln action show 'http://127.0.0.1:8980/actions/sha256/7f3a...e1/142?operation=...'
  kiln action show //app:app_test                 # its last failure, else its last run
  kiln action show 7f3ac0de                       # where one action's hash begins so
  kiln action diff 7f3a...e1/142                  # with the last run of the same target
  kiln action diff 7f3a...e1/142 09bc...77/142
  kiln action list --target //app:app --mnemonic CppLink

An action is named as Bazel and Buck2 print it: HASH/SIZE or HASH:SIZE, with blake3/ in front
where it applies; by the address of its page, the beginning of its hash, a target's label, or
the name of an operation.")]
pub struct ActionCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Command, inputs, result and timeline of one action
    Show {
        #[arg(value_name = "ACTION", value_hint = ValueHint::Other)]
        action: ActionName,
        /// A run of it by its operation name; without, the last
        #[arg(long, default_value = "", value_name = "NAME", value_hint = ValueHint::Other)]
        operation: String,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// What differs between two actions; exit code 1 when something does
    ///
    /// Given one action, compares it with the last run of the same target and mnemonic: why it
    /// was not answered from the cache.
    Diff {
        #[arg(value_name = "ACTION", value_hint = ValueHint::Other)]
        action: ActionName,
        /// The later one
        #[arg(value_name = "ACTION", value_hint = ValueHint::Other)]
        other: Option<ActionName>,
        /// For programs
        #[arg(long)]
        json: bool,
    },
    /// Runs of actions, newest first
    List(List),
}

#[derive(Debug, Args)]
struct List {
    /// Runs of this target
    #[arg(long, value_name = "LABEL", value_hint = ValueHint::Other)]
    target: Option<String>,
    /// Runs of this mnemonic of the target
    #[arg(long, requires = "target", value_name = "NAME", value_hint = ValueHint::Other)]
    mnemonic: Option<String>,
    /// Runs of this build
    #[arg(long, conflicts_with = "target", value_name = "ID", value_hint = ValueHint::Other)]
    invocation: Option<String>,
    /// Runs to list
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    limit: u16,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl ActionCommand {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (api, instance) = (Api::new(target)?, target.instance.as_str());
        match self.what {
            What::Show { action, operation, json } => {
                let found = find(&api, action, instance).await?;
                let operation = if operation.is_empty() { found.operation } else { operation };
                let path = format!(
                    "/actions/{}?instance={}&operation={}",
                    path_of(&found.action),
                    encode(&found.instance, false),
                    encode(&operation, false)
                );
                api::print(api.get(&path).await?, json, show)?;
                Ok(Exit::Done)
            }
            What::Diff { action, other, json } => {
                let first = find(&api, action, instance).await?;
                let second = match other {
                    Some(other) => Some(find(&api, other, instance).await?),
                    None => None,
                };
                diff(&api, &first, second.as_ref(), json).await
            }
            What::List(list) => {
                api::print(api.get(&list.path()).await?, list.json, runs)?;
                Ok(Exit::Done)
            }
        }
    }
}

/// An action of which the digest is known.
struct Chosen {
    action: Digest,
    /// Name of the run; empty: the server chooses.
    operation: String,
    instance: String,
}

async fn find(api: &Api, name: ActionName, instance: &str) -> Result<Chosen, CliError> {
    let name = match name {
        ActionName::Exact { action, operation, instance: named } => {
            let instance = named.unwrap_or_else(|| instance.to_owned());
            return Ok(Chosen { action, operation, instance });
        }
        ActionName::Known(name) => name,
    };
    let found = api.get(&format!("/find?name={}", encode(&name, false))).await?;
    choose(&name, api::read(found)?)
}

/// What runs now; else of the newest build the first failure, the test or the last run.
fn choose(name: &str, found: Found) -> Result<Chosen, CliError> {
    if let Some(operation) = found.operations.first()
        && let Ok(DigestArgument(action)) = operation.action.parse()
    {
        let (operation, instance) = (operation.name.clone(), operation.instance.clone());
        return Ok(Chosen { action, operation, instance });
    }
    let actions: BTreeSet<_> = found.executions.iter().filter_map(digest_of).collect();
    let newest = found.executions.first().map(|run| run.invocation_id.clone());
    let is_beginning = !name.contains('/');
    if is_beginning && actions.len() > 1 {
        let listed = actions.iter().map(Digest::to_string).collect::<Vec<_>>().join("\n  ");
        return Err(CliError::usage(format!("several actions begin with {name}:\n  {listed}"))
            .hint("write more of the one that is meant"));
    }
    let of_build = |run: &&Execution| Some(&run.invocation_id) == newest.as_ref();
    let of_build: Vec<_> = found.executions.iter().filter(of_build).collect();
    let failed = of_build.iter().find(|run| has_failed(run));
    let test = of_build.iter().find(|run| run.mnemonic == "TestRunner");
    let chosen = failed.or(test).or(of_build.first());
    match chosen.and_then(|run| Some((run, digest_of(run)?))) {
        Some((run, action)) => {
            let (operation, instance) = (run.id.clone(), run.instance_name.clone());
            Ok(Chosen { action, operation, instance })
        }
        None => Err(CliError::not_found(format!("nothing is known of {name}"))
            .hint("`kiln build show last --all` lists the actions of the newest build")),
    }
}

fn digest_of(run: &Execution) -> Option<Digest> {
    let digest = named(run.action.as_ref(), &run.digest_function);
    digest.parse().ok().map(|DigestArgument(digest)| digest)
}

pub fn has_failed(run: &Execution) -> bool {
    !run.cancelled && (run.exit_code != 0 || run.status_code != 0)
}

async fn diff(
    api: &Api,
    first: &Chosen,
    second: Option<&Chosen>,
    json: bool,
) -> Result<Exit, CliError> {
    let (after, before) = match second {
        Some(second) => (second, format!("&before={}", path_of(&first.action))),
        None => (first, String::new()),
    };
    let path = format!(
        "/actions/{}/difference?instance={}&operation={}{before}",
        path_of(&after.action),
        encode(&after.instance, false),
        encode(&after.operation, false)
    );
    let answer = api.get(&path).await?;
    let explanation: Explanation = api::read(answer.clone())?;
    api::print(answer, json, |explanation| comparison(explanation, second.is_none()))?;
    let differs = !explanation.differences.is_empty() || explanation.is_cut;
    Ok(if differs { Exit::Negative } else { Exit::Done })
}

impl List {
    fn path(&self) -> String {
        let mut path = format!("/executions?limit={}", self.limit);
        let filters = [
            ("target", &self.target),
            ("mnemonic", &self.mnemonic),
            ("invocation", &self.invocation),
        ];
        for (name, value) in filters {
            if let Some(value) = value {
                path.push_str(&format!("&{name}={}", encode(value, false)));
            }
        }
        path
    }
}

fn runs(executions: &Executions) -> String {
    if executions.executions.is_empty() {
        return "no runs\n".to_owned();
    }
    let mut table = Table::new(&["finished", "ran for", "ended", "what", "action"], &[1]);
    let now = now();
    for run in &executions.executions {
        table.row([ago(run.timeline.finished, now)].into_iter().chain(row(run)));
    }
    table.text("")
}

/// Run time, end, target and mnemonic, digest.
pub fn row(run: &Execution) -> [String; 4] {
    let ran = match run.timeline.run_ns() {
        0 => String::new(),
        nanos => duration(nanos),
    };
    [ran, ended(run), what(run), named(run.action.as_ref(), &run.digest_function)]
}

pub fn ended(run: &Execution) -> String {
    match (run.status_code, run.exit_code) {
        _ if run.cancelled => look(Look::Dim, "cancelled"),
        (0, 0) => run.origin.replace('_', " "),
        (0, code) => look(Look::Bad, &format!("exit code {code}")),
        (code, _) => look(Look::Bad, code_name(code)),
    }
}

pub fn what(run: &Execution) -> String {
    let target = short(&run.target_id, MAX_TARGET);
    match (target.as_str(), run.mnemonic.as_str()) {
        ("", "") => "(no target named)".to_owned(),
        (target, mnemonic) => format!("{target} {mnemonic}").trim().to_owned(),
    }
}

pub fn named(digest: Option<&json::Digest>, function: &str) -> String {
    let Some(digest) = digest else { return String::new() };
    let function = if function == "blake3" { "blake3/" } else { "" };
    format!("{function}{}/{}", digest.hash, digest.size_bytes)
}

fn show(action: &Action) -> String {
    let mut text = String::new();
    let run = action.execution.as_ref();
    let title = match (run, &action.running) {
        (_, Some(running)) => going(running),
        (Some(run), None) => format!("{}: {}", look(Look::Bold, &what(run)), ended(run)),
        (None, None) => "no run known".to_owned(),
    };
    text.push_str(&format!("{title}\n"));
    if let Some(remark) = &action.remark {
        text.push_str(&format!("  {}\n", look(Look::Busy, remark)));
    }
    for (name, value) in facts(action) {
        text.push_str(&format!("  {name:<12}{value}\n"));
    }
    for what in &action.unreadable {
        text.push_str(&format!("  cannot be read: {what}\n"));
    }
    if let Some(run) = run.filter(|run| !run.status_message.is_empty()) {
        section(&mut text, "what the client was told", &run.status_message);
    }
    if let Some(lacking) = action.running.as_ref().and_then(|running| running.lacking.as_ref()) {
        section(&mut text, "why it waits", lacking);
    }
    command(&mut text, action);
    if let Some(run) = run {
        timeline(&mut text, run);
    }
    if let Some(running) = action.running.as_ref().filter(|running| running.is_running) {
        let printed = running.output.trim_end();
        section(&mut text, "output so far", if printed.is_empty() { "nothing" } else { printed });
    }
    outputs(&mut text, action);
    let function = action.digest_function.as_str();
    log(&mut text, "stdout", action.stdout.as_ref(), function);
    log(&mut text, "stderr", action.stderr.as_ref(), function);
    if run.is_some() {
        section(&mut text, "cache", &comparison(&action.explanation, true));
    }
    earlier_runs(&mut text, action);
    text
}

/// What an action is that has not ended, and for how long.
fn going(running: &Running) -> String {
    let operation = &running.operation;
    let target = if operation.target.is_empty() { "(no target named)" } else { &operation.target };
    let title = format!("{target} {}", operation.mnemonic);
    let time = duration(operation.for_ms.saturating_mul(1_000_000));
    let how = match running.is_running {
        true => format!("runs for {time} on {}", operation.worker),
        false => format!("waits for {time}"),
    };
    format!("{}: {}", look(Look::Bold, title.trim()), look(Look::Busy, &how))
}

fn facts(action: &Action) -> Vec<(&'static str, String)> {
    let function = action.digest_function.as_str();
    let mut facts =
        vec![("action", named(Some(&action.digest), function)), ("page", action.page.clone())];
    let mut add = |name, value: String| {
        if !value.is_empty() {
            facts.push((name, value));
        }
    };
    if let Some(running) = &action.running {
        add("build", running.operation.invocation.clone());
        add("operation", running.operation.name.clone());
    }
    if let Some(run) = &action.execution {
        add("build", run.invocation_id.clone());
        let attempt =
            if run.attempts > 1 { format!(", attempt {}", run.attempts) } else { String::new() };
        if !run.worker.is_empty() {
            add("worker", format!("{}{attempt}", run.worker));
        }
        add("finished", ago(run.timeline.finished, now()));
    }
    add("instance", action.instance_name.clone());
    add("in cache", if action.is_cached { "yes" } else { "no" }.to_owned());
    if let Some(timeout) = action.timeout_seconds {
        add("timeout", duration((timeout * 1e9) as u64));
    }
    if action.do_not_cache {
        add("do_not_cache", "yes".to_owned());
    }
    let platform = action.platform.iter().map(|p| format!("{}={}", p.name, p.value));
    add("platform", platform.collect::<Vec<_>>().join(" "));
    if let Some(root) = &action.input_root {
        add("inputs", format!("kiln cas tree {}", named(Some(root), function)));
    }
    facts
}

/// A heading and indented lines.
fn section(text: &mut String, title: &str, body: &str) {
    text.push_str(&format!("\n{}\n", look(Look::Bold, title)));
    for line in body.trim_end().lines() {
        text.push_str(&format!("  {line}\n"));
    }
}

fn command(text: &mut String, action: &Action) {
    let Some(command) = &action.command else { return };
    section(text, "command", &command_line(&command.arguments, MAX_ARGUMENTS));
    if !command.working_directory.is_empty() {
        section(text, "working directory", &command.working_directory);
    }
    let variables = command.environment_variables.iter();
    let variables: Vec<_> = variables.map(|v| format!("{}={}", v.name, v.value)).collect();
    if !variables.is_empty() {
        section(text, "environment", &variables.join("\n"));
    }
}

fn timeline(text: &mut String, run: &Execution) {
    let stages = run.timeline.stages();
    if stages.is_empty() {
        return;
    }
    let total = [("request to answer", run.timeline.total_ns())];
    let lines = stages.into_iter().chain(total);
    let lines: Vec<_> =
        lines.map(|(name, nanos)| format!("{name:<18}{:>9}", duration(nanos))).collect();
    section(text, "timeline", &lines.join("\n"));
}

fn outputs(text: &mut String, action: &Action) {
    let Some(result) = &action.result else { return };
    let function = action.digest_function.as_str();
    let mut lines = Vec::new();
    for file in &result.output_files {
        let size = file.digest.as_ref().map_or(0, |d| u64::try_from(d.size_bytes).unwrap_or(0));
        let digest = named(file.digest.as_ref(), function);
        lines.push(format!("{:>9}  {}  {digest}", bytes(size), file.path));
    }
    for directory in &result.output_directories {
        let tree = named(directory.tree_digest.as_ref(), function);
        lines.push(format!("directory  {}/  kiln cas tree --of-output {tree}", directory.path));
    }
    for link in &result.output_symlinks {
        lines.push(format!("     link  {} -> {}", link.path, link.target));
    }
    if lines.is_empty() {
        lines.push("none".to_owned());
    }
    section(text, "outputs", &lines.join("\n"));
}

fn log(text: &mut String, name: &str, log: Option<&Log>, function: &str) {
    let Some(log) = log.filter(|log| !log.text.is_empty()) else { return };
    let size = bytes(log.size_bytes);
    let all = match &log.digest {
        Some(digest) => format!("kiln cas get {}", named(Some(digest), function)),
        None => String::new(),
    };
    let title = match (log.is_cut, all.is_empty()) {
        (true, _) => format!("{name}, the end of {size}: {all}"),
        (false, false) => format!("{name}, {size}: {all}"),
        (false, true) => name.to_owned(),
    };
    section(text, &title, log.text.trim_end());
}

fn comparison(explanation: &Explanation, explains_a_run: bool) -> String {
    let mut lines = explanation.reasons.clone();
    if explains_a_run
        && let (Some(before), Some(run)) = (&explanation.before, &explanation.before_execution)
    {
        let when = ago(run.timeline.finished, now());
        let digest = named(Some(before), &run.digest_function);
        lines.push(format!("Not cached: it differs from the last run of {}, {when},", what(run)));
        lines.push(format!("{digest}:"));
    }
    for difference in &explanation.differences {
        let values: Vec<_> = difference.before.iter().chain(&difference.after).cloned().collect();
        let values = values.join(" -> ");
        let kind = format!("{} {}", difference.kind, difference.change);
        lines.push(match difference.name.as_str() {
            "" => format!("  {kind}: {values}"),
            name => format!("  {kind}: {name}: {values}"),
        });
        lines.extend(difference.text.iter().flat_map(|text| text.lines()).map(changed_line));
    }
    if explanation.is_cut {
        lines.push("  There are more differences than are listed.".to_owned());
    }
    text::lines(&lines)
}

/// A line as `diff -u` shows it.
fn changed_line(line: &str) -> String {
    let shown = match line.chars().next() {
        Some('+') => look(Look::Good, line),
        Some('-') => look(Look::Bad, line),
        Some('@') => look(Look::Dim, line),
        _ => line.to_owned(),
    };
    format!("      {shown}")
}

fn earlier_runs(text: &mut String, action: &Action) {
    if action.runs.len() < 2 {
        return;
    }
    let now = now();
    let lines: Vec<_> = action
        .runs
        .iter()
        .take(MAX_RUNS)
        .map(|run| {
            let build = abbreviated(&run.invocation_id);
            [ago(run.timeline.finished, now), ended(run), build, run.id.clone()]
        })
        .collect();
    let mut table = Table::new(&["finished", "ended", "build", "operation"], &[]);
    lines.into_iter().for_each(|line| table.row(line));
    section(text, "runs", &table.text(""));
}
