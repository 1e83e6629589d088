//! Effects are carried out. Each may be carried out again by whoever takes over, and then changes nothing.

use std::time::Duration;

use kiln_net::Backoff;

use super::append::More;
use super::driver::Driver;
use super::error::ControlError;
use super::hand::{Hand, pools};
use super::locks::{LOCK_TIME, keep};
use super::notice;
use super::store::Read;
use super::words;
use crate::rollouts::machine::{Effect, EffectId, Input, Millis, Outcome};

/// Effects that are carried out, or wait for it.
const MOST: usize = 512;
/// How long a round waits for what it began. What takes longer is taken in by a later one.
const BRIEF: Duration = Duration::from_millis(250);
/// How long one may take: longer than programs may by default, so that these say themselves why they do not end.
const LIMIT: Duration = Duration::from_secs(60);
/// How long splitting requests may take. A balancer ends it by limits of its own before; one that were cut in the middle would
/// not put its former file back.
const OF_SHIFT: Duration = Duration::from_secs(3_300);
/// Pauses before an effect that could not be carried out is tried again.
const AGAIN: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));
/// How often in a row requests could not be split when a person is called: a restart of a balancer is over by then.
const SPLIT_TRIES: u32 = 6;

impl Driver {
    /// `false`: somebody else wrote.
    pub(super) async fn act(&mut self, now: Millis) -> Result<bool, ControlError> {
        let pending = &self.open.state.pending;
        self.tried.retain(|id, _| pending.contains_key(id));
        self.doing.keep(|id| pending.contains_key(id));
        for (id, effect) in self.due(now) {
            match effect {
                Effect::Lock | Effect::Unlock(_) => {
                    self.note(id, now);
                    if !self.locked(id, &effect, now).await? {
                        return Ok(false);
                    }
                }
                // The one before it ends by itself, and is older.
                Effect::Shift(..) if self.doing.splits() => {}
                effect => {
                    self.note(id, now);
                    let splits = matches!(effect, Effect::Shift(..));
                    let limit = if splits { OF_SHIFT } else { LIMIT };
                    let hand = self.hand(&effect);
                    self.doing.begin(id, (limit, splits), hand.carry_out(effect));
                }
            }
        }
        let done = self.done().await;
        self.tell(&done, now).await
    }

    /// Effects that are to be carried out now, the lock's first.
    fn due(&self, now: Millis) -> Vec<(EffectId, Effect)> {
        let due = |id: &EffectId| self.tried.get(id).is_none_or(|(at, _)| now >= *at);
        let pending = self.open.state.pending.iter();
        let pending = pending
            .filter(|(id, effect)| **effect != Effect::Judge && !self.doing.is_on(id) && due(id));
        let room = MOST.saturating_sub(self.doing.count());
        let all: Vec<_> = pending.map(|(id, effect)| (*id, effect.clone())).take(room).collect();
        let of_lock = |it: &(EffectId, Effect)| matches!(it.1, Effect::Lock | Effect::Unlock(_));
        let (locks, others): (Vec<_>, Vec<_>) = all.into_iter().partition(of_lock);
        locks.into_iter().chain(others).collect()
    }

    /// Notes that an effect is tried, and when that may happen once more.
    fn note(&mut self, id: EffectId, now: Millis) {
        let tries = self.tried.get(&id).map_or(1, |(_, tries)| tries.saturating_add(1));
        let pause = u64::try_from(AGAIN.pause(tries).as_millis()).unwrap_or(u64::MAX);
        self.tried.insert(id, (now.saturating_add(pause), tries));
    }

    /// What an effect takes, apart from whoever drives.
    fn hand(&self, effect: &Effect) -> Hand {
        let state = &self.open.state;
        Hand {
            control: self.control.clone(),
            rollout: self.open.rollout.clone(),
            declared: self.declared.clone(),
            targets: self.targets.clone(),
            why: match effect {
                Effect::Page(_) => words::left(state, &self.targets),
                _ => {
                    let why = state.why.as_ref().map(|why| words::why(why, &self.targets));
                    why.unwrap_or_default()
                }
            },
            pools: match effect {
                Effect::Shift(shift, _) => pools(*shift, state, &self.targets),
                _ => Vec::new(),
            },
        }
    }

    /// What was done meanwhile. What failed is tried again.
    async fn done(&mut self) -> Vec<Input> {
        let mut inputs = Vec::new();
        for (id, done) in self.doing.done(BRIEF).await {
            match done {
                Ok(outcome) => inputs.push(Input::Result(id, outcome)),
                Err(error) => {
                    let (rollout, effect) =
                        (&self.open.rollout.id, self.open.state.pending.get(&id));
                    let said = "it could not be done, and is tried again";
                    tracing::warn!(rollout, error, ?effect, "{said}");
                    inputs.extend(self.stopped(id, &error));
                }
            }
        }
        inputs
    }

    /// What follows where a balancer does not take a step's split again and again: requests stay split as they were, and the
    /// rollout waits for a person instead of its deadline.
    fn stopped(&self, id: EffectId, error: &str) -> Option<Input> {
        let state = &self.open.state;
        let splits = matches!(state.pending.get(&id), Some(Effect::Shift(..)));
        let often = self.tried.get(&id).is_some_and(|(_, tries)| *tries >= SPLIT_TRIES);
        let stops = splits && often && state.is_forward() && state.paused.is_none();
        stops.then(|| Input::Pause(format!("requests cannot be split: {}", notice::cut(error))))
    }

    /// The lock and what is known of it change in one step: nobody has it twice, and nobody who is late takes it anew.
    async fn locked(
        &mut self,
        id: EffectId,
        effect: &Effect,
        now: Millis,
    ) -> Result<bool, ControlError> {
        let rollout = self.open.rollout.clone();
        let Read { mut value, version } = self.control.written_locks(&rollout.place).await?;
        let outcome = match (effect, &mut value) {
            (Effect::Unlock(token), locks) => {
                locks.iter_mut().for_each(|it| it.release(*token));
                Outcome::Done
            }
            (_, Some(locks)) => {
                let reason = format!("{}: {}", rollout.release, rollout.reason);
                let reason = notice::cut(&reason);
                match locks.acquire(&rollout.id, &reason, now, LOCK_TIME) {
                    Ok(token) => Outcome::Locked(token),
                    Err(_) => Outcome::LockHeld,
                }
            }
            // Nobody can read whose it is.
            (_, None) => Outcome::LockHeld,
        };
        let writes = match value.filter(|_| outcome != Outcome::LockHeld) {
            Some(value) => vec![keep(&rollout.place, &Read { value, version })?],
            None => Vec::new(),
        };
        let more = More { writes, ..More::default() };
        self.tell_with(&[Input::Result(id, outcome)], now, more).await
    }
}
