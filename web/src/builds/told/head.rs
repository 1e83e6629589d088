//! The head of a build's page: which command it was, who ran it, and how it ended.

use std::collections::BTreeMap;

use kiln_ci::events::{Facts, Origin};
use maud::{Markup, html};

use crate::ansi;
use crate::design::text::{visible, when};
use crate::format::{command_line, counted, duration};
use crate::json::nanos;
use crate::suite::millis;

/// Arguments shown, pairs of a list, and characters of one value.
const MAX_ARGUMENTS: usize = 2000;
const MAX_PAIRS: usize = 500;
const MAX_VALUE: usize = 1000;

pub fn section(facts: &Facts) -> Markup {
    let options = &facts.options;
    // What Bazel's client says to its server is long and no help to anybody but its authors.
    let command: Vec<String> = match options.explicit.is_empty() {
        true => options.command_line.clone(),
        false => {
            let parts = [&[facts.command.clone()][..], &options.explicit, &facts.patterns];
            parts.concat()
        }
    };
    html! {
        section.panel.slim.told {
            header { h2 { (outcome(facts)) } (times(facts)) }
            pre.command { code { (ansi::plain(&command_line(&command, MAX_ARGUMENTS))) } }
            (whose(facts))
            @if !options.explicit.is_empty() { (list("Whole command line", &options.command_line)) }
            (list("All options", &options.effective))
            (list("Startup options", &options.startup))
            (pairs("Build metadata", &facts.metadata))
            (pairs("Workspace status", &facts.workspace_status))
            (left_out(facts))
        }
    }
}

/// How a build ended, as in `failed: TESTS_FAILED (3)`.
pub fn outcome(facts: &Facts) -> Markup {
    match (&facts.exit_code, facts.is_complete) {
        (Some((0, _)), _) => html! { span.chip.hit { "succeeded" } },
        (Some((code, name)), _) => html! {
            span.chip.failed { "failed" } " " span.mono { (visible(&name.to_lowercase().replace('_', " "), 60)) }
            " " span.dim { "exit code " (code) }
        },
        (None, true) => html! { span.chip.cancelled { "ended without an exit code" } },
        (None, false) => html! { span.chip.running { "going on" } },
    }
}

fn times(facts: &Facts) -> Markup {
    html! {
        span.dim {
            @if let Some(started) = facts.started { (when(nanos(started))) }
            @if let Some(took) = facts.took() { ", took " (duration(millis(took.as_millis()))) }
            " · " (counted(facts.targets.len() as u64, "target"))
            " · " (counted(facts.events, "event"))
        }
    }
}

fn whose(facts: &Facts) -> Markup {
    let Origin { commit, branch, repository, user, host } = &facts.origin;
    let version = (!facts.tool_version.is_empty()).then(|| format!("Bazel {}", facts.tool_version));
    let directory = Some(facts.directory.clone()).filter(|it| !it.is_empty());
    let said = [
        ("User", user.clone()),
        ("Machine", host.clone()),
        ("Branch", branch.clone()),
        ("Commit", commit.clone()),
        ("Repository", repository.clone()),
        ("Directory", directory),
        ("Tool", version),
    ];
    html! {
        dl.pairs.facts { @for (name, value) in said {
            @if let Some(value) = value { dt { (name) } dd { bdi { (visible(&value, MAX_VALUE)) } } }
        } }
    }
}

fn list(title: &str, options: &[String]) -> Markup {
    html! {
        @if !options.is_empty() {
            details {
                summary { (title) " (" (options.len()) ")" }
                pre.command { code { (ansi::plain(&command_line(options, MAX_ARGUMENTS))) } }
            }
        }
    }
}

fn pairs(title: &str, pairs: &BTreeMap<String, String>) -> Markup {
    html! {
        @if !pairs.is_empty() {
            details {
                summary { (title) " (" (pairs.len()) ")" }
                dl.pairs.wide { @for (name, value) in pairs.iter().take(MAX_PAIRS) {
                    dt { bdi { (visible(name, 200)) } } dd { bdi { (visible(value, MAX_VALUE)) } }
                } }
            }
        }
    }
}

fn left_out(facts: &Facts) -> Markup {
    let it = &facts.left_out;
    let all = [
        (it.events, "event"),
        (it.targets, "target"),
        (it.files, "file"),
        (it.actions, "failed action"),
        (it.attempts, "attempt"),
        (it.texts, "text"),
    ];
    let said: Vec<String> = all
        .into_iter()
        .filter(|(number, _)| *number > 0)
        .map(|(n, what)| counted(n, what))
        .collect();
    html! { @if !said.is_empty() { p.note { "Left out, because there are too many: " (said.join(", ")) "." } } }
}
