//! The sections of an action's page.

use kiln_cas::{DigestFunction, StoreError};
use kiln_protos::events::execution::Origin;
use kiln_protos::reapi;
use kiln_scheduler::journal::has_failed;
use maud::{Markup, html};

use super::load::{Loaded, log};
use crate::ansi;
use crate::blobs::page::{blob_link, hash, link, size};
use crate::blobs::tree::Kind;
use crate::content::{MAX_TEXT, digest};
use crate::design::text::when;
use crate::format::{bytes, command_line, counted, duration, path_of, short};
use crate::json::{NO_NETWORK, Shard};
use crate::state::WebState;
use crate::workers::page;

/// Arguments shown of one command line.
const MAX_ARGUMENTS: usize = 2000;
/// Longest argument shown, in characters.
const MAX_ARGUMENT: usize = 4000;
const MAX_VARIABLES: usize = 300;
const MAX_OUTPUTS: usize = 1000;
const MAX_PROPERTIES: usize = 64;

/// The command line, ready to be copied, one option a line.
pub fn command(loaded: &Loaded) -> Markup {
    html! {
        section.panel {
            header { h2 { "Command" }
                @if let Ok(command) = &loaded.command {
                    span.dim { (counted(command.arguments.len() as u64, "argument")) }
                }
            }
            @match &loaded.command {
                Err(error) => p.quiet { (error.to_string()) },
                Ok(command) => {
                    @if !command.working_directory.is_empty() {
                        p.note { "in " code { (short(&command.working_directory, MAX_ARGUMENT)) } }
                    }
                    pre.command tabindex="0" { code { (command_line(&command.arguments, MAX_ARGUMENTS)) } }
                    @if command.arguments.len() > MAX_ARGUMENTS {
                        p.note { "The first " (MAX_ARGUMENTS) " arguments are shown." }
                    }
                }
            }
        }
    }
}

pub fn environment(loaded: &Loaded) -> Markup {
    let Ok(command) = &loaded.command else { return html! {} };
    let variables = &command.environment_variables;
    html! {
        section.panel {
            @if variables.is_empty() {
                header { h2 { "Environment" } }
                p.quiet { "The action declares none." }
            } @else {
                details {
                    summary { h2 { "Environment" } span.dim { (counted(variables.len() as u64, "variable")) } }
                    dl.pairs.wide.mono {
                        @for variable in variables.iter().take(MAX_VARIABLES) {
                            dt { (short(&variable.name, 200)) }
                            dd { (short(&variable.value, MAX_ARGUMENT)) }
                        }
                    }
                }
            }
        }
    }
}

/// The facts of an action as a list: its worker, digests and properties.
pub fn facts(state: &WebState, loaded: &Loaded) -> Markup {
    let action = loaded.action.as_ref().ok();
    let timeout = action.and_then(|action| action.timeout).map(|timeout| {
        let seconds = u64::try_from(timeout.seconds).unwrap_or(0);
        duration(seconds.saturating_mul(1_000_000_000))
    });
    html! {
        section.panel {
            header { h2 { "Facts" } }
            dl.pairs {
                @if let Some(entry) = &loaded.run {
                    @let run = &entry.execution;
                    @if !run.worker.is_empty() { dt { "Worker" } dd.mono { (short(&run.worker, 80)) } }
                    @if let Some(shard) = &run.shard { dt { "Shards" } dd { (Shard::from(shard).words()) } }
                    @if let Some(expected) = expected(loaded) { dt { "Expected" } dd { (expected) } }
                    dt { "Finished" } dd { (when(run.timeline.unwrap_or_default().finished)) }
                    @if !run.configuration_id.is_empty() { dt { "Configuration" } dd.mono { (short(&run.configuration_id, 80)) } }
                }
                @if let Some(running) = &loaded.running
                    && let Some(expected) = page::expected(state, &running.operation)
                { dt { "Expected" } dd { (duration(expected.saturating_mul(1_000_000))) } }
                @if !loaded.instance.is_empty() { dt { "Instance" } dd.mono { (short(&loaded.instance, 80)) } }
                @if let Some(timeout) = timeout { dt { "Timeout" } dd { (timeout) } }
                @if action.is_some_and(|action| action.do_not_cache) { dt { "Cache" } dd { "do_not_cache is set" } }
                dt { "Action" }
                dd.mono { a href={ "/blobs/" (path_of(&loaded.digest)) } { (short(&loaded.digest.hex(), 16)) } "/" (loaded.digest.size) }
                @if let Some(action) = action {
                    dt { "Command" } dd.mono { (digest_link(action.command_digest.as_ref(), loaded.digest.function)) }
                    dt { "Input root" } dd.mono { (root_link(action.input_root_digest.as_ref(), loaded.digest.function)) }
                }
                @if loaded.ran_offline() { dt { "Network" } dd { (NO_NETWORK) } }
                @for property in loaded.platform().into_iter().take(MAX_PROPERTIES) {
                    dt { (short(&property.name, 60)) }
                    dd.mono { (short(&property.value, 200)) }
                }
            }
            p.note { "Same on the command line: " code { "kiln action show " (loaded.digest) } }
        }
    }
}

/// How long the run was expected to take, if its target had run before.
fn expected(loaded: &Loaded) -> Option<String> {
    let entry = loaded.run.as_ref().filter(|entry| entry.execution.expected_ms > 0)?;
    let has_run = loaded.target_runs.iter().any(|earlier| {
        let run = &earlier.execution;
        earlier.seq < entry.seq && run.origin() == Origin::Executed && !has_failed(run)
    });
    has_run.then(|| duration(entry.execution.expected_ms.saturating_mul(1_000_000)))
}

fn digest_link(wire: Option<&reapi::Digest>, function: DigestFunction) -> Markup {
    html! {
        @if let Some(digest) = digest(wire, function) {
            a href={ "/blobs/" (path_of(&digest)) } { (short(&digest.hex(), 16)) } "/" (digest.size)
        }
    }
}

fn root_link(wire: Option<&reapi::Digest>, function: DigestFunction) -> Markup {
    html! {
        @if let Some(digest) = digest(wire, function) {
            a href=(link(&digest, Kind::Directory, "")) { (short(&digest.hex(), 16)) } "/" (digest.size)
        }
    }
}

pub fn outputs(loaded: &Loaded) -> Markup {
    let function = loaded.digest.function;
    html! {
        section.panel {
            header { h2 { "Outputs" } }
            @match &loaded.result {
                None => p.quiet { "There is no result: the action did not finish, or its result was removed." },
                Some(result) => {
                    (output_rows(result, function))
                    (missing(loaded, result))
                }
            }
        }
    }
}

#[allow(deprecated)]
fn output_rows(result: &reapi::ActionResult, function: DigestFunction) -> Markup {
    let links = result
        .output_symlinks
        .iter()
        .chain(&result.output_file_symlinks)
        .chain(&result.output_directory_symlinks);
    let mut shown = std::collections::BTreeSet::new();
    html! {
        div.scroll tabindex="0" role="region" aria-label="Outputs" {
            table.rows.files {
                thead { tr { th { "Path" } th.num { "Size" } th { "Digest" } } }
                tbody {
                    @for file in result.output_files.iter().take(MAX_OUTPUTS) {
                        tr {
                            td.wide { (blob_link(&file.path, file.digest.as_ref(), function))
                                @if file.is_executable { " " span.tag { "x" } } }
                            td.num { (size(file.digest.as_ref())) }
                            td.mono.dim { (hash(file.digest.as_ref())) }
                        }
                    }
                    @for directory in result.output_directories.iter().take(MAX_OUTPUTS) {
                        (output_directory(directory, function))
                    }
                    @for link in links.take(MAX_OUTPUTS) {
                        @if shown.insert(&link.path) {
                            tr {
                                td.wide { (short(&link.path, 400)) span.dim { " → " (short(&link.target, 400)) } }
                                td.num.dim { "link" } td {}
                            }
                        }
                    }
                }
            }
        }
        @if result.output_files.len() > MAX_OUTPUTS { p.note { "The first " (MAX_OUTPUTS) " are shown." } }
    }
}

fn output_directory(directory: &reapi::OutputDirectory, function: DigestFunction) -> Markup {
    let tree = digest(directory.tree_digest.as_ref(), function).map(|tree| (tree, Kind::Tree));
    let root = digest(directory.root_directory_digest.as_ref(), function)
        .map(|root| (root, Kind::Directory));
    let path = short(&directory.path, 400);
    html! {
        tr {
            td.wide {
                @match tree.or(root) {
                    Some((digest, kind)) => a.dir href=(link(&digest, kind, "")) { (path) "/" },
                    None => { (path) "/" },
                }
            }
            td.num.dim { "directory" }
            td.mono.dim { (hash(directory.tree_digest.as_ref())) }
        }
    }
}

/// Declared outputs that the action did not make.
#[allow(deprecated)]
fn missing(loaded: &Loaded, result: &reapi::ActionResult) -> Markup {
    let Ok(command) = &loaded.command else { return html! {} };
    let made: std::collections::HashSet<&str> = result
        .output_files
        .iter()
        .map(|file| file.path.as_str())
        .chain(result.output_directories.iter().map(|directory| directory.path.as_str()))
        .chain(result.output_symlinks.iter().map(|link| link.path.as_str()))
        .chain(result.output_file_symlinks.iter().map(|link| link.path.as_str()))
        .chain(result.output_directory_symlinks.iter().map(|link| link.path.as_str()))
        .collect();
    let absent: Vec<_> = command
        .output_paths
        .iter()
        .chain(&command.output_files)
        .chain(&command.output_directories)
        .filter(|path| !made.contains(path.as_str()))
        .take(MAX_OUTPUTS)
        .collect();
    // Bazel declares whatever a test may make, and needs none of it.
    let is_test = loaded.run.as_ref().is_some_and(|run| run.execution.mnemonic == "TestRunner");
    html! {
        @if !absent.is_empty() && is_test {
            details.note {
                summary { (counted(absent.len() as u64, "optional output")) " not made" }
                @for path in absent { code { (short(path, 400)) } " " }
            }
        } @else if !absent.is_empty() {
            p.note { "Declared, but not made: "
                @for path in absent { code { (short(path, 400)) } " " }
            }
        }
    }
}

/// stdout and stderr, the end of each.
pub async fn logs(state: &WebState, loaded: &Loaded) -> Markup {
    let Some(result) = &loaded.result else { return html! {} };
    let function = loaded.digest.function;
    let stdout = log(state, &result.stdout_raw, result.stdout_digest.as_ref(), function).await;
    let stderr = log(state, &result.stderr_raw, result.stderr_digest.as_ref(), function).await;
    html! {
        (log_section("stderr", &stderr, result.stderr_digest.as_ref(), function))
        (log_section("stdout", &stdout, result.stdout_digest.as_ref(), function))
        @if is_empty(&stdout) && is_empty(&stderr) {
            section.panel.slim { p.quiet { "It printed nothing to stdout or stderr." } }
        }
    }
}

fn is_empty(text: &Result<String, StoreError>) -> bool {
    matches!(text, Ok(text) if text.is_empty())
}

fn log_section(
    name: &str,
    text: &Result<String, StoreError>,
    wire: Option<&reapi::Digest>,
    function: DigestFunction,
) -> Markup {
    let all = digest(wire, function);
    html! {
        @if !is_empty(text) {
            section.panel {
                header { h2 { (name) }
                    @if let Some(digest) = all {
                        a href={ "/blobs/" (path_of(&digest)) "?name=" (name) ".txt" } { "All " (bytes(digest.size)) }
                    }
                }
                @if all.is_some_and(|digest| digest.size > MAX_TEXT) {
                    p.note { "The last " (bytes(MAX_TEXT)) ":" }
                }
                @match text {
                    Ok(text) => pre.log tabindex="0" { (ansi::markup(text)) },
                    Err(error) => p.quiet { (error.to_string()) },
                }
            }
        }
    }
}
