//! What people say of releases and environments, and rollbacks.

use std::collections::HashMap;

use kiln_cas::records::Expect;

use super::store::{delete, must_be_absent, put};
use super::{Done, Keeper, MAX_ATTEMPTS, PromotionError, asked, environment, keys, lasting};
use crate::promotion::acts::{self, Refusal, Return};
use crate::promotion::change::Change;
use crate::promotion::decision::Record;
use crate::promotion::facts::Verdict;
use crate::promotion::world::{Actor, How, Placed, World};
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// Who says something of what, and why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Say {
    pub environment: String,
    pub by: Actor,
    pub reason: String,
}

impl Keeper {
    fn known(&self, say: &Say) -> Result<(), PromotionError> {
        environment(&self.pipeline(), &say.environment).map(drop)
    }

    /// Changes the world in one step that writes nothing beside it.
    async fn noted(
        &self,
        step: impl Fn(&mut World, Timestamp) -> Result<Change, Refusal>,
    ) -> Result<Change, PromotionError> {
        let step = move |world: &mut World, now: Timestamp| Ok((step(world, now)?, ()));
        Ok(self.change(step, |()| Ok(Vec::new())).await?.0)
    }

    pub async fn approve(
        &self,
        say: &Say,
        release: &ReleaseName,
    ) -> Result<Change, PromotionError> {
        self.known(say)?;
        let release = self.release(release).await?;
        let step = |world: &mut World, now: Timestamp| {
            acts::approve(world, &say.environment, &release, &say.by, (&say.reason, now))
        };
        self.noted(step).await
    }

    pub async fn withdraw(
        &self,
        say: &Say,
        release: &ReleaseName,
    ) -> Result<Change, PromotionError> {
        self.known(say)?;
        let release = self.release(release).await?;
        let step = |world: &mut World, now: Timestamp| {
            acts::withdraw(world, &say.environment, &release, &say.by, (&say.reason, now))
        };
        self.noted(step).await
    }

    /// Holds an environment for `lasts` seconds, or until it is lifted.
    pub async fn hold(&self, say: &Say, lasts: Option<i64>) -> Result<Change, PromotionError> {
        self.known(say)?;
        let step = |world: &mut World, now: Timestamp| {
            let until = lasts.map(|it| now.plus(it));
            acts::hold(world, &say.environment, &say.by, until, (&say.reason, now))
        };
        self.noted(step).await
    }

    pub async fn lift(&self, say: &Say) -> Result<Change, PromotionError> {
        self.known(say)?;
        let step = |world: &mut World, now: Timestamp| {
            acts::lift(world, &say.environment, &say.by, (&say.reason, now))
        };
        self.noted(step).await
    }

    /// Asks for an override for `lasts` seconds.
    pub async fn ask_override(
        &self,
        say: &Say,
        release: &ReleaseName,
        lasts: i64,
    ) -> Result<Change, PromotionError> {
        let (pipeline, release) = (self.pipeline(), self.release(release).await?);
        let step = |world: &mut World, now: Timestamp| {
            let place = (&*pipeline, &*say.environment);
            acts::ask_override(world, place, &release, (&say.by, lasts), (&say.reason, now))
        };
        self.noted(step).await
    }

    pub async fn confirm_override(
        &self,
        say: &Say,
        release: &ReleaseName,
    ) -> Result<Change, PromotionError> {
        let (pipeline, release) = (self.pipeline(), self.release(release).await?);
        let step = |world: &mut World, now: Timestamp| {
            let place = (&*pipeline, &*say.environment);
            acts::confirm_override(world, place, &release, &say.by, (&say.reason, now))
        };
        self.noted(step).await
    }

    /// Rejects a release for good, whatever it is called: nothing promotes its content any more, and nothing returns to it.
    /// `None`: it is rejected already.
    pub async fn reject(
        &self,
        release: &ReleaseName,
        by: &Actor,
        reason: &str,
    ) -> Result<Option<Change>, PromotionError> {
        acts::person(by)?;
        acts::check_reason(reason)?;
        let release = self.release(release).await?;
        if self.rejection(&release.digest).await?.is_some() {
            return Ok(None);
        }
        let step = |world: &mut _, now| {
            let (name, digest) = (release.name.to_string(), release.digest.to_string());
            let change = acts::rejected(world, name, digest, by, (reason, now));
            Ok((change, now))
        };
        let (by, reason) = (by.name.clone(), reason.to_owned());
        let writes = |at: &Timestamp| {
            let verdict = Verdict { by: by.clone(), at: *at, reason: reason.clone() };
            Ok(vec![put(keys::rejected(&release.digest), Expect::Anything, &verdict)?])
        };
        Ok(Some(self.change(step, writes).await?.0))
    }

    /// The world without former releases of an environment that were removed since: nothing returns to them.
    async fn still_there(&self, world: &World, environment: &str) -> Result<World, PromotionError> {
        let mut there = world.clone();
        let Some(place) = there.places.get_mut(environment) else { return Ok(there) };
        for past in std::mem::take(&mut place.past) {
            let found = self.parts.releases.find(&past.placed.release).await;
            let found = found.map_err(asked("the list of releases"))?;
            if found.is_some_and(|it| it.digest == past.placed.digest) {
                place.past.push(past);
            }
        }
        Ok(there)
    }

    /// Returns to what was named, else to the last good release. It asks no gate, and waits for none.
    pub async fn roll_back(
        &self,
        say: &Say,
        to: Option<&ReleaseName>,
    ) -> Result<(Placed, Return), PromotionError> {
        let pipeline = self.pipeline();
        let environment = environment(&pipeline, &say.environment)?;
        for _ in 0..MAX_ATTEMPTS {
            let loaded = self.store.load().await?;
            let now = self.now();
            let place = loaded.world.place(&say.environment);
            let mut records: HashMap<_, Record> = HashMap::new();
            for past in &place.past {
                let digest = &past.placed.digest;
                if !records.contains_key(digest) {
                    let names = [&environment.name].into_iter();
                    records.insert(digest.clone(), self.record(digest, names).await?);
                }
            }
            let record = |digest: &_| records.get(digest).cloned().unwrap_or_default();
            let there = self.still_there(&loaded.world, &say.environment).await?;
            let target = acts::target(&there, environment, to, &say.by, (&record, now))?;
            let mut world = loaded.world.clone();
            let why = (say.reason.as_str(), now);
            let (placed, change) =
                acts::roll_back(&mut world, &say.environment, &target.to, &say.by, why)?;
            let verdict = Verdict { by: say.by.name.clone(), at: now, reason: say.reason.clone() };
            let mut writes = vec![
                must_be_absent(keys::rejected(&placed.digest)),
                delete(keys::rolled_back(&say.environment, &placed.digest)),
            ];
            let before = place.current.as_ref();
            writes.extend(self.shown(&say.environment, &placed, before, None).await?);
            if let Some(bad) = &place.current {
                let key = keys::rolled_back(&say.environment, &bad.digest);
                writes.push(put(key, Expect::Anything, &verdict)?);
            }
            let done = Done {
                placed: placed.clone(),
                by: say.by.clone(),
                reason: say.reason.clone(),
                before: place.current.clone(),
                decision: None,
                approvals: Vec::new(),
                policy: pipeline.digest.clone(),
            };
            let key = keys::done(&say.environment, placed.generation);
            writes.push(put(key, Expect::Absent, &done)?);
            if self.store.commit(&loaded, &world, &[change], writes).await? {
                // From one that was returned to, nothing came that could have failed.
                let bad = place.current.as_ref().filter(|it| it.how == How::Promoted);
                if let Some(bad) = bad {
                    let lasted = lasting(bad.at, placed.at);
                    self.deployments.failed(&say.environment, Some(lasted));
                }
                return Ok((placed, target));
            }
        }
        Err(PromotionError::Restless)
    }
}
