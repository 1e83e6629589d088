//! The sections of the screen, each written for a width. Which of their lines there is room for is
//! decided in `draw.rs`.

use kiln_net::counts::times;
use kiln_web::format::counted;
use kiln_web::json::{RolloutLook, RolloutShown, RolloutStep};
use ratatui::text::{Line, Span};

use super::looks::{Looks, Tone};
use super::measured;
use super::state::Screen;
use super::words::{between, clean, clock, lasting, until, width, wrapped};
use crate::cli::rollout::show::phase;

/// The width in columns from which a step is shown with its words.
const WIDE: usize = 60;
/// Columns of the bar of targets at most.
const MAX_BAR: usize = 40;
/// Reasons of one look, targets and events that are written down.
const MAX_REASONS: usize = 5;
const MAX_TARGETS: usize = 20;
const MAX_EVENTS: usize = 200;

/// A heading with its lines.
pub struct Section {
    pub title: String,
    pub lines: Vec<Line<'static>>,
    /// The place of the line in `lines` that has to be seen.
    pub focus: usize,
}

impl Section {
    fn new(title: impl Into<String>, lines: Vec<Line<'static>>) -> Self {
        Self { title: title.into(), lines, focus: 0 }
    }
}

fn text(text: &str, columns: usize) -> Vec<Line<'static>> {
    wrapped(text, columns, 2).into_iter().map(Line::from).collect()
}

/// The head of the screen: which rollout it is, where it stands, and what comes next.
pub fn head(screen: &Screen, columns: usize, looks: Looks) -> Vec<Line<'static>> {
    let it = &screen.shown;
    let one = &it.rollout;
    let tone = match one.phase.as_str() {
        "succeeded" => Tone::Good,
        "rolling_back" | "rolled_back" | "rollback_failed" | "rejected" | "overtaken" => Tone::Bad,
        _ => Tone::Busy,
    };
    let title = format!(
        "{} for {} in {}",
        clean(&one.release),
        clean(&one.service),
        clean(&one.environment)
    );
    let mut lines: Vec<_> = wrapped(&title, columns, 2)
        .into_iter()
        .map(|line| Line::styled(line, looks.style(Tone::Strong)))
        .collect();
    let mut standing = vec![Span::styled(clean(&phase(one)), looks.style(tone))];
    if let Some(since) = between(&it.since, &it.now) {
        let age = i64::try_from(screen.age.as_secs()).unwrap_or(0);
        standing.push(Span::raw(format!(" for {}", lasting(since.saturating_add(age)))));
    }
    lines.push(Line::from(standing));
    lines.push(progress(it, columns, looks));
    if let Some(left) = it.next.as_deref().and_then(|at| until(at, &it.now, screen.age)) {
        lines.extend(text(&format!("next decision in {}", lasting(left)), columns));
    }
    if let Some(left) = it.deadline.as_deref().and_then(|at| until(at, &it.now, screen.age)) {
        lines.extend(text(&format!("given up and reverted in {}", lasting(left)), columns));
    }
    if let Some(down) = it.crowded {
        let down = counted(down as u64, "target");
        lines.extend(text(&format!("down: {down}; the next ones wait"), columns));
    }
    for (what, said) in
        [("waits", &it.waits_for), ("paused", &it.paused_why), ("reverted because", &it.why)]
    {
        if let Some(said) = said {
            let said = wrapped(&format!("{what}: {}", clean(said)), columns, 2);
            lines.extend(said.into_iter().map(|line| Line::styled(line, looks.style(Tone::Bad))));
        }
    }
    if let Some(took) = it.reverted_s {
        lines.extend(text(&format!("reverted within {took:.1} s"), columns));
    }
    let previous = one.previous.as_deref().unwrap_or("nothing: it is the first");
    lines.extend(text(&format!("returns to {}", clean(previous)), columns));
    let began = format!("began by {}: {}", clean(&one.by), clean(&one.reason));
    lines.extend(
        wrapped(&began, columns, 2)
            .into_iter()
            .map(|line| Line::styled(line, looks.style(Tone::Dim))),
    );
    lines
}

/// A bar with the numbers of targets that were told to change, and of those that have settled.
fn progress(it: &RolloutShown, columns: usize, looks: Looks) -> Line<'static> {
    let one = &it.rollout;
    let settled = it.told.iter().filter(|it| it.standing == "settled").count();
    let said = format!(" {} of {} told, {settled} settled", one.changed, one.targets);
    let room = columns.saturating_sub(width(&said)).min(MAX_BAR);
    let share = one.changed as f64 / one.targets.max(1) as f64;
    Line::from(vec![Span::styled(looks.bar(share, room), looks.style(Tone::Busy)), Span::raw(said)])
}

pub fn steps(it: &RolloutShown, columns: usize, looks: Looks) -> Section {
    let lines =
        it.steps.iter().map(|step| of_step(step, it.rollout.targets, columns, looks)).collect();
    let focus = it.steps.iter().position(|step| step.standing == "now");
    let done = it.steps.iter().filter(|step| step.standing == "done").count();
    Section { focus: focus.unwrap_or(done.saturating_sub(1)), ..Section::new("steps", lines) }
}

fn of_step(step: &RolloutStep, targets: usize, columns: usize, looks: Looks) -> Line<'static> {
    let (mark, tone) = looks.standing(&step.standing);
    let traffic =
        step.traffic.map(|share| format!(", {share} % of the requests")).unwrap_or_default();
    let said = match columns < WIDE {
        true => {
            let gate = if step.gate { ", gate" } else { "" };
            format!("{}/{targets}, {}{gate}", step.targets, lasting_of(step.bake_s))
        }
        false => {
            let gate = if step.gate { ", a person lets it in" } else { "" };
            format!(
                "{} of {targets} targets{traffic}, bakes {}{gate}",
                step.targets,
                lasting_of(step.bake_s)
            )
        }
    };
    let style = looks.style(tone);
    Line::from(vec![
        Span::styled(format!("{mark} {:<8}", clean(&step.name)), style),
        Span::raw(format!(" {said}")),
    ])
}

fn lasting_of(seconds: u64) -> String {
    lasting(i64::try_from(seconds).unwrap_or(i64::MAX))
}

/// The section about targets: how many are compared, and those that are not there yet.
pub fn cohorts(it: &RolloutShown, columns: usize, looks: Looks) -> Section {
    let mut lines = Vec::new();
    if let Some(look) = latest(it) {
        let compared = match look.baseline {
            0 => format!(
                "{} with the new version, none with the old one is left to compare with",
                look.canary
            ),
            old => {
                format!("{} with the new version, compared with {old} of the old one", look.canary)
            }
        };
        lines.extend(text(&compared, columns));
    }
    let late = it.told.iter().filter(|target| target.standing != "settled");
    for target in late.take(MAX_TARGETS) {
        let tone = if target.standing == "waits" { Tone::Busy } else { Tone::Bad };
        lines.push(Line::from(vec![
            Span::raw(format!("{} ", clean(&target.name))),
            Span::styled(clean(&target.standing), looks.style(tone)),
        ]));
    }
    Section::new("targets", lines)
}

/// The newest look at measurements, if there was one.
pub fn latest(it: &RolloutShown) -> Option<&RolloutLook> {
    it.latest.as_ref().or(it.judgements.first())
}

pub fn verdict(it: &RolloutShown, columns: usize, looks: Looks) -> Section {
    let Some(look) = latest(it) else {
        let line = Line::styled("nothing was measured yet", looks.style(Tone::Dim));
        return Section::new("the judge", vec![line]);
    };
    let tone = match look.verdict.as_str() {
        "promote" => Tone::Good,
        "rollback" => Tone::Bad,
        _ => Tone::Busy,
    };
    let breach = if look.breach { ", a limit is broken" } else { "" };
    let mut lines = vec![Line::from(vec![
        Span::styled(clean(&look.verdict), looks.style(tone)),
        Span::raw(format!("{breach} at {}", clock(&look.at))),
    ])];
    for reason in look.reasons.iter().take(MAX_REASONS) {
        lines.extend(text(&clean(reason), columns));
    }
    if it.extensions > 0 {
        lines.extend(text(
            &format!("watched {} more, because it could not decide", times(it.extensions)),
            columns,
        ));
    }
    Section::new("the judge", lines)
}

pub fn metrics(it: &RolloutShown, columns: usize, looks: Looks) -> Section {
    let lines = latest(it).map(|look| measured::lines(look, columns, looks)).unwrap_or_default();
    Section::new("measured", lines)
}

/// The events of a rollout, newest first. `rows`: lines that there is room for at most; of the
/// events behind them only the number is shown.
pub fn events(it: &RolloutShown, (columns, rows): (usize, usize), looks: Looks) -> Section {
    let told = it.events.iter().rev().filter_map(|event| Some((event, event.text.as_ref()?)));
    let mut lines = Vec::new();
    for (event, said) in told.take(MAX_EVENTS) {
        if lines.len() >= rows {
            lines.push(Line::default());
            continue;
        }
        let mut said =
            wrapped(&format!("{} {}", clock(&event.at), clean(said)), columns, 9).into_iter();
        if let Some(first) = said.next() {
            let (time, rest) = first.split_once(' ').unwrap_or(("", first.as_str()));
            lines.push(Line::from(vec![
                Span::styled(format!("{time} "), looks.style(Tone::Dim)),
                Span::raw(rest.to_owned()),
            ]));
        }
        lines.extend(said.map(Line::from));
    }
    Section::new("what happened", lines)
}
