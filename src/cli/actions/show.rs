//! An action as text.

use super::rows::{ended, named, what};
use crate::cli::text::{self, Look, Table, look};
use kiln_web::format::{abbreviated, ago, bytes, command_line, duration, now};
use kiln_web::json::{Action, Execution, Explanation, Log, NO_NETWORK, Running, Shard};

/// Arguments that are shown of one command.
const MAX_ARGUMENTS: usize = 10_000;
const MAX_RUNS: usize = 5;

/// Everything that is known of an action, as text.
pub fn show(action: &Action) -> String {
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
        text.push_str(&format!("  {name:<14}{value}\n"));
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

/// The heading of an action that has not ended: its target, and for how long it has run or waited.
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
        add("shards", run.shard.as_ref().map(Shard::words).unwrap_or_default());
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
    if action.ran_offline {
        add("network", NO_NETWORK.to_owned());
    }
    let platform = action.platform.iter().map(|p| format!("{}={}", p.name, p.value));
    add("platform", platform.collect::<Vec<_>>().join(" "));
    if let Some(root) = &action.input_root {
        add("inputs", format!("kiln cas tree {}", named(Some(root), function)));
    }
    facts
}

/// Appends a heading and the body's lines, indented.
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

/// Why an action was not cached, or what differs between two.
pub fn comparison(explanation: &Explanation, explains_a_run: bool) -> String {
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

/// A line of a difference in the colour that `diff -u` gives it.
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
