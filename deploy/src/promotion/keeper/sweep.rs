//! What happens by itself: promotions that waited and may go on, and environments that take what passed those before.

use std::collections::BTreeSet;
use std::sync::PoisonError;
use std::time::Duration;

use futures_util::future::join_all;

use super::promote::{Ask, Outcome};
use super::{Keeper, PromotionError, Refused};
use crate::oci::ContentDigest;
use crate::promotion::acts;
use crate::promotion::decision::{Decision, Reason};
use crate::promotion::world::{Actor, Waiting, World};
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// Who promotes what comes to environments by itself.
const AUTOMATION: &str = "kiln";
/// Seconds after which what was refused is looked at again.
const REFUSED: i64 = 600;
/// All that happens by itself in an environment at once takes no longer, but for its checks.
const MOST: Duration = Duration::from_secs(600);
/// Reasons that are repeated where something is given up.
const MAX_TOLD: usize = 8;

impl Keeper {
    /// Looks once at everything that may happen by itself. Any frontend may do so, and several at once. Environments are gone on
    /// with side by side: one whose checks take long, or that cannot be looked at, holds up no other. Nor does it hold up
    /// another sweep, here or at another frontend, which leaves it alone.
    pub async fn sweep(&self) -> Result<(), PromotionError> {
        let environments = self.due(&self.world().await?);
        let pipeline = self.pipeline();
        let is_there =
            |it: &str| environments.contains(it) || pipeline.environments.contains_key(it);
        self.sweeps.keep(is_there);
        let sweeps =
            environments.iter().map(|it| self.sweeps.alone(it, self.most(it), self.sweep_one(it)));
        let swept = join_all(sweeps).await;
        swept.into_iter().collect()
    }

    /// For how long an environment may be gone on with at once: its checks may run for what waits, and again for what it takes.
    fn most(&self, environment: &str) -> Duration {
        let pipeline = self.pipeline();
        let checks = pipeline.environments.get(environment).map(|it| &it.checks);
        let seconds = checks.into_iter().flatten().map(|it| it.timeout).sum();
        MOST + 2 * Duration::from_secs(seconds)
    }

    /// Environments that something waits for, or that would take what arrived.
    fn due(&self, world: &World) -> BTreeSet<String> {
        let waited = world.waiting.iter().map(|it| it.environment.clone());
        let taking = self.automatic(world).into_iter().map(|(ask, _)| ask.environment);
        waited.chain(taking).collect()
    }

    /// What waits for an environment goes on first, and then it takes what arrived.
    async fn sweep_one(&self, environment: &str) -> Result<(), PromotionError> {
        let mut failed = None;
        for waiting in &self.world().await?.waiting {
            if waiting.environment == environment {
                failed = self.go_on(waiting).await.err().or(failed);
            }
        }
        for (ask, digest) in self.automatic(&self.world().await?) {
            if ask.environment == environment {
                failed = self.take(&ask, digest).await.err().or(failed);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Promotes what arrived, unless it was refused a short while ago: its checks are not run again and again.
    async fn take(&self, ask: &Ask, digest: ContentDigest) -> Result<(), PromotionError> {
        let outcome = self.promote(ask).await?;
        if !matches!(outcome, Outcome::Refused { .. }) {
            return Ok(());
        }
        let (policy, until) = (self.pipeline().digest.clone(), self.now().plus(REFUSED));
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused.insert(ask.environment.clone(), Refused { digest, policy, until });
        Ok(())
    }

    fn was_refused(&self, environment: &str, digest: &ContentDigest) -> bool {
        let (policy, now) = (self.pipeline().digest.clone(), self.now());
        let refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        refused
            .get(environment)
            .is_some_and(|it| it.digest == *digest && it.policy == policy && now < it.until)
    }

    /// What environments that take releases by themselves would take now.
    fn automatic(&self, world: &World) -> Vec<(Ask, ContentDigest)> {
        let pipeline = self.pipeline();
        let environments = pipeline.order.iter().filter_map(|it| pipeline.environments.get(it));
        let takes = environments.filter(|it| {
            it.automatic && !world.waiting.iter().any(|waiting| waiting.environment == it.name)
        });
        takes
            .filter_map(|it| {
                let (release, digest) = arrived(world, &it.after)?;
                if self.was_refused(&it.name, &digest) {
                    return None;
                }
                let ask = Ask {
                    environment: it.name.clone(),
                    release,
                    by: Actor { name: AUTOMATION.to_owned(), automation: true },
                    reason: format!("it passed {}", it.after.join(" and ")),
                    again: false,
                    wait: None,
                };
                Some((ask, digest))
            })
            .collect()
    }

    async fn go_on(&self, waiting: &Waiting) -> Result<(), PromotionError> {
        let Some(why) = self.ended(waiting, self.now()).await? else { return Ok(()) };
        let by = Actor { name: AUTOMATION.to_owned(), automation: true };
        let step = |world: &mut World, now| {
            let gave_up = acts::give_up(world, waiting, &by, (&why, now));
            // Somebody else was faster: then there is nothing to note.
            gave_up.map(|it| (it, ())).ok_or(acts::Refusal::Current(waiting.release.clone()))
        };
        match self.change(step, |()| Ok(Vec::new())).await {
            Ok(_) | Err(PromotionError::Refused(_)) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Promotes a release that waits if that may be; else answers why it is to wait no more, or `None`: it waits on.
    async fn ended(
        &self,
        waiting: &Waiting,
        now: Timestamp,
    ) -> Result<Option<String>, PromotionError> {
        if now >= waiting.until {
            return Ok(Some(format!("it waited until {}", waiting.until)));
        }
        let release = self.release(&waiting.release).await;
        match release {
            Err(PromotionError::NoRelease(_)) => return Ok(Some("it is gone".to_owned())),
            Ok(release) if release.digest != waiting.digest => {
                return Ok(Some("its name stands for something else".to_owned()));
            }
            other => drop(other?),
        }
        let ask = Ask {
            environment: waiting.environment.clone(),
            release: waiting.release.clone(),
            by: waiting.by.clone(),
            reason: waiting.reason.clone(),
            again: waiting.again,
            wait: None,
        };
        match self.carry_out(&ask, Some(waiting)).await {
            Ok(Outcome::Refused { decision }) => Ok(Some(obstacles(&decision))),
            Ok(Outcome::Already { .. }) => Ok(Some("it stands there".to_owned())),
            Ok(_) => Ok(None),
            Err(PromotionError::Refused(refusal)) => Ok(Some(refusal.to_string())),
            Err(error) => Err(error),
        }
    }
}

/// The release that stands in all of them.
fn arrived(world: &World, after: &[String]) -> Option<(ReleaseName, ContentDigest)> {
    let mut current = after.iter().map(|it| world.current(it));
    let first = current.next()??;
    let same = current.all(|it| it.is_some_and(|it| it.digest == first.digest));
    same.then(|| (first.release.clone(), first.digest.clone()))
}

fn obstacles(decision: &Decision) -> String {
    let texts = decision.obstacles().map(|it: &Reason| it.text.as_str());
    texts.take(MAX_TOLD).collect::<Vec<_>>().join("; ")
}
