//! Which releases may be rolled out where: what promotion and the list of releases say.

use std::sync::Arc;

use async_trait::async_trait;

use super::catalogued::known;
use crate::catalog::{Catalog, CatalogEntry};
use crate::oci::ContentDigest;
use crate::promotion::{Actor, Facts, Keeper, PartError, PromotionError, Say, Tests};
use crate::releases::ReleaseName;
use crate::rollouts::parts::{Place, Releases, Standing, Unverified};
use crate::signing::KeyRing;

/// What this server says of releases.
pub struct Listed {
    pub catalog: Catalog,
    /// `None`: there are no environments, and any name is one.
    pub keeper: Option<Arc<Keeper>>,
    /// Whose signatures count where there are no environments.
    pub keys: Option<KeyRing>,
}

impl Listed {
    fn instance(&self) -> String {
        self.keeper.as_ref().map(|it| it.pipeline().instance.clone()).unwrap_or_default()
    }

    /// What the list has of it. `Ok(Err)`: why it is refused.
    async fn found(
        &self,
        release: &ReleaseName,
    ) -> Result<Result<CatalogEntry, Unverified>, PartError> {
        let Some(entry) = self.catalog.find(&self.instance(), release).await? else {
            let why = format!("there is no release {release}");
            return Ok(Err(Unverified::Unconfirmed(why)));
        };
        let digest = &entry.release.subject.digest;
        let by_keeper = match &self.keeper {
            Some(keeper) => keeper.rejection(digest).await?.map(|it| (it.by, it.reason)),
            None => None,
        };
        let listed = entry.rejected.clone().map(|it| (it.by, it.reason));
        Ok(match listed.or(by_keeper) {
            Some((by, reason)) => {
                let why = format!("{release} is rejected by {by}: {reason}");
                Err(Unverified::Untrusted(why))
            }
            None => Ok(entry),
        })
    }

    /// Why nothing may go forward in an environment now.
    async fn frozen(
        &self,
        digest: &ContentDigest,
        environment: &str,
    ) -> Result<Option<String>, PartError> {
        let Some(keeper) = &self.keeper else { return Ok(None) };
        let (pipeline, world, now) = (keeper.pipeline(), keeper.world().await?, keeper.now());
        let broken = world.override_of(environment, digest, now);
        if broken.is_some_and(|it| it.confirmed.is_some()) {
            return Ok(None);
        }
        let window = pipeline.freezes_of(environment).find_map(|freeze| {
            let end = freeze.covers(now)?;
            Some(format!("frozen by {} until {end}: {}", freeze.name, freeze.reason))
        });
        let hold = world.holds_of(environment, now).next();
        Ok(window.or_else(|| hold.map(|it| format!("held by {}: {}", it.by, it.reason))))
    }

    /// Whether keys that are trusted have signed where it comes from.
    async fn signed(&self, entry: &CatalogEntry) -> Result<Result<(), Unverified>, PartError> {
        let bundles = self.catalog.bundles(entry).await?;
        let release = &entry.release;
        let known = known(entry);
        // What was revoked since this server was started does not count any more.
        let held = self.keeper.as_ref().and_then(|it| it.keys());
        let keys = held.or_else(|| self.keys.clone().map(Arc::new));
        let (trusts, at) = (keys.is_some(), (Some(release.created), self.catalog.now()));
        let nobody = Tests::Undecided("nobody asked".to_owned());
        let verify = move || Facts::verify(known, &bundles, keys.as_deref(), nobody, at);
        let facts = tokio::task::spawn_blocking(verify).await?;
        if !facts.claims.is_empty() {
            return Ok(Ok(()));
        }
        let counts = |why: &String| format!("nothing signed about {} counts: {why}", release.name);
        if let Some(why) = &facts.revoked {
            return Ok(Err(Unverified::Untrusted(counts(why))));
        }
        // A key that is not named any more signs nothing new: that it is in wrong hands nobody has said.
        Ok(Err(Unverified::Unconfirmed(match (trusts, facts.refused.first()) {
            (false, _) => {
                "this server trusts no key: name one in promotion.keys or releases.key".to_owned()
            }
            (true, Some(why)) => counts(why),
            (true, None) => format!("no key that is trusted has signed {}", release.name),
        })))
    }
}

#[async_trait]
impl Releases for Listed {
    async fn standing(
        &self,
        release: &ReleaseName,
        environment: &str,
    ) -> Result<Standing, PartError> {
        let entry = match self.found(release).await? {
            Ok(entry) => entry,
            Err(Unverified::Untrusted(why)) => return Ok(Standing::Refused(why)),
            Err(Unverified::Unconfirmed(why)) => return Ok(Standing::Unlisted(why)),
        };
        let digest = entry.release.subject.digest;
        Ok(match self.frozen(&digest, environment).await? {
            Some(why) => Standing::Frozen(digest, why),
            None => Standing::Free(digest),
        })
    }

    async fn verify(
        &self,
        release: &ReleaseName,
        environment: &str,
        stands: bool,
    ) -> Result<Result<ContentDigest, Unverified>, PartError> {
        let entry = match self.found(release).await? {
            Ok(entry) => entry,
            Err(why) => return Ok(Err(why)),
        };
        let digest = entry.release.subject.digest.clone();
        if let Some(keeper) = &self.keeper {
            if !keeper.pipeline().environments.contains_key(environment) {
                let why = format!("there is no environment {environment:?}");
                return Ok(Err(Unverified::Unconfirmed(why)));
            }
            let world = keeper.world().await?;
            let current = world.current(environment);
            if stands && current.is_none_or(|it| it.digest != digest) {
                let there = current.map_or("nothing".to_owned(), |it| it.release.to_string());
                let why = format!(
                    "{release} does not stand in {environment}, where {there} does: promote it first"
                );
                return Ok(Err(Unverified::Unconfirmed(why)));
            }
        }
        Ok(self.signed(&entry).await?.map(|()| digest))
    }

    async fn made(&self, release: &ReleaseName) -> Result<Option<u64>, PartError> {
        let found = self.catalog.find(&self.instance(), release).await?;
        let seconds = found.and_then(|it| u64::try_from(it.release.created.unix()).ok());
        Ok(seconds.map(|it| it.saturating_mul(1_000)))
    }

    async fn blame(
        &self,
        release: &ReleaseName,
        place: &Place,
        reason: &str,
    ) -> Result<(), PartError> {
        let Some(keeper) = &self.keeper else { return Ok(()) };
        let world = keeper.world().await?;
        if world.current(&place.environment).is_none_or(|it| it.release != *release) {
            return Ok(());
        }
        let by = Actor { name: "kiln".to_owned(), automation: true };
        let say = Say { environment: place.environment.clone(), by, reason: reason.to_owned() };
        match keeper.roll_back(&say, None).await {
            Ok(_) => Ok(()),
            // There is nothing to return to: the targets do, and this is only which release stands there.
            Err(PromotionError::Refused(why)) => {
                tracing::info!(%why, "an environment keeps the release that was reverted");
                Ok(())
            }
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::catalog::tests::rig::House;
    use crate::executions::tests::rig::DAY;
    use crate::promotion::{Check, Known, Parts, Pipeline, RunCheck, TestGate};
    use crate::signing::{PublicKey, Scheme, Signer as _, SigningKey, TrustedKey};
    use crate::start::catalogued::Catalogued;
    use crate::start::clock::ServerClock;

    const NAME: &str = "team/app:1.0";

    /// A part that promotion never asks here.
    struct Nobody;

    #[async_trait]
    impl TestGate for Nobody {
        async fn ask(&self, _: &Known) -> Result<Tests, PartError> {
            Ok(Tests::Green)
        }
    }

    #[async_trait]
    impl RunCheck for Nobody {
        async fn run(&self, _: &Check, _: &Known, _: &str) -> Result<(), String> {
            Ok(())
        }
    }

    fn listed(house: &House, key: Option<TrustedKey>) -> Listed {
        let keys = key.map(|key| KeyRing::new(vec![key]).unwrap());
        Listed { catalog: house.catalog.clone(), keeper: None, keys }
    }

    /// The same with a policy of environments, for the releases of an instance.
    fn in_environments(house: &House, key: TrustedKey, policy: &str, instance: &str) -> Listed {
        let mut pipeline = Pipeline::read(policy).unwrap();
        pipeline.instance = instance.to_owned();
        let (catalog, now) = (house.catalog.clone(), house.rig.now.clone());
        let parts = Parts {
            releases: Arc::new(Catalogued { catalog, instance: instance.to_owned() }),
            tests: Arc::new(Nobody),
            checks: Arc::new(Nobody),
            summaries: None,
            places: None,
            clock: Arc::new(ServerClock(Arc::new(move || now.load(Ordering::Relaxed)))),
            keys: Some(KeyRing::new(vec![key]).unwrap()),
            tells: false,
        };
        let keeper = Keeper::new(house.rig.records.clone(), pipeline, parts);
        Listed { keeper: Some(Arc::new(keeper)), ..listed(house, None) }
    }

    async fn verified(listed: &Listed) -> Result<ContentDigest, Unverified> {
        listed.verify(&NAME.parse().unwrap(), "prod", false).await.unwrap()
    }

    /// A release of a server, and the key that signed it.
    async fn released() -> (House, CatalogEntry, TrustedKey) {
        let house = House::start().await;
        house.build("one", "1").await;
        let made = house.create(NAME, "one").await.unwrap();
        let key = TrustedKey::always("release", PublicKey::from_pem(&made.public_key).unwrap());
        house.rig.now.fetch_add(10 * DAY, Ordering::Relaxed);
        (house, made, key)
    }

    #[tokio::test]
    async fn a_release_loses_its_trust_by_a_revoked_key_or_a_rejection_alone() {
        let (house, made, key) = released().await;
        let at = |seconds: i64| Some(made.release.created.plus(seconds));
        let ended = TrustedKey { not_after: at(60), ..key.clone() };
        let revoked_later = TrustedKey { revoked_from: at(60), ..key.clone() };
        for key in [key.clone(), ended, revoked_later] {
            let shown = format!("{key:?}");
            let digest = verified(&listed(&house, Some(key))).await;
            assert_eq!(digest, Ok(made.release.subject.digest.clone()), "{shown}");
        }
        let (stranger, _) = SigningKey::generate(Scheme::Ed25519).unwrap();
        let stranger = TrustedKey::always("other", stranger.public_key().clone());
        let too_early = TrustedKey { not_after: at(-60), ..key.clone() };
        for key in [None, Some(stranger), Some(too_early)] {
            let refused = verified(&listed(&house, key.clone())).await;
            assert!(matches!(refused, Err(Unverified::Unconfirmed(_))), "{key:?}: {refused:?}");
        }
        let revoked = TrustedKey { revoked_from: at(-60), ..key.clone() };
        let refused = verified(&listed(&house, Some(revoked))).await;
        let says = |why: &String| why.contains("was revoked from");
        assert!(matches!(&refused, Err(Unverified::Untrusted(why)) if says(why)), "{refused:?}");
        house.catalog.reject("", &made.release.name, "loses data", "bob").await.unwrap();
        let refused = verified(&listed(&house, Some(key))).await;
        assert!(matches!(refused, Err(Unverified::Untrusted(_))), "{refused:?}");
    }

    #[tokio::test]
    async fn another_policy_says_nothing_against_a_release() {
        let (house, made, key) = released().await;
        let name = &made.release.name;
        let of =
            |policy: &str, instance: &str| in_environments(&house, key.clone(), policy, instance);
        let known = of("[environments.prod]", "");
        assert_eq!(verified(&known).await, Ok(made.release.subject.digest.clone()));
        let renamed = of("[environments.production]", "");
        let refused = verified(&renamed).await;
        assert!(matches!(refused, Err(Unverified::Unconfirmed(_))), "{refused:?}");
        let standing = renamed.standing(name, "prod").await.unwrap();
        assert!(matches!(standing, Standing::Free(_)), "{standing:?}");
        let moved = of("[environments.prod]", "other");
        let refused = verified(&moved).await;
        assert!(matches!(refused, Err(Unverified::Unconfirmed(_))), "{refused:?}");
        let standing = moved.standing(name, "prod").await.unwrap();
        assert!(matches!(standing, Standing::Unlisted(_)), "{standing:?}");
    }
}
