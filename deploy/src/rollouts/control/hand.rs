//! What one effect takes, apart from whoever drives. Each may be carried out again, and then changes nothing.

use std::sync::Arc;

use kiln_net::causes::chain;

use super::kept::Rollout;
use super::{Control, notice};
use crate::oci::ContentDigest;
use crate::rollouts::machine::{
    Desired, Effect, Generation, Outcome, RolloutState, Shift, TargetId,
};
use crate::rollouts::parts::{Applied, Member, Order, Pool, Side, Split, Target, Told};
use crate::rollouts::plan::Declared;

pub struct Hand {
    pub control: Arc<Control>,
    pub rollout: Arc<Rollout>,
    pub declared: Arc<Declared>,
    pub targets: Arc<Vec<Target>>,
    /// Why the rollout is reverted, in words; for a call of a person what is left behind.
    pub why: String,
    /// How requests are to be split, where that is the effect.
    pub pools: Vec<Pool>,
}

impl Hand {
    /// Errors: in words; nothing is known to be done.
    pub async fn carry_out(self, effect: Effect) -> Result<Outcome, String> {
        let rollout = &self.rollout;
        let releases = &self.control.parts.releases;
        let environment = &rollout.place.environment;
        match &effect {
            Effect::Verify(version) => {
                if let Some(why) = self.moved().await? {
                    return Ok(Outcome::Refused(why));
                }
                let stands = rollout.drill.is_none();
                let verified = releases.verify(&rollout.release, environment, stands).await;
                Ok(match verified.map_err(|error| error.to_string())? {
                    Ok(found) if *found.to_string() == **version => Outcome::Done,
                    Ok(_) => Outcome::Refused(format!("{} is other content now", rollout.release)),
                    Err(why) => Outcome::Refused(why.to_string()),
                })
            }
            Effect::Apply(target, desired) => self.order(*target, desired).await,
            Effect::Shift(_, generation) => self.split(*generation).await,
            Effect::Quarantine(version) => {
                if rollout.drill.is_some() {
                    return Ok(Outcome::Done);
                }
                let why = format!("the rollout {} was reverted: {}", rollout.id, self.why);
                let why = notice::cut(&why);
                let kept = self.control.quarantine(&rollout.place, version, &why).await;
                kept.map_err(|error| chain(&error).to_string())?;
                let blamed = releases.blame(&rollout.release, &rollout.place, &why).await;
                blamed.map(|()| Outcome::Done).map_err(|error| error.to_string())
            }
            Effect::Page(text) => {
                let left = if self.why.is_empty() { text } else { &self.why };
                tracing::error!(rollout = rollout.id, left, "a rollout needs a person");
                Ok(Outcome::Done)
            }
            Effect::Lock | Effect::Unlock(_) | Effect::Judge => Err("not done here".to_owned()),
        }
    }

    /// Why the set that gets the release is not the idle one any more.
    async fn moved(&self) -> Result<Option<String>, String> {
        let moved = self.control.serves_another(&self.rollout, &self.declared, &self.targets);
        moved.await.map_err(|error| chain(&error).to_string())
    }

    async fn order(&self, target: TargetId, desired: &Desired) -> Result<Outcome, String> {
        let name = usize::try_from(target).ok().and_then(|at| self.targets.get(at));
        let name = name.map(|it| it.name.as_str()).ok_or("there is no such target")?;
        let from = self.control.parts.targets.get(&self.declared.driving.from);
        let from = from.ok_or("the server has no such targets any more")?;
        let version = desired.version.parse::<ContentDigest>().map_err(|it| it.to_string())?;
        let order = Order {
            place: self.rollout.place.clone(),
            version,
            generation: desired.generation,
            rollout: self.rollout.id.clone(),
        };
        match from.tell(name, &order).await.map_err(|error| format!("{name}: {error}"))? {
            Told::Accepted => Ok(Outcome::Done),
            Told::Stale(newer) => Ok(Outcome::Stale(newer)),
        }
    }

    async fn split(self, generation: Generation) -> Result<Outcome, String> {
        let name = self.declared.driving.traffic.as_ref().ok_or("nobody splits requests")?;
        let traffic = self.control.parts.traffic.get(name);
        let traffic = traffic.ok_or("the server has no such traffic any more")?;
        let split = Split { generation, pools: self.pools };
        match traffic.set(&self.rollout.place, &split).await {
            Ok(Applied::Now) => Ok(Outcome::Done),
            Ok(Applied::Stale(newer)) => Ok(Outcome::Stale(newer)),
            Err(error) => Err(format!("{name}: {}", chain(&*error))),
        }
    }
}

/// Targets that serve a part of the requests, and which part that is.
pub fn pools(shift: Shift, state: &RolloutState, targets: &[Target]) -> Vec<Pool> {
    let touched = &state.targets;
    let (mut canary, mut baseline) = (Vec::new(), Vec::new());
    for (id, target) in (0..).zip(targets) {
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
            let step = state.spec.steps.get(step);
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
