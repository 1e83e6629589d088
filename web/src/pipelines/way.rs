//! The way of a run: stages from left to right, each behind what it needs, with the critical path drawn strongly.

use std::collections::BTreeMap;

use kiln_ci::pipelines::order;
use maud::{Markup, html};

use crate::design::text::visible;
use crate::format::counted;
use crate::json::{PipelineShown, PipelineStage};

/// Stages of which a way can be seen; of more there are the rows below.
const MAX_STAGES: usize = 120;
/// Lines that are drawn between stages at most.
const MAX_LINES: usize = 600;
/// Sizes in pixels: of a stage, and from one to the next.
const WIDE: usize = 150;
const TALL: usize = 30;
const ACROSS: usize = 190;
const DOWN: usize = 40;
/// Characters of a name for which there is room.
const MAX_NAME: usize = 20;

struct Node<'a> {
    at: usize,
    stage: &'a PipelineStage,
    x: usize,
    y: usize,
}

pub fn picture(it: &PipelineShown) -> Markup {
    if it.stages.len() > MAX_STAGES {
        return html! { p.dim { (it.stages.len()) " stages are too many for a picture of their way; they are listed below." } };
    }
    let nodes = nodes(&it.stages);
    let width = nodes.iter().map(|it| it.x).max().unwrap_or(0) + WIDE + 2;
    let height = nodes.iter().map(|it| it.y).max().unwrap_or(0) + TALL + 2;
    let lines = lines(&nodes);
    let stages = counted(nodes.len() as u64, "stage");
    let words = format!("The way of {stages}; the table of stages says the same");
    html! {
        div.scroll tabindex="0" role="region" aria-label="Way" {
            svg.way width=(width) height=(height) viewBox={ "-1 -1 " (width) " " (height) } role="img" aria-label=(words) {
                @for (critical, path) in lines.iter().take(MAX_LINES) {
                    path.critical[*critical] d=(path) {}
                }
                @for node in &nodes { (drawn(node)) }
            }
        }
        p.legend {
            span.hit { "passed" } span.executed { "runs" } span.failed { "failed" }
            span.merged { "waits for people, or for another attempt" } span.other { "waits, or is left out" }
            span.line { "critical path" }
        }
    }
}

/// Columns by how many stages are before each, rows in the order of the file.
fn nodes(stages: &[PipelineStage]) -> Vec<Node<'_>> {
    let index = |need: &u32| usize::try_from(*need).ok().filter(|at| *at < stages.len());
    let needs: Vec<Vec<usize>> =
        stages.iter().map(|it| it.needs.iter().filter_map(index).collect()).collect();
    let mut depth = vec![0usize; stages.len()];
    for at in order(&needs).unwrap_or_default() {
        let before = needs.get(at).into_iter().flatten().filter_map(|need| depth.get(*need));
        let column = before.max().map_or(0, |deepest| deepest + 1);
        if let Some(place) = depth.get_mut(at) {
            *place = column;
        }
    }
    let mut rows: BTreeMap<usize, usize> = BTreeMap::new();
    let mut nodes = Vec::with_capacity(stages.len());
    for (at, (stage, column)) in stages.iter().zip(depth).enumerate() {
        let row = rows.entry(column).or_default();
        nodes.push(Node { at, stage, x: column * ACROSS, y: *row * DOWN });
        *row += 1;
    }
    nodes
}

/// What leads from one stage to the next, and whether it is critical.
fn lines(nodes: &[Node<'_>]) -> Vec<(bool, String)> {
    let mut lines = Vec::new();
    for node in nodes {
        for need in &node.stage.needs {
            let from = usize::try_from(*need).ok().and_then(|at| nodes.get(at));
            let Some(from) = from else { continue };
            let (x1, y1) = (from.x + WIDE, from.y + TALL / 2);
            let (x2, y2) = (node.x, node.y + TALL / 2);
            let bend = (ACROSS - WIDE) / 2;
            let path = format!(
                "M{x1} {y1} C{} {y1} {} {y2} {x2} {y2}",
                x1 + bend,
                x2.saturating_sub(bend)
            );
            lines.push((from.stage.critical && node.stage.critical, path));
        }
    }
    // The critical ones are drawn last, and first of those for which there is room.
    lines.sort_by_key(|(critical, _)| !*critical);
    lines.truncate(MAX_LINES);
    lines.reverse();
    lines
}

fn drawn(node: &Node<'_>) -> Markup {
    let it = node.stage;
    let class = match it.stands.as_str() {
        "passed" => "hit",
        "running" | "cancelling" => "executed",
        "failed" | "blocked" => "failed",
        "asking" | "pausing" => "merged",
        _ => "cancelled",
    };
    let words = format!(
        "{}: {}{}",
        it.name,
        it.stands.replace('_', " "),
        if it.critical { ", on the critical path" } else { "" }
    );
    html! {
        a href={ "#stage-" (node.at) } aria-label=(visible(&words, 300)) {
            title { (visible(&words, 300)) }
            rect.node.critical[it.critical] x=(node.x) y=(node.y) width=(WIDE) height=(TALL) rx="6" {}
            rect class=(class) x=(node.x) y=(node.y) width="5" height=(TALL) {}
            text x=(node.x + 13) y=(node.y + 19) { (visible(&it.name, MAX_NAME)) }
        }
    }
}
