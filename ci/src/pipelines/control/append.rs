//! What a run is told becomes events, and these become part of its history, in one step with all that belongs to them.

use std::sync::Arc;

use super::Control;
use super::error::ControlError;
use super::kept::{Head, Run};
use super::keys;
use super::notes;
use super::open::Open;
use super::store::{Store, delete, parts, put};
use crate::model::Time;
use crate::pipelines::file::Busy;
use crate::pipelines::machine::{Event, Input, Logged, step};
use crate::storage::{Expect, Write};

/// What became of what a run was told.
#[derive(Debug, PartialEq, Eq)]
pub enum Appended {
    Nothing,
    Events(Vec<Logged>),
    /// Somebody else wrote. What is known is old, and has to be read again.
    Conflict,
}

impl Control {
    /// A run as its history says: only what was appended since it was asked for last is read.
    pub(super) async fn open(&self, id: &str) -> Result<Open, ControlError> {
        let none = || ControlError::NoRun(id.chars().take(40).collect());
        // The head first: what is appended while the history is read makes it no longer than is known.
        let head = if keys::is_id(id) { self.store.head(id).await? } else { None };
        let (Head { length, abandoned, .. }, version) = head.ok_or_else(none)?;
        // Also where its history is there again: others of its group may have had their turns.
        if let Some(said) = abandoned {
            return Err(ControlError::Abandoned { id: id.to_owned(), said });
        }
        let known = self.opened.get(id).filter(|it| it.state.length <= length);
        let open = match known {
            Some(known) => match self.read_on(id, known, length).await {
                // The store has gone back since, and others went on from there: what is known is of another history.
                Err(ControlError::Missing { .. }) => {
                    self.read_on(id, self.unopened(id).await?, length).await?
                }
                read => read?,
            },
            None => self.read_on(id, self.unopened(id).await?, length).await?,
        };
        self.opened.put(id, open.clone());
        Ok(Open { version, ..Open::clone(&open) })
    }

    /// A run of whose history nothing was read.
    pub(super) async fn unopened(&self, id: &str) -> Result<Arc<Open>, ControlError> {
        let run = self.store.run(id).await?;
        let stages = self.store.stages(&run).await?;
        Ok(Arc::new(Open::new(run, stages)))
    }

    /// Takes in what a history of this length has beyond what was read of it.
    pub(super) async fn read_on(
        &self,
        id: &str,
        mut open: Arc<Open>,
        length: u64,
    ) -> Result<Arc<Open>, ControlError> {
        while open.state.length < length {
            let events = self.store.events(id, open.state.length, length).await?;
            let open = Arc::make_mut(&mut open);
            events.iter().for_each(|logged| open.take(logged));
        }
        Ok(open)
    }

    /// Tells a run all of these, and appends what follows. After a conflict, and after an error, `open` is no more what is written.
    pub(super) async fn append(
        &self,
        open: &mut Open,
        inputs: &[Input],
        now: Time,
    ) -> Result<Appended, ControlError> {
        let now = open.time(now);
        let first = open.state.length;
        let mut events: Vec<Logged> = Vec::new();
        for input in inputs {
            events.extend(step(&mut open.state, input, now));
        }
        if events.is_empty() {
            return Ok(Appended::Nothing);
        }
        let head = Head::of(&open.state);
        let key = keys::head(&open.run.id);
        let mut writes = vec![put(key, Expect::Version(open.version), &head)?];
        for (at, value) in parts(&events)? {
            let key = keys::events(&open.run.id, first + at as u64);
            writes.push(Write { key, expect: Expect::Absent, value: Some(value) });
        }
        writes.extend(self.follows(&open.run, &events).await?);
        let notes = notes::of_events(&open.run, &open.state, &events);
        if !self.store.commit(notes, writes).await? {
            return Ok(Appended::Conflict);
        }
        if open.state.is_over() {
            // The next one of its group has its turn.
            self.wake.notify_waiters();
        }
        // Where it is not known, or somebody has given the run up since, the next append conflicts, and all is read again.
        let written = self.store.head(&open.run.id).await.ok().flatten();
        let same = written.filter(|(it, _)| *it == head);
        open.version = same.map_or(0, |(_, version)| version);
        open.last = now;
        Ok(Appended::Events(events))
    }

    /// A run that has ended makes room in its group; one that is resumed takes its place there.
    async fn follows(&self, run: &Run, events: &[Logged]) -> Result<Vec<Write>, ControlError> {
        let resumed = events.iter().any(|it| matches!(it.event, Event::Resumed { .. }));
        let finished = events.iter().any(|it| matches!(it.event, Event::Finished { .. }));
        if !resumed && !finished {
            return Ok(Vec::new());
        }
        let active = keys::active(&run.id);
        let mut writes = vec![match finished {
            true => delete(active),
            false => put(active, Expect::Anything, &run.at)?,
        }];
        if let Some(name) = &run.group {
            let (mut group, expect) = self.store.group(name).await?;
            let before = group.clone();
            match finished {
                true => group.leave(&run.id),
                false => group.enter(&run.id, Busy::Queue)?,
            }
            if group != before {
                writes.push(Store::keep_group(&group, expect)?);
            }
        }
        Ok(writes)
    }
}
