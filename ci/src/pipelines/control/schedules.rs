//! Schedules begin runs: each time that is due once, however many frontends look, whatever their clocks do.

use std::collections::HashMap;
use std::sync::{MutexGuard, PoisonError};
use std::time::Duration;

use kiln_net::causes::chain;
use kiln_net::panics::caught;

use super::error::ControlError;
use super::keys;
use super::start::Start;
use super::store::put;
use super::{Control, Registered};
use crate::model::Time;
use crate::pipelines::file::{Missed, Schedule, Trigger};

/// How late a run may begin without having been missed.
const LATE: Duration = Duration::from_secs(300);
/// How far ahead the time up to which was looked may be before a clock must have jumped.
const AHEAD: Duration = Duration::from_secs(86_400);

/// What follows from the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    Nothing,
    /// Nothing is to begin, but up to this time everything was looked at.
    Looked(Time),
    /// A run is to begin, for this time of the schedule.
    Begin(Time),
}

/// What is due: `looked` is up to when that was answered before, `None` the first time.
pub fn due(schedule: &Schedule, looked: Option<Time>, now: Time) -> Due {
    let Some(looked) = looked else { return Due::Looked(now) };
    // The clock was far ahead once: it would be waited for until then.
    if looked.since(now) > AHEAD {
        return Due::Looked(now);
    }
    match schedule.cron.latest(looked, now) {
        None => Due::Nothing,
        Some(last) if schedule.missed == Missed::Skip && now.since(last) > LATE => {
            Due::Looked(last)
        }
        Some(last) => Due::Begin(last),
    }
}

impl Control {
    /// Begins what is due now. What is due at none is found out without asking the records.
    pub(super) async fn fire(&self, now: Time) {
        let before = std::mem::take(&mut *self.looked());
        // Of schedules that are declared no more nothing is known any longer.
        let mut after = HashMap::new();
        for registered in self.registered().values() {
            for trigger in &registered.declared.triggers {
                let Trigger::Schedule(schedule) = trigger else { continue };
                let key = keys::scheduled(&registered.declared.name, schedule);
                let known = (key.as_str(), before.get(&key).copied());
                let fired = caught(self.fire_one(registered, schedule, known, now)).await;
                match fired.unwrap_or_else(|panicked| Err(panicked.into())) {
                    Ok(looked) => {
                        self.troubles.end(&key);
                        after.extend(looked.map(|at| (key, at)));
                    }
                    // One that cannot begin holds up no other one.
                    Err(error) if self.troubles.is_news(&key, &error) => {
                        let pipeline = &registered.declared.name;
                        tracing::warn!(pipeline, error = %chain(&error), "a schedule waits");
                    }
                    Err(_) => {}
                }
            }
        }
        *self.looked() = after;
    }

    fn looked(&self) -> MutexGuard<'_, HashMap<String, Time>> {
        self.looked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Answers up to when it is known to be looked at, by whomever.
    async fn fire_one(
        &self,
        registered: &Registered,
        schedule: &Schedule,
        (key, known): (&str, Option<Time>),
        now: Time,
    ) -> Result<Option<Time>, ControlError> {
        // What is written lies no further back.
        if known.is_some() && due(schedule, known, now) == Due::Nothing {
            return Ok(known);
        }
        let (last, expect) = self.store.place::<Time>(key).await?;
        let looked = |at: Time| put(key.to_owned(), expect, &at);
        match due(schedule, last, now) {
            Due::Nothing => Ok(last),
            Due::Looked(at) => {
                let written = self.store.commit(Vec::new(), vec![looked(at)?]).await?;
                Ok(written.then_some(at))
            }
            Due::Begin(at) => {
                let ask = Start {
                    instance: registered.instance.clone(),
                    trigger: "schedule".to_owned(),
                    by: format!("schedule {}", schedule.cron.text()),
                    inputs: schedule.inputs.clone(),
                    ..Start::default()
                };
                // Whoever was faster has begun it.
                let begun = self.try_start(&registered.declared, &ask, vec![looked(at)?]).await?;
                Ok(begun.map(|run| {
                    tracing::info!(pipeline = run.pipeline, run = run.id, "a schedule began a run");
                    at
                }))
            }
        }
    }
}
