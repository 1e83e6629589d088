//! Events in, effects out.

use std::collections::BTreeMap;

use super::change::{Change, ChangeId, End, Ended, Standing};
use super::event::{Add, Effect, Event, Refused, RunId};
use super::lane::{Base, Lane, MAX_CHANGES, Phase};
use super::names::{Branch, Commit};
use super::options::Mode;
use crate::model::Time;

impl Lane {
    /// Takes an event in, and says what is to be done about it. What is to be told comes last.
    pub fn apply(&mut self, event: Event, now: Time) -> Result<Vec<Effect>, Refused> {
        let before = self.outstanding();
        self.take(event, now)?;
        self.plan(now);
        let after = self.outstanding();
        let gone = before.iter().filter(|(run, effect)| is_work(effect) && !self.checks(**run));
        let mut effects: Vec<_> = gone.map(|(run, _)| Effect::Cancel(*run)).collect();
        let is_new = |(run, effect): &(&_, &Effect)| {
            // A run that goes on upon what it began with is no other one.
            before.get(*run).is_none_or(|it| is_other(it, effect))
        };
        effects.extend(after.iter().filter(is_new).map(|(_, effect)| effect.clone()));
        effects.extend(std::mem::take(&mut self.told).into_iter().map(Effect::Tell));
        Ok(effects)
    }

    /// What still is to be done of what was before some events. Where a run wants something else by now, that was the
    /// answer to one of these events.
    pub fn still_outstanding(&self, before: &BTreeMap<RunId, Effect>) -> Vec<Effect> {
        let still = |(run, effect): (RunId, Effect)| {
            before.get(&run).is_some_and(|it| !is_other(it, &effect)).then_some(effect)
        };
        self.outstanding().into_iter().filter_map(still).collect()
    }

    /// Whether the check of a run goes on, or has ended.
    fn checks(&self, run: RunId) -> bool {
        self.runs.contains_key(&run)
    }

    fn take(&mut self, event: Event, now: Time) -> Result<(), Refused> {
        match event {
            Event::Add(add) => self.add(add, now)?,
            Event::Absent(branch) => self.absent(branch, now),
            Event::Remove(id) => self.remove(id, End::Removed, now)?,
            Event::Pushed { id, head } => self.pushed(id, head),
            Event::Unfetched { id, head, why } => self.unfetched(id, head, why),
            Event::Cost { id, head, cost } => self.note_cost(id, &head, cost),
            Event::Deleted(id) => self.remove(id, End::Deleted, now)?,
            Event::Merged(id) => self.remove(id, End::Merged, now)?,
            Event::Target(commit) => self.moved(commit),
            Event::Built { run, commit, left_out } => self.built(run, commit, &left_out, now),
            Event::Finished { run, outcome } => self.finished(run, outcome),
            Event::Proven { run, base, commit } => self.proven(run, &base, commit),
            Event::Compared { run, with, clear } => self.compared(run, with, clear),
            Event::Landed(run) => self.landed(run, now),
            Event::NotLanded { run, why } => self.not_landed(run, why),
            Event::Pause(why) => self.paused = Some(why),
            Event::Resume => (self.paused, self.unable, self.refused) = (None, 0, 0),
            Event::Mode(mode) => self.set_mode(mode),
            Event::Tick => {}
        }
        Ok(())
    }

    fn plan(&mut self, now: Time) {
        self.settle();
        if self.paused.is_some() || self.base.is_none() {
            return;
        }
        match self.options.mode {
            Mode::Throughput => self.plan_throughput(now),
            Mode::Latency => self.plan_latency(now),
        }
    }

    fn add(&mut self, add: Add, now: Time) -> Result<(), Refused> {
        let Add { branch, head, priority, impact } = add;
        self.admits(&branch)?;
        let known = self.changes.values().find(|it| it.branch == branch).map(|it| it.id);
        if let Some(id) = known {
            self.pushed(id, head);
            if let Some(it) = self.changes.get_mut(&id) {
                it.priority = priority;
                it.impact = impact.or(it.impact.take());
                if matches!(it.standing, Standing::Held(_)) {
                    it.standing = Standing::Waiting;
                }
            }
            return Ok(());
        }
        let id = ChangeId(self.next());
        let (added, standing, alone, clashed) = (now, Standing::Waiting, false, None);
        let (cost, passed_over) = (None, 0);
        let it = Change {
            id,
            branch,
            head,
            priority,
            added,
            standing,
            impact,
            alone,
            clashed,
            cost,
            passed_over,
        };
        self.changes.insert(id, it);
        Ok(())
    }

    /// Whether a branch may be added.
    pub fn admits(&self, branch: &Branch) -> Result<(), Refused> {
        if *branch == self.target {
            return Err(Refused::Target(branch.to_string()));
        }
        let known = self.changes.values().any(|it| it.branch == *branch);
        match known || self.changes.len() < MAX_CHANGES {
            true => Ok(()),
            false => Err(Refused::Full(MAX_CHANGES)),
        }
    }

    fn absent(&mut self, branch: Branch, now: Time) {
        let id = ChangeId(self.next());
        self.told.push(Ended { id, branch, head: None, added: now, at: now, end: End::Deleted });
    }

    fn remove(&mut self, id: ChangeId, end: End, now: Time) -> Result<(), Refused> {
        if !self.changes.contains_key(&id) {
            return Err(Refused::Unknown(id.0));
        }
        if self.is_landing(id) {
            return Err(Refused::Landing(id.0));
        }
        self.forget(id);
        self.end(id, end, now);
        Ok(())
    }

    /// Notes another head of a change, which is another change: nothing that is known of the old one holds.
    pub(super) fn pushed(&mut self, id: ChangeId, head: Commit) {
        let Some(it) = self.changes.get_mut(&id).filter(|it| it.head != head) else { return };
        it.head = head;
        it.standing = Standing::Waiting;
        it.impact = None;
        it.alone = false;
        it.clashed = None;
        (it.cost, it.passed_over) = (None, 0);
        self.forget(id);
        for group in &mut self.groups {
            group.members.retain(|it| *it != id);
        }
        // Alone in a run, it is not waited for; with others, these are screened by it.
        let void = |run: &super::lane::Run| {
            run.phase != Phase::Landing && run.members.len() == 1 && !self.holds(&run.members[0])
        };
        let void: Vec<_> = self.runs.values().filter(|it| void(it)).map(|it| it.id).collect();
        void.iter().for_each(|run| drop(self.runs.remove(run)));
    }

    /// Notes that the target is at this commit, since somebody else moved it or this is the start.
    fn moved(&mut self, commit: Commit) {
        if self.base.as_ref().is_some_and(|it| it.commit == commit) {
            return;
        }
        // Where it is not known whether the old one was green, its failures say nothing.
        if let Some(old) = self.base.take().filter(|it| !it.green) {
            self.distrust(&old.commit);
        }
        self.base = Some(Base { commit, green: false, failures: 0, red: false });
        self.release();
    }

    fn set_mode(&mut self, mode: Mode) {
        if mode != self.options.mode {
            // Nobody is passed over in the other mode, and nobody is to be told so.
            self.changes.values_mut().for_each(|it| it.passed_over = 0);
        }
        self.options.mode = mode;
        self.groups.clear();
    }
}

/// Whether the effect is given up when nobody waits for it any more.
fn is_work(effect: &Effect) -> bool {
    matches!(effect, Effect::Check { .. } | Effect::Prove { .. } | Effect::Compare { .. })
}

/// Whether what a run wants is not what it wanted before.
fn is_other(before: &Effect, after: &Effect) -> bool {
    match (before, after) {
        (Effect::Prove { base: one, .. }, Effect::Prove { base: other, .. }) => one != other,
        (Effect::Compare { with: one, .. }, Effect::Compare { with: other, .. }) => one != other,
        _ => std::mem::discriminant(before) != std::mem::discriminant(after),
    }
}
