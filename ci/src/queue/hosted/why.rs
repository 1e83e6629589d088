//! Why a change has not landed yet, in words.

use super::line::Line;
use super::news::held;
use crate::queue::{Change, ChangeId, Lane, Phase, Run, Standing};

/// The standing of a change, as one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    Waiting,
    /// The change passed in another batch.
    Screened,
    Held,
    Checking,
    /// The run of the change passed.
    Passed,
    Landing,
}

impl Place {
    pub fn name(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Screened => "screened",
            Self::Held => "held",
            Self::Checking => "checking",
            Self::Passed => "passed",
            Self::Landing => "landing",
        }
    }
}

/// The runs that a change is in, with its head as it is.
pub fn runs_of(lane: &Lane, id: ChangeId) -> impl Iterator<Item = &Run> {
    let head = lane.changes.get(&id).map(|it| &it.head);
    let is_in =
        move |run: &&Run| run.members.iter().any(|it| it.id == id && Some(&it.head) == head);
    lane.runs.values().filter(is_in)
}

pub fn place(lane: &Lane, change: &Change) -> Place {
    let furthest = |run: &Run| match run.phase {
        Phase::Landing => 2,
        Phase::Passed | Phase::Proving | Phase::Comparing => 1,
        Phase::Checking => 0,
    };
    match runs_of(lane, change.id).map(furthest).max() {
        Some(2) => Place::Landing,
        Some(1) => Place::Passed,
        Some(_) => Place::Checking,
        None => match change.standing {
            Standing::Held(_) => Place::Held,
            Standing::Screened => Place::Screened,
            Standing::Waiting => Place::Waiting,
        },
    }
}

/// What the change waits for, in words.
pub fn why(lane: &Lane, line: &Line, change: &Change) -> String {
    if let Standing::Held(why) = &change.standing {
        return match why {
            crate::queue::Held::RedBase(_) => {
                format!("{}: it is tried again when the target moves", held(why))
            }
            crate::queue::Held::Unfetched(words) if words == crate::queue::COMING => held(why),
            crate::queue::Held::Refused(_) | crate::queue::Held::Unfetched(_) => {
                format!("{}: add it again to try again", held(why))
            }
        };
    }
    let run = runs_of(lane, change.id).last();
    let others = |run: &Run| match run.members.len().saturating_sub(1) {
        0 => "by itself".to_owned(),
        1 => "with 1 other".to_owned(),
        more => format!("with {more} others"),
    };
    let paused = lane.paused.as_ref().map(|it| format!("the queue is paused: {it}"));
    match (run.map(|it| (it, it.phase)), paused) {
        (Some((run, Phase::Landing)), _) => format!("it lands with run {}", run.id.0),
        (Some((run, Phase::Passed | Phase::Comparing)), None) => {
            format!("it passed in run {}, which waits for what lands before it", run.id.0)
        }
        (Some((run, Phase::Proving)), None) => {
            format!(
                "it passed in run {}, and is compared with the target, which has moved",
                run.id.0
            )
        }
        (Some((run, Phase::Checking)), None) => {
            format!("it is tested {} in run {}", others(run), run.id.0)
        }
        (Some((run, Phase::Checking)), Some(paused)) => {
            format!("it is tested {} in run {}; {paused}", others(run), run.id.0)
        }
        (_, Some(paused)) => paused,
        (None, None) => waits(lane, line, change),
    }
}

fn waits(lane: &Lane, line: &Line, change: &Change) -> String {
    let Some(base) = &lane.base else {
        return "it is not known yet where the target is".to_owned();
    };
    if change.clashed.as_ref() == Some(&base.commit) {
        return "it conflicts with another change that waits, and is tried again when that one has landed or gone"
            .to_owned();
    }
    if change.standing == Standing::Screened {
        return "it passed in another batch, and is in the next one that lands".to_owned();
    }
    let suspects = lane.failures.iter().find(|it| it.suspects.contains(&change.id));
    if let Some(failure) = suspects {
        let named = match failure.targets.is_empty() {
            true => "a check".to_owned(),
            false => failure.targets.join(", "),
        };
        return match failure.suspects.len() {
            1 => format!("{named} failed with it: it is tested again"),
            2 => format!("{named} failed with it or another one"),
            several => format!("{named} failed with it or one of {} others", several - 1),
        };
    }
    if let Some(why) = change.why_passed_over() {
        return why;
    }
    let before = line.before(change.id).map_or(0, |it| it.all);
    let running = lane.runs.values().filter(|it| it.phase == Phase::Checking).count();
    let workers = lane.options.workers.max(1);
    let ahead = match before {
        0 => "it is next".to_owned(),
        1 => "1 change is before it".to_owned(),
        more => format!("{more} changes are before it"),
    };
    match (running >= workers, workers) {
        (true, 1) => format!("{ahead}, and the only worker is busy"),
        (true, _) => format!("{ahead}, and all {workers} workers are busy"),
        (false, _) => ahead,
    }
}
