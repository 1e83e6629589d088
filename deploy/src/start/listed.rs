//! Which releases may be rolled out where: what promotion and the list of releases say.

use std::sync::Arc;

use async_trait::async_trait;

use super::catalogued::known;
use crate::catalog::{Catalog, CatalogEntry};
use crate::oci::ContentDigest;
use crate::promotion::{Actor, Facts, Keeper, PartError, PromotionError, Say, Tests};
use crate::releases::ReleaseName;
use crate::rollouts::parts::{Place, Releases, Standing};
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

    /// What the list has of it. `Ok(Err)`: why it is refused, in words.
    async fn found(
        &self,
        release: &ReleaseName,
    ) -> Result<Result<CatalogEntry, String>, PartError> {
        let Some(entry) = self.catalog.find(&self.instance(), release).await? else {
            return Ok(Err(format!("there is no release {release}")));
        };
        let digest = &entry.release.subject.digest;
        let by_keeper = match &self.keeper {
            Some(keeper) => keeper.rejection(digest).await?.map(|it| (it.by, it.reason)),
            None => None,
        };
        let listed = entry.rejected.clone().map(|it| (it.by, it.reason));
        Ok(match listed.or(by_keeper) {
            Some((by, reason)) => Err(format!("{release} is rejected by {by}: {reason}")),
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
    async fn signed(&self, entry: &CatalogEntry) -> Result<Result<(), String>, PartError> {
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
        Ok(Err(match (trusts, facts.refused.first()) {
            (false, _) => {
                "this server trusts no key: name one in promotion.keys or releases.key".to_owned()
            }
            (true, Some(why)) => format!("nothing signed about {} counts: {why}", release.name),
            (true, None) => format!("no key that is trusted has signed {}", release.name),
        }))
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
            Err(why) => return Ok(Standing::Refused(why)),
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
    ) -> Result<Result<ContentDigest, String>, PartError> {
        let entry = match self.found(release).await? {
            Ok(entry) => entry,
            Err(why) => return Ok(Err(why)),
        };
        let digest = entry.release.subject.digest.clone();
        if let Some(keeper) = &self.keeper {
            if !keeper.pipeline().environments.contains_key(environment) {
                return Ok(Err(format!("there is no environment {environment:?}")));
            }
            let world = keeper.world().await?;
            let current = world.current(environment);
            if stands && current.is_none_or(|it| it.digest != digest) {
                let there = current.map_or("nothing".to_owned(), |it| it.release.to_string());
                return Ok(Err(format!(
                    "{release} does not stand in {environment}, where {there} does: promote it first"
                )));
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
