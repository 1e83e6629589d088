//! What people say of runs, and what they are shown.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::{StreamExt, stream};

use super::Control;
use super::append::Appended;
use super::error::ControlError;
use super::kept::{Head, Run};
use super::keys;
use super::notes::cut;
use super::open::Open;
use crate::model::Time;
use crate::pipelines::machine::{Input, MAX_RESUMES, RunState, Standing, StopWhy};
use crate::pipelines::runner::TaskKey;
use crate::pipelines::stage::Work;

/// How often it is tried while others write.
const ATTEMPTS: usize = 20;
/// Characters of a reason.
pub(super) const MAX_REASON: usize = 2_000;
/// Events of a history that may be resumed.
const MAX_EVENTS: u64 = 200_000;
/// Heads that are read at the same time.
const AT_ONCE: usize = 16;
/// Parts of a log that are read at once: a command that prints a little all the time has two a second. All of them together are
/// no longer than a log may be.
const PARTS: usize = 500;

/// What somebody says of a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    Cancel,
    Resume,
    /// The name of the stage that is approved of; `None`: the one that asks.
    Approve(Option<String>),
    Refuse(Option<String>),
}

/// A run in a list. Without a head it is being removed.
#[derive(Debug, Clone)]
pub struct Listed {
    pub run: Run,
    pub head: Head,
}

/// A run with all that is known of it.
pub struct Shown {
    pub run: Arc<Run>,
    pub state: RunState,
    pub now: Time,
    /// What stages do now, by their indexes; known where the run is driven.
    pub lines: BTreeMap<u32, String>,
}

/// A part of what an attempt printed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogPart {
    pub bytes: Vec<u8>,
    /// What to ask for next.
    pub next: u64,
    /// Whether nothing comes behind this part any more.
    pub is_end: bool,
}

impl Control {
    /// Newest first, but those that cannot be read.
    pub async fn list(
        &self,
        before: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Listed>, ControlError> {
        let mut before = before.filter(|it| keys::is_id(it)).map(keys::run);
        let mut listed: Vec<Listed> = Vec::new();
        // Whoever asks takes a short list for the last one.
        while listed.len() < limit {
            let (runs, next) = self.store.runs(before.as_deref(), limit).await?;
            let asked: Vec<_> = runs.iter().map(|run| self.store.head(&run.id)).collect();
            let heads: Vec<_> = stream::iter(asked).buffered(AT_ONCE).collect().await;
            for (run, head) in runs.into_iter().zip(heads) {
                let head = self.store.readable(head)?.flatten();
                listed.extend(head.map(|(head, _)| Listed { run, head }));
            }
            before = next;
            if before.is_none() {
                break;
            }
        }
        listed.truncate(limit);
        Ok(listed)
    }

    pub async fn show(&self, id: &str) -> Result<Shown, ControlError> {
        let open = self.open(id).await?;
        let now = open.time(self.now());
        let lines = self.lines().get(id).cloned().unwrap_or_default();
        Ok(Shown { run: open.run, state: open.state, now, lines })
    }

    /// What a run is, without its history.
    pub async fn of(&self, id: &str) -> Result<Run, ControlError> {
        self.store.run(id).await
    }

    /// What an attempt printed from an offset on, which is 0 or what the last answer named.
    pub async fn log(
        &self,
        (id, stage, attempt): (&str, u32, u32),
        offset: u64,
    ) -> Result<LogPart, ControlError> {
        let run = self.store.run(id).await?;
        let key = TaskKey { run: run.id, stage, attempt };
        // Whether it has ended first: what it printed is kept before that.
        let is_over = self.store.head(id).await?.is_none_or(|(head, _)| head.stands.is_end());
        let after = offset.checked_sub(1).map(|before| keys::chunk(&key, before));
        let prefix = keys::text(&key);
        let found = self.store.records.list(&prefix, after.as_deref(), false, PARTS).await?;
        let is_end = is_over && found.len() < PARTS;
        let mut part = LogPart { next: offset, is_end, ..LogPart::default() };
        for record in found {
            let value: &Bytes = &record.value;
            part.bytes.extend_from_slice(value);
            let start = keys::offset(&record.key).unwrap_or(part.next);
            part.next = start + value.len() as u64;
        }
        Ok(part)
    }

    /// Any frontend takes this in. What a run is told twice it is told once.
    pub async fn say(
        &self,
        id: &str,
        said: &Said,
        (by, reason): (&str, &str),
    ) -> Result<(), ControlError> {
        let needs_reason = !matches!(said, Said::Approve(_));
        if reason.chars().count() > MAX_REASON || (needs_reason && reason.trim().is_empty()) {
            return Err(ControlError::Reason);
        }
        for _ in 0..ATTEMPTS {
            let mut open = self.open(id).await?;
            let input = input(&open, said, (by, reason))?;
            match self.append(&mut open, &[input], self.now()).await? {
                Appended::Conflict => {}
                Appended::Nothing => {
                    let stands = super::kept::Stands::of(&open.state).word();
                    let message = format!("that changes nothing: the run is {stands}");
                    return Err(ControlError::NotNow(message));
                }
                Appended::Events(_) => {
                    self.wake.notify_waiters();
                    return Ok(());
                }
            }
        }
        Err(ControlError::Restless)
    }
}

fn input(open: &Open, said: &Said, (by, reason): (&str, &str)) -> Result<Input, ControlError> {
    let (by, reason) = (by.to_owned(), cut(reason));
    Ok(match said {
        Said::Cancel => Input::Stop(StopWhy::Cancelled { by, reason }),
        Said::Resume => {
            let full = open.state.resumed >= MAX_RESUMES || open.state.length > MAX_EVENTS;
            if full {
                return Err(ControlError::Resumes);
            }
            Input::Resume { by, reason }
        }
        Said::Approve(name) => {
            let stage = asking(&open.state, name.as_deref())?;
            may_approve(&open.state, stage, &by)?;
            Input::Approve { stage, by, reason }
        }
        Said::Refuse(name) => {
            Input::Refuse { stage: asking(&open.state, name.as_deref())?, by, reason }
        }
    })
}

/// The stage of this name, if it asks people; without a name the only one that does.
fn asking(state: &RunState, name: Option<&str>) -> Result<u32, ControlError> {
    let asks = |at: &usize| {
        matches!(state.stages.get(*at).map(|it| &it.standing), Some(Standing::Asking { .. }))
    };
    let number = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    let stages = &state.spec.stages;
    if let Some(name) = name {
        let at = stages.iter().position(|it| it.name == name);
        let at = at.ok_or_else(|| ControlError::NoStage(name.chars().take(200).collect()))?;
        let message = || ControlError::NotNow(format!("the stage {name:?} waits for nobody"));
        return asks(&at).then(|| number(at)).ok_or_else(message);
    }
    let all: Vec<usize> = (0..stages.len()).filter(asks).collect();
    match all[..] {
        [one] => Ok(number(one)),
        [] => Err(ControlError::NotNow("no stage waits for people now".to_owned())),
        _ => {
            let names = all.iter().filter_map(|at| stages.get(*at)).map(|it| it.name.as_str());
            let names: Vec<_> = names.take(10).collect();
            let message = format!("several stages wait for people: {}", names.join(", "));
            Err(ControlError::NotNow(message))
        }
    }
}

fn may_approve(state: &RunState, stage: u32, by: &String) -> Result<(), ControlError> {
    let at = usize::try_from(stage).unwrap_or(usize::MAX);
    let (Some(plan), Some(is)) = (state.spec.stages.get(at), state.stages.get(at)) else {
        return Ok(());
    };
    let Work::Approve(asked) = &plan.work else { return Ok(()) };
    let message = if !asked.by.is_empty() && !asked.by.contains(by) {
        format!("{:?} is approved by: {}", plan.name, asked.by.join(", "))
    } else if !asked.own && *by == state.spec.by {
        "you began this run: somebody else has to approve it".to_owned()
    } else if is.approved.contains(by) {
        format!("you have approved it already; {} approvals are needed", asked.count)
    } else {
        return Ok(());
    };
    Err(ControlError::NotNow(message))
}
