//! What follows from what a run is told.

use std::time::Duration;

use super::event::{End, Event, Input, Logged, Skip, StopWhy};
use super::spec::index;
use super::state::{Phase, RunState, Standing};
use crate::model::Time;
use crate::pipelines::runner::Outcome;
use crate::pipelines::stage::{On, Work};

/// How long an attempt that was cancelled may take to say that it has ended.
pub const LOST: Duration = Duration::from_secs(600);
/// How often one run may be resumed.
pub const MAX_RESUMES: u32 = 100;

/// Tells a run something; answers with what happened by that, which has been applied.
pub fn step(state: &mut RunState, input: &Input, now: Time) -> Vec<Logged> {
    let mut log = Vec::new();
    let mut stepping = Stepping { state, now, log: &mut log };
    if let Some(event) = stepping.answer(input) {
        stepping.happens(event);
    }
    stepping.follow();
    log
}

struct Stepping<'s> {
    state: &'s mut RunState,
    now: Time,
    log: &'s mut Vec<Logged>,
}

impl Stepping<'_> {
    fn happens(&mut self, event: Event) {
        let logged = Logged { at: self.now, event };
        self.state.apply(&logged);
        self.log.push(logged);
    }

    fn answer(&self, input: &Input) -> Option<Event> {
        let over = self.state.is_over();
        let asks = |stage: &u32| self.state.asking.contains(&index(*stage));
        match input {
            Input::Turn if self.state.phase == Phase::Queued => Some(Event::Began),
            Input::Ended { stage, attempt, outcome, links } => {
                let state = self.state.stages.get(index(*stage))?;
                let Standing::Running(running) = state.standing else { return None };
                let (stage, attempt) = (*stage, (running.attempt == *attempt).then_some(*attempt)?);
                let (outcome, links) = (outcome.clone(), links.clone());
                Some(Event::Ended { stage, attempt, outcome, links })
            }
            Input::Approve { stage, by, reason } if asks(stage) && self.counts(*stage, by) => {
                let (by, reason) = (by.clone(), reason.clone());
                Some(Event::Approved { stage: *stage, by, reason })
            }
            Input::Refuse { stage, by, reason } if asks(stage) => {
                let (by, reason) = (by.clone(), reason.clone());
                Some(Event::Refused { stage: *stage, by, reason })
            }
            Input::Stop(why) if !over && self.state.stop.is_none() => {
                Some(Event::Stopped(why.clone()))
            }
            Input::Resume { by, reason } => {
                let failed = matches!(self.state.phase, Phase::Ended(end) if end != End::Passed);
                let (by, reason) = (by.clone(), reason.clone());
                (failed && self.state.resumed < MAX_RESUMES)
                    .then_some(Event::Resumed { by, reason })
            }
            _ => None,
        }
    }

    /// Whether an approval is one of those that are asked for, and the first of this account.
    fn counts(&self, stage: u32, by: &String) -> bool {
        let Some(plan) = self.state.spec.stages.get(index(stage)) else { return false };
        let Work::Approve(asked) = &plan.work else { return false };
        let approved = self.state.stages.get(index(stage)).map(|it| it.approved.as_slice());
        let allowed = (asked.by.is_empty() || asked.by.contains(by))
            && (asked.own || *by != self.state.spec.by);
        allowed && !approved.unwrap_or_default().contains(by)
    }

    /// Does all that follows by itself.
    fn follow(&mut self) {
        if self.state.is_over() {
            return;
        }
        self.time_out();
        if self.state.stop.is_some() {
            self.skip_all();
        } else if self.state.phase == Phase::Running {
            self.begin();
        }
        if self.state.open == 0 {
            let end = self.end();
            self.happens(Event::Finished { end });
        }
    }

    fn is_late(&self, since: Time, limit: Duration) -> bool {
        self.now.since(since) >= limit
    }

    fn time_out(&mut self) {
        let late = self.state.began.is_some_and(|it| self.is_late(it, self.state.spec.timeout));
        if late && self.state.stop.is_none() {
            self.happens(Event::Stopped(StopWhy::Late));
        }
        let running: Vec<_> = self.state.running().collect();
        for (at, running) in running {
            let limit = self.state.spec.stages.get(at).map_or(Duration::ZERO, |it| it.timeout);
            match running.cancelled {
                None if self.is_late(running.since, limit) => {
                    self.happens(Event::TimedOut { stage: number(at) });
                }
                Some(since) if self.is_late(since, LOST) => {
                    let limit = LOST.as_secs();
                    let reason = format!(
                        "it was cancelled, and did not say within {limit} s that it has ended: it may still run"
                    );
                    self.happens(Event::Ended {
                        stage: number(at),
                        attempt: running.attempt,
                        outcome: Outcome::Infrastructure { reason },
                        links: Vec::new(),
                    });
                }
                _ => {}
            }
        }
        for at in self.state.asking.clone() {
            let Some(stage) = self.state.stages.get(at) else { continue };
            let limit = self.state.spec.stages.get(at).map_or(Duration::ZERO, |it| it.timeout);
            if let Standing::Asking { since } = stage.standing
                && self.is_late(since, limit)
            {
                self.happens(Event::TimedOut { stage: number(at) });
            }
        }
    }

    /// The run is ended: what has not begun never does.
    fn skip_all(&mut self) {
        let waits = |standing: &Standing| {
            matches!(
                standing,
                Standing::Waiting | Standing::Asking { .. } | Standing::Pausing { .. }
            )
        };
        let stages = self.state.stages.iter().enumerate();
        let open: Vec<_> = stages.filter(|(_, it)| waits(&it.standing)).map(|(at, _)| at).collect();
        for at in open {
            self.happens(Event::Skipped { stage: number(at), why: Skip::Cancelled });
        }
    }

    /// Begins what may, as long as there is room; what never will is skipped, and so may be what needs it.
    fn begin(&mut self) {
        let due = |at: &usize| match self.state.stages.get(*at).map(|it| &it.standing) {
            Some(Standing::Pausing { until, .. }) => *until <= self.now,
            _ => false,
        };
        let due: Vec<_> = self.state.pausing.iter().copied().filter(due).collect();
        for at in due {
            self.start(at);
        }
        // Where there is no room for the first one, all behind it wait as well.
        while let Some(at) = self.state.ready.first().copied() {
            match self.lets_in(at) {
                Some(why) => self.happens(Event::Skipped { stage: number(at), why }),
                None if self.start(at) => {}
                None => return,
            }
        }
    }

    /// `false`: there is no room.
    fn start(&mut self, at: usize) -> bool {
        let Some(plan) = self.state.spec.stages.get(at) else { return false };
        let asks = matches!(plan.work, Work::Approve(_));
        if !asks && self.state.running.len() >= self.state.spec.most {
            return false;
        }
        let attempt = self.state.stages.get(at).map_or(1, |it| it.attempts.saturating_add(1));
        self.happens(Event::Started { stage: number(at), attempt });
        true
    }

    /// Why a stage whose needs have ended never begins; `None`: it does.
    fn lets_in(&self, at: usize) -> Option<Skip> {
        let plan = self.state.spec.stages.get(at)?;
        if plan.left_out.is_some() {
            return Some(Skip::LeftOut);
        }
        let good = plan.needs.iter().all(|need| self.state.is_good(index(*need)));
        match plan.on {
            On::Success => (!good).then_some(Skip::Blocked),
            On::Failure => good.then_some(Skip::NotNeeded),
            On::Always => None,
        }
    }

    fn end(&self) -> End {
        let any =
            |skip: Skip| self.state.stages.iter().any(|it| it.standing == Standing::Skipped(skip));
        let is_fault = |why: &StopWhy| matches!(why, StopWhy::Fault { .. });
        let stopped = self.state.stop.as_ref().map(|it| &it.why);
        match stopped.filter(|why| is_fault(why) || any(Skip::Cancelled)) {
            Some(StopWhy::Cancelled { .. }) => return End::Cancelled,
            Some(StopWhy::Superseded { .. }) => return End::Superseded,
            Some(StopWhy::Late | StopWhy::Fault { .. }) => return End::Failed,
            None => {}
        }
        let failed = |at: usize| {
            let standing = self.state.stages.get(at).map(|it| &it.standing);
            matches!(standing, Some(Standing::Failed { .. })) && !self.state.is_good(at)
        };
        match (0..self.state.stages.len()).any(failed) {
            true => End::Failed,
            false => End::Passed,
        }
    }
}

fn number(at: usize) -> u32 {
    u32::try_from(at).unwrap_or(u32::MAX)
}
