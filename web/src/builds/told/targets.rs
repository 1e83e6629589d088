//! The targets of a build, those that failed first, each with what it made.

use kiln_ci::events::{Facts, FileRef, Target, TargetKey, TargetOutcome, View};
use maud::{Markup, html};

use super::files;
use crate::blobs::present::Present;
use crate::design::rows::{self, Column, Line};
use crate::design::text::{label, visible};
use crate::format::count;

/// Targets shown, and files of one of them.
const MAX_TARGETS: usize = 300;
const MAX_FILES: usize = 20;
/// Targets of which files are shown, so that a page stays a page.
const WITH_FILES: usize = 100;

pub struct Shown<'a> {
    pub key: &'a TargetKey,
    pub target: &'a Target,
    /// Files of the target's default outputs and of its other groups.
    pub files: Vec<FileRef>,
}

/// Targets as they are shown: first those that failed, in the order of their names.
pub fn shown(view: &View) -> Vec<Shown<'_>> {
    let facts = view.build.known();
    let mut targets: Vec<_> = facts.targets.iter().collect();
    let rank = |target: &Target| match target.outcome {
        TargetOutcome::Failed => 0,
        TargetOutcome::Aborted => 1,
        TargetOutcome::Pending => 2,
        TargetOutcome::Built => 3,
        TargetOutcome::Skipped => 4,
    };
    targets.sort_by(|a, b| rank(&a.1).cmp(&rank(&b.1)).then_with(|| a.0.cmp(&b.0)));
    let shown = targets.into_iter().take(MAX_TARGETS).enumerate().map(|(at, (key, target))| {
        let sets: Vec<String> = target.outputs.iter().flat_map(|(_, sets)| sets.clone()).collect();
        let files = if at < WITH_FILES { view.build.files(&sets, MAX_FILES) } else { Vec::new() };
        Shown { key, target, files }
    });
    shown.collect()
}

pub fn section(facts: &Facts, shown: &[Shown<'_>], present: &Present) -> Markup {
    html! {
        @if !shown.is_empty() {
            section.panel {
                header { h2 { "Targets" } span.dim { (count(facts.targets.len() as u64)) } }
                (rows::table("Targets", &COLUMNS, shown.iter().map(|it| row(facts, it, present))))
                @if facts.targets.len() > shown.len() { p.note { "The first " (shown.len()) " are listed." } }
            }
        }
    }
}

const COLUMNS: [Column; 4] = [
    Column("Target", "wide"),
    Column("Outcome", ""),
    Column("Configuration", ""),
    Column("Outputs", "many"),
];

fn row(facts: &Facts, it: &Shown<'_>, present: &Present) -> Line {
    let configuration = facts.configurations.get(&it.key.configuration);
    let name = html! {
        span.target { bdi { (label(&visible(&it.key.label, 200))) } }
        @if !it.key.aspect.is_empty() { " " span.tag { (visible(&it.key.aspect, 80)) } }
        @if !it.target.kind.is_empty() { " " span.dim { (visible(&it.target.kind, 60)) } }
        @if let Some(why) = it.target.why.as_ref().filter(|it| !it.is_empty()) { p.dim { bdi { (visible(why, 400)) } } }
    };
    let configuration = html! { @match configuration {
        Some(it) => (visible(&it.mnemonic, 40)),
        None => span.dim.mono { (visible(&it.key.configuration, 8)) },
    } };
    vec![name, outcome(it.target.outcome), configuration, outputs(&it.files, present)].into()
}

fn outputs(all: &[FileRef], present: &Present) -> Markup {
    html! { @match all {
        [] => span.dim { "–" },
        [only] => (files::link(only, present)),
        several => details { summary { (several.len()) @if several.len() == MAX_FILES { " or more" } " files" }
            ul.plain { @for file in several { li { (files::link(file, present)) } } } },
    } }
}

fn outcome(outcome: TargetOutcome) -> Markup {
    let (class, word) = match outcome {
        TargetOutcome::Pending => ("running", "not built yet"),
        TargetOutcome::Built => ("hit", "built"),
        TargetOutcome::Failed => ("failed", "failed"),
        TargetOutcome::Skipped => ("cancelled", "skipped"),
        TargetOutcome::Aborted => ("failed", "aborted"),
    };
    html! { span class={ "chip " (class) } { (word) } }
}
