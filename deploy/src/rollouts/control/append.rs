//! Inputs become events, and these become part of the log: in one step with all that belongs to them.

use std::sync::Arc;

use kiln_cas::records::{Expect, Version, Write};
use kiln_cas::stores::audit::AuditEvent;

use super::error::ControlError;
use super::fold::Fold;
use super::kept::{Good, Head, Rollout};
use super::store::{MAX_EVENTS, put};
use super::{Control, drill, keys, notice, scheduled, words};
use crate::rollouts::machine::{
    End, Event, Input, Logged, Millis, Phase, RolloutState, Why, decide,
};
use crate::rollouts::parts::Target;
use crate::rollouts::plan::is_name;

/// Events of one record.
const BATCH: usize = 2_000;

/// A rollout whose log was read.
pub struct Open {
    pub rollout: Arc<Rollout>,
    pub state: RolloutState,
    /// Of the head.
    version: Version,
    /// Time of the last event: a clock that goes back is not followed.
    last: Millis,
}

/// What is written together with events, if any follow.
#[derive(Default)]
pub struct More {
    pub writes: Vec<Write>,
    pub audit: Vec<AuditEvent>,
    /// What targets say that hinders them, by their names.
    pub hindered: String,
}

/// What became of inputs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Appended {
    /// The inputs mean nothing now.
    Nothing,
    Events(Vec<Event>),
    /// Somebody else wrote: what is known is old.
    Conflict,
}

impl Open {
    /// The time, which never goes back.
    pub fn time(&self, now: Millis) -> Millis {
        now.max(self.last)
    }
}

impl Control {
    /// The state as the log says: only what was appended since it was asked for last is read.
    pub(super) async fn open(&self, id: &str) -> Result<Open, ControlError> {
        let none = || ControlError::NoRollout(id.chars().take(80).collect());
        // The head first: what is appended while the log is read makes it no longer than is known.
        let head = if is_name(id) { self.store.head(id).await? } else { None };
        let (Head { length, abandoned, .. }, version) = head.ok_or_else(none)?;
        // Also where its log is there again: another one may have its place.
        if let Some(said) = abandoned {
            return Err(ControlError::Abandoned { id: id.to_owned(), said });
        }
        let known = self.folds.get(id).filter(|it| it.state.length <= length);
        let fold = match known {
            Some(known) => match self.read_on(id, known, length).await {
                // The store has gone back since, and others went on from there: what is known is of another log.
                Err(ControlError::Missing { .. }) => {
                    self.read_on(id, self.unopened(id).await?, length).await?
                }
                read => read?,
            },
            None => self.read_on(id, self.unopened(id).await?, length).await?,
        };
        self.folds.put(id, fold.clone());
        let Fold { rollout, state, last } = Fold::clone(&fold);
        Ok(Open { rollout, state, version, last })
    }

    /// A rollout of whose log nothing was read.
    pub(super) async fn unopened(&self, id: &str) -> Result<Arc<Fold>, ControlError> {
        Ok(Arc::new(Fold::new(self.store.rollout(id).await?)))
    }

    /// Takes in what a log of this length has beyond what was read of it.
    pub(super) async fn read_on(
        &self,
        id: &str,
        mut fold: Arc<Fold>,
        length: u64,
    ) -> Result<Arc<Fold>, ControlError> {
        while fold.state.length < length {
            let events = self.store.events(id, fold.state.length, length).await?;
            let fold = Arc::make_mut(&mut fold);
            events.iter().for_each(|logged| fold.take(logged));
        }
        Ok(fold)
    }

    /// The targets of a rollout, which never change.
    pub(super) async fn targets_of(
        &self,
        rollout: &Rollout,
    ) -> Result<Arc<Vec<Target>>, ControlError> {
        if let Some(known) = self.targets.get(&rollout.id) {
            return Ok(known);
        }
        let targets = Arc::new(self.store.targets(&rollout.id, rollout.targets).await?);
        self.targets.put(&rollout.id, targets.clone());
        Ok(targets)
    }

    /// Decides about all inputs, one after the other, and appends what follows. `by`: who is noted.
    pub(super) async fn append(
        &self,
        open: &mut Open,
        inputs: &[Input],
        (by, now): (&str, Millis),
        more: More,
    ) -> Result<Appended, ControlError> {
        let now = open.time(now);
        let mut state = open.state.clone();
        let mut events: Vec<Logged> = Vec::new();
        for input in inputs {
            for event in decide(&state, &bounded(&state, input), now) {
                let logged = Logged { at: now, event };
                state.apply(&logged);
                events.push(logged);
            }
        }
        if events.is_empty() {
            return Ok(Appended::Nothing);
        }
        let first = open.state.length;
        let (audit, mut writes) =
            self.belongs(open, (events.as_slice(), &state), (by, &more.hindered)).await?;
        let head = Head::of(&state, now);
        writes.push(put(keys::head(&open.rollout.id), Expect::Version(open.version), &head)?);
        for (at, batch) in events.chunks(BATCH).enumerate() {
            let number = first + (at * BATCH) as u64;
            writes.push(put(keys::events(&open.rollout.id, number), Expect::Absent, &batch)?);
        }
        writes.extend(more.writes);
        let audit = audit.into_iter().chain(more.audit).collect();
        if !self.store.commit(audit, writes).await? {
            return Ok(Appended::Conflict);
        }
        if open.rollout.drill.is_none() {
            self.counters.count(&open.rollout, &events, (&open.state, &state));
        }
        // Where it is not known, or somebody has given it up since, the next append conflicts, and all is read again.
        let written = self.store.head(&open.rollout.id).await.ok().flatten();
        let same = written.filter(|(it, _)| *it == head);
        let version = same.map_or(0, |(_, version)| version);
        (open.state, open.version, open.last) = (state, version, now);
        Ok(Appended::Events(events.into_iter().map(|logged| logged.event).collect()))
    }

    /// Which targets a rollback begins for, with what they say, or what one that failed has left behind, in words.
    async fn which(
        &self,
        open: &Open,
        (events, state): (&[Logged], &RolloutState),
        hindered: &str,
    ) -> String {
        let why = events.iter().find_map(|it| match &it.event {
            Event::RollbackBegan(why) => Some(why),
            _ => None,
        });
        let failed = state.phase == Phase::Ended(End::RollbackFailed);
        if why.is_none() && !failed {
            return String::new();
        }
        // That names are not known holds up nothing.
        let targets = self.targets_of(&open.rollout).await.unwrap_or_default();
        match why {
            Some(Why::Stuck(_)) if !hindered.is_empty() => hindered.to_owned(),
            Some(why) => words::blamed(why, &open.state, events, &targets),
            None => words::left(state, &targets),
        }
    }

    /// What is noted of events, told of them, and follows from a good end. `state`: the one behind the events.
    async fn belongs(
        &self,
        open: &Open,
        (events, state): (&[Logged], &RolloutState),
        (by, hindered): (&str, &str),
    ) -> Result<(Vec<AuditEvent>, Vec<Write>), ControlError> {
        let rollout = &open.rollout;
        let (mut audit, mut writes) = (Vec::new(), Vec::new());
        let which = self.which(open, (events, state), hindered).await;
        for (line, notice) in
            notice::of_events(rollout, by, events, (open.state.length, which.as_str()))
        {
            audit.push(line);
            if self.parts.tells {
                let key = keys::notice(&rollout.id, notice.number);
                writes.push(put(key, Expect::Anything, &notice)?);
            }
        }
        let good = |logged: &Logged| logged.event == Event::Ended(End::Succeeded);
        if rollout.drill.is_none() && events.iter().any(good) {
            let standing = self.store.standing_of(rollout).await?;
            let expect = standing.expect();
            let mut standing = standing.value;
            let (release, version) = (rollout.release.clone(), rollout.spec.new.clone());
            standing.good = Some(Good { release, version });
            writes.push(put(keys::place(&rollout.place), expect, &standing)?);
            let now = events.last().map_or(0, |logged| logged.at);
            let version = self.drilled(&rollout.declared, &rollout.place).await;
            writes.extend(scheduled::follows(&self.store, rollout, (now, version)).await?);
        }
        if let Some(drill) = drill::judged(rollout, &open.state, events) {
            writes.extend(drill::kept(&drill)?);
        }
        Ok((audit, writes))
    }
}

/// A log that is too long means that something flaps: it is reverted, and what only describes is dropped.
fn bounded(state: &RolloutState, input: &Input) -> Input {
    match input {
        Input::Tick | Input::Blind | Input::Observed(..) | Input::Fleet(_)
            if state.length >= MAX_EVENTS && state.is_forward() =>
        {
            Input::Abort(format!("kiln: more than {MAX_EVENTS} events, so something flaps"))
        }
        // Beyond twice as many it is left alone.
        Input::Observed(..) if state.length >= 2 * MAX_EVENTS => Input::Start,
        input => input.clone(),
    }
}
