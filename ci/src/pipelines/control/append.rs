//! What a run is told becomes events, and these become part of its history, in one step with all that belongs to them.

use std::sync::Arc;
use std::time::Duration;

use super::Control;
use super::error::ControlError;
use super::kept::{Head, Run};
use super::keys;
use super::notes;
use super::store::{Loaded, Store, delete, parts, put};
use crate::model::Time;
use crate::pipelines::file::Busy;
use crate::pipelines::machine::{Event, Input, Logged, Spec, State, step};
use crate::storage::{Expect, Write};

/// A run whose history was read.
pub struct Open {
    pub run: Arc<Run>,
    pub state: State,
    pub version: u64,
    /// Time of the last event: a clock that goes back is not followed.
    last: Time,
}

/// What became of what a run was told.
#[derive(Debug, PartialEq, Eq)]
pub enum Appended {
    Nothing,
    Events(Vec<Logged>),
    /// Somebody else wrote. What is known is old, and has to be read again.
    Conflict,
}

impl Open {
    fn of(loaded: Loaded) -> Self {
        let timeout = Duration::from_millis(loaded.run.timeout_ms);
        let spec = Spec::new(loaded.stages, &loaded.run.by, timeout, loaded.run.most);
        Self {
            state: State::replay(Arc::new(spec), &loaded.log),
            version: loaded.version,
            last: loaded.log.last().map_or(loaded.run.at, |logged| logged.at),
            run: Arc::new(loaded.run),
        }
    }

    /// The time, which never goes back.
    pub fn time(&self, now: Time) -> Time {
        now.max(self.last)
    }
}

impl Control {
    pub(super) async fn open(&self, id: &str) -> Result<Open, ControlError> {
        Ok(Open::of(self.store.load(id).await?))
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
        // Where it is not known, the next append conflicts, and all is read again.
        let written = self.store.head(&open.run.id).await.ok().flatten();
        let same = written.filter(|(head, _)| head.length == open.state.length);
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
