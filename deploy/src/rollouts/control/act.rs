//! Effects are carried out. Each may be carried out again by whoever takes over, and then changes nothing.

use std::time::Duration;

use futures_util::StreamExt as _;

use super::append::More;
use super::driver::Driver;
use super::error::ControlError;
use super::locks::{LOCK_TIME, keep};
use super::notice;
use crate::oci::ContentDigest;
use crate::rollouts::machine::{
    Desired, Effect, EffectId, Generation, Input, Millis, Outcome, Shift, TargetId,
};
use crate::rollouts::parts::{Applied, Member, Order, Pool, Side, Split, Told};

/// Effects of one round, and how many at once.
const MOST: usize = 512;
const AT_ONCE: usize = 32;
/// How long one may take: longer than programs may by default, so that these say themselves why they do not end.
const LIMIT: Duration = Duration::from_secs(60);
/// How long splitting requests may take. A balancer ends it by limits of its own before; one that were cut in the middle would
/// not put its former file back. Shorter than the deploy lock lasts, which is renewed between two rounds.
const OF_SHIFT: Duration = Duration::from_secs(3_300);
/// Before an effect that could not be carried out is tried again: from the first on, to the longest.
const FIRST: Millis = 1_000;
const LONGEST: Millis = 30_000;

impl Driver {
    /// `false`: somebody else wrote.
    pub(super) async fn act(&mut self, now: Millis) -> Result<bool, ControlError> {
        self.tried.retain(|id, _| self.open.state.pending.contains_key(id));
        let due = |id: &EffectId| {
            self.tried.get(id).is_none_or(|(at, tries)| {
                let pause = FIRST.saturating_mul(1 << tries.min(&10)).min(LONGEST);
                now >= at.saturating_add(pause)
            })
        };
        let pending = self
            .open
            .state
            .pending
            .iter()
            .filter(|(id, effect)| due(id) && **effect != Effect::Judge);
        let pending: Vec<_> =
            pending.map(|(id, effect)| (*id, effect.clone())).take(MOST).collect();
        for (id, _) in &pending {
            let tries = self.tried.get(id).map_or(0, |(_, tries)| tries + 1);
            self.tried.insert(*id, (now, tries));
        }
        let (locks, others): (Vec<_>, Vec<_>) = pending
            .into_iter()
            .partition(|(_, effect)| matches!(effect, Effect::Lock | Effect::Unlock(_)));
        for (id, effect) in locks {
            if !self.locked(id, &effect, now).await? {
                return Ok(false);
            }
        }
        let done = self.carry_out_all(others).await;
        self.tell(&done, now).await
    }

    async fn carry_out_all(&self, effects: Vec<(EffectId, Effect)>) -> Vec<Input> {
        let doing = effects.into_iter().map(|(id, effect)| async move {
            let limit = if matches!(effect, Effect::Shift(..)) { OF_SHIFT } else { LIMIT };
            let done = tokio::time::timeout(limit, self.carry_out(&effect)).await;
            let done = done.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
            match done {
                Ok(outcome) => Some(Input::Result(id, outcome)),
                Err(error) => {
                    let rollout = &self.open.rollout.id;
                    tracing::warn!(
                        rollout,
                        error,
                        ?effect,
                        "it could not be done, and is tried again"
                    );
                    None
                }
            }
        });
        let stream = futures_util::stream::iter(doing).buffer_unordered(AT_ONCE);
        stream.filter_map(|it| async move { it }).collect().await
    }

    /// The lock and what is known of it change in one step: nobody has it twice, and nobody who is late takes it anew.
    async fn locked(
        &mut self,
        id: EffectId,
        effect: &Effect,
        now: Millis,
    ) -> Result<bool, ControlError> {
        let rollout = self.open.rollout.clone();
        let mut read = self.control.store.locks(&rollout.place).await?;
        let outcome = match effect {
            Effect::Unlock(token) => {
                read.value.release(*token);
                Outcome::Done
            }
            _ => {
                let reason = format!("{}: {}", rollout.release, rollout.reason);
                let reason = notice::cut(&reason);
                match read.value.acquire(&rollout.id, &reason, now, LOCK_TIME) {
                    Ok(token) => Outcome::Locked(token),
                    Err(_) => Outcome::LockHeld,
                }
            }
        };
        let writes = match outcome {
            Outcome::LockHeld => Vec::new(),
            _ => vec![keep(&rollout.place, &read)?],
        };
        let more = More { writes, ..More::default() };
        self.tell_with(&[Input::Result(id, outcome)], now, more).await
    }

    /// Errors: in words; nothing is known to be done.
    async fn carry_out(&self, effect: &Effect) -> Result<Outcome, String> {
        let rollout = &self.open.rollout;
        let releases = &self.control.parts.releases;
        let environment = &rollout.place.environment;
        match effect {
            Effect::Verify(version) => {
                let stands = rollout.drill.is_none();
                let verified = releases.verify(&rollout.release, environment, stands).await;
                Ok(match verified.map_err(|error| error.to_string())? {
                    Ok(found) if *found.to_string() == **version => Outcome::Done,
                    Ok(_) => Outcome::Refused(format!("{} is other content now", rollout.release)),
                    Err(why) => Outcome::Refused(why),
                })
            }
            Effect::Apply(target, desired) => self.order(*target, desired).await,
            Effect::Shift(shift, generation) => self.split(*shift, *generation).await,
            Effect::Quarantine(version) => {
                if rollout.drill.is_some() {
                    return Ok(Outcome::Done);
                }
                let why = self.open.state.why.as_ref().map(notice::in_words).unwrap_or_default();
                let why = notice::cut(&format!("the rollout {} was reverted: {why}", rollout.id));
                let kept = self.control.quarantine(&rollout.place, version, &why).await;
                kept.map_err(|error| kiln_net::causes::chain(&error).to_string())?;
                let blamed = releases.blame(&rollout.release, &rollout.place, &why).await;
                blamed.map(|()| Outcome::Done).map_err(|error| error.to_string())
            }
            Effect::Page(text) => {
                tracing::error!(rollout = rollout.id, text, "a rollout needs a person");
                Ok(Outcome::Done)
            }
            Effect::Lock | Effect::Unlock(_) | Effect::Judge => Err("not done here".to_owned()),
        }
    }

    async fn order(&self, target: TargetId, desired: &Desired) -> Result<Outcome, String> {
        let name = usize::try_from(target).ok().and_then(|at| self.targets.get(at));
        let name = name.map(|it| it.name.as_str()).ok_or("there is no such target")?;
        let from = self.control.parts.targets.get(&self.declared.driving.from);
        let from = from.ok_or("the server has no such targets any more")?;
        let version = desired.version.parse::<ContentDigest>().map_err(|it| it.to_string())?;
        let order = Order {
            place: self.open.rollout.place.clone(),
            version,
            generation: desired.generation,
            rollout: self.open.rollout.id.clone(),
        };
        match from.tell(name, &order).await.map_err(|error| format!("{name}: {error}"))? {
            Told::Accepted => Ok(Outcome::Done),
            Told::Stale(newer) => Ok(Outcome::Stale(newer)),
        }
    }

    async fn split(&self, shift: Shift, generation: Generation) -> Result<Outcome, String> {
        let name = self.declared.driving.traffic.as_ref().ok_or("nobody splits requests")?;
        let traffic = self.control.parts.traffic.get(name);
        let traffic = traffic.ok_or("the server has no such traffic any more")?;
        let split = Split { generation, pools: self.pools(shift) };
        match traffic.set(&self.open.rollout.place, &split).await {
            Ok(Applied::Now) => Ok(Outcome::Done),
            Ok(Applied::Stale(newer)) => Ok(Outcome::Stale(newer)),
            Err(error) => Err(format!("{name}: {error}")),
        }
    }

    /// Who serves which part of the requests.
    fn pools(&self, shift: Shift) -> Vec<Pool> {
        let touched = &self.open.state.targets;
        let (mut canary, mut baseline) = (Vec::new(), Vec::new());
        for (id, target) in (0..).zip(self.targets.iter()) {
            let Some(address) = target.address.clone() else { continue };
            let member = Member { name: target.name.clone(), address };
            let is_new = touched.get(&id).is_some_and(|it| it.was_new);
            match shift != Shift::Restored && is_new {
                true => canary.push(member),
                false => baseline.push(member),
            }
        }
        let share = match shift {
            Shift::Step(step) => {
                let step = self.open.rollout.spec.steps.get(step);
                f64::from(step.and_then(|step| step.traffic).unwrap_or(0)) / 100.0
            }
            Shift::Back | Shift::Restored => 0.0,
        };
        // Where only one side is there, it gets everything.
        let share = match (canary.is_empty(), baseline.is_empty()) {
            (true, _) => 0.0,
            (false, true) => 100.0,
            (false, false) => share,
        };
        let pools = [(Side::Baseline, 100.0 - share, baseline), (Side::Canary, share, canary)];
        let pools = pools.into_iter().filter(|(_, _, members)| !members.is_empty());
        pools.map(|(side, share, members)| Pool { side, share, members }).collect()
    }
}
