//! What the audit log says of runs.

use serde_json::json;

use super::kept::Run;
use crate::model::Time;
use crate::pipelines::machine::{Event, Logged, RunState, StopWhy};
use crate::verdicts::Note;

/// Characters of a text in the audit log.
const MAX_TEXT: usize = 2_000;

fn note(run: &Run, at: Time, (actor, action): (&str, &str), details: &serde_json::Value) -> Note {
    Note {
        at,
        actor: actor.to_owned(),
        action: format!("pipelines.{action}"),
        subject: subject(run),
        details: details.to_string(),
    }
}

fn subject(run: &Run) -> String {
    format!("{}/{}", run.pipeline, run.id)
}

/// A run was given up; `None`: nobody can read what it is.
pub fn abandoned(id: &str, run: Option<&Run>, (by, reason): (&str, &str), at: Time) -> Note {
    let group = run.and_then(|it| it.group.as_deref());
    Note {
        at,
        actor: by.to_owned(),
        action: "pipelines.abandon".to_owned(),
        subject: run.map_or_else(|| id.to_owned(), subject),
        details: json!({ "group": group, "reason": cut(reason) }).to_string(),
    }
}

pub fn begun(run: &Run) -> Note {
    let details = json!({
        "trigger": run.trigger, "branch": run.branch, "commit": run.commit, "group": run.group,
        "stages": run.stages,
    });
    note(run, run.at, (&run.by, "start"), &details)
}

/// What people said, and how it ended.
pub fn of_events(run: &Run, state: &RunState, events: &[Logged]) -> Vec<Note> {
    let name = |stage: &u32| {
        let at = usize::try_from(*stage).ok();
        at.and_then(|at| state.spec.stages.get(at)).map(|it| it.name.as_str()).unwrap_or_default()
    };
    let of = |logged: &Logged| {
        let (actor, action, details) = match &logged.event {
            Event::Approved { stage, by, reason } => {
                (by.as_str(), "approve", json!({ "stage": name(stage), "reason": cut(reason) }))
            }
            Event::Refused { stage, by, reason } => {
                (by.as_str(), "refuse", json!({ "stage": name(stage), "reason": cut(reason) }))
            }
            Event::Stopped(StopWhy::Cancelled { by, reason }) => {
                (by.as_str(), "cancel", json!({ "reason": cut(reason) }))
            }
            Event::Stopped(StopWhy::Superseded { run }) => {
                ("kiln", "supersede", json!({ "by": run }))
            }
            Event::Stopped(StopWhy::Fault { reason }) => {
                ("kiln", "give_up", json!({ "reason": cut(reason) }))
            }
            Event::Resumed { by, reason } => {
                (by.as_str(), "resume", json!({ "reason": cut(reason) }))
            }
            Event::Finished { end } => ("kiln", "finish", json!({ "end": end })),
            _ => return None,
        };
        Some(note(run, logged.at, (actor, action), &details))
    };
    events.iter().filter_map(of).collect()
}

pub fn cut(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}
