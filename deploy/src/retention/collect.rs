//! Carries retention out on the releases of a server. What stands in an environment is looked at again for each release
//! that goes, and in the same step: one that is promoted meanwhile stays.

use std::collections::BTreeMap;

use kiln_cas::records::SharedRecords;

use super::{Fate, Held, Rules, Stays, retain, standing};
use crate::catalog::{Catalog, CatalogEntry, CatalogError};
use crate::oci::ContentDigest;
use crate::promotion::{PromotionError, Seen};
use crate::releases::ReleaseName;
use crate::rollouts::control::{self, ControlError, Needed};
use crate::timestamp::Timestamp;

/// Releases of an instance, and blobs that they name, that are looked at together.
const MAX_RELEASES: usize = 50_000;
const MAX_BLOBS: usize = 1_000_000;
/// Releases that are read together: each may have a large record.
const PAGE: usize = 50;
/// Instances that are looked at one after the other.
const MAX_INSTANCES: usize = 10_000;
/// How often one release is looked at anew because somebody changed something.
const TRIES: usize = 8;

/// Why releases were not looked at, or some of them were not removed.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    #[error(
        "there are more than {MAX_RELEASES} releases in one instance, or they name more than {MAX_BLOBS} blobs"
    )]
    TooMany,
    #[error("the releases cannot be read or removed")]
    Catalog(#[from] CatalogError),
    #[error("it is not known where releases stand")]
    Promotion(#[from] PromotionError),
    #[error("it is not known which releases rollouts need")]
    Rollouts(#[from] ControlError),
}

/// Removes releases that nothing keeps.
#[derive(Clone)]
pub struct Collector {
    pub catalog: Catalog,
    pub records: SharedRecords,
    pub rules: Rules,
}

impl Collector {
    pub fn now(&self) -> Timestamp {
        self.catalog.now()
    }

    /// What would become of each release of an instance.
    pub async fn look(&self, instance: &str, now: Timestamp) -> Result<Vec<Fate>, CollectError> {
        let releases = self.releases(instance).await?;
        let seen = Seen::read(&self.records).await?;
        let rules = self.rules;
        let decide = move || retain(&releases, &seen.world, rules, now);
        Ok(tokio::task::spawn_blocking(decide).await.map_err(|_| CatalogError::Stopped)?)
    }

    /// Removes what goes, and says what became of each.
    pub async fn collect(
        &self,
        instance: &str,
        who: &str,
        now: Timestamp,
    ) -> Result<Vec<Fate>, CollectError> {
        let mut fates = self.look(instance, now).await?;
        for fate in fates.iter_mut().filter(|it| it.goes()) {
            fate.stays = self.remove(instance, (&fate.release, &fate.digest), who).await?;
            if !fate.goes() {
                fate.frees = 0;
            }
        }
        self.catalog.sweep_removed(instance).await?;
        Ok(fates)
    }

    /// Does what [`Self::collect`] does for all instances; gives how many releases went. Errors: the first one, after
    /// all others had their turn.
    pub async fn collect_all(&self, who: &str, now: Timestamp) -> Result<usize, CollectError> {
        let (mut removed, mut failed) = (0, None);
        for instance in self.catalog.instances(MAX_INSTANCES).await? {
            match self.collect(&instance, who, now).await {
                Ok(fates) => removed += fates.iter().filter(|it| it.goes()).count(),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        failed.map_or(Ok(removed), Err)
    }

    /// Removes a release, and answers why it stays after all; empty: it is removed.
    async fn remove(
        &self,
        instance: &str,
        release: (&ReleaseName, &ContentDigest),
        who: &str,
    ) -> Result<Vec<Stays>, CollectError> {
        for _ in 0..TRIES {
            let seen = Seen::read(&self.records).await?;
            let mut stays = standing(&seen.world, self.rules).remove(release.1).unwrap_or_default();
            stays.extend(self.rollouts().await?.remove(&release.1.to_string()).unwrap_or_default());
            if !stays.is_empty() {
                return Ok(stays);
            }
            let unless = vec![seen.unchanged];
            if self.catalog.remove(instance, release, unless, who).await? {
                return Ok(Vec::new());
            }
        }
        Ok(vec![Stays::Busy])
    }

    /// What rollouts need, by digests.
    async fn rollouts(&self) -> Result<BTreeMap<String, Vec<Stays>>, CollectError> {
        let mut needed: BTreeMap<String, Vec<Stays>> = BTreeMap::new();
        for Needed { version, place } in control::needed(&self.records).await? {
            needed.entry(version.to_string()).or_default().push(Stays::Rollout { place });
        }
        Ok(needed)
    }

    async fn releases(&self, instance: &str) -> Result<Vec<Held>, CollectError> {
        let rollouts = self.rollouts().await?;
        let (mut releases, mut blobs) = (Vec::<Held>::new(), 0);
        loop {
            let after = releases.last().map(|it| it.name.clone());
            let page = self.catalog.list_whole(instance, after.as_ref(), PAGE).await?;
            if page.is_empty() {
                return Ok(releases);
            }
            blobs += page.iter().map(|it| it.content.len()).sum::<usize>();
            releases.extend(page.into_iter().map(|it| held(it, &rollouts)));
            if releases.len() > MAX_RELEASES || blobs > MAX_BLOBS {
                return Err(CollectError::TooMany);
            }
        }
    }
}

fn held(entry: CatalogEntry, rollouts: &BTreeMap<String, Vec<Stays>>) -> Held {
    let needed = rollouts.get(&entry.release.subject.digest.to_string());
    Held {
        needed: needed.cloned().unwrap_or_default(),
        name: entry.release.name,
        digest: entry.release.subject.digest,
        created: entry.release.created,
        rejected: entry.rejected.is_some(),
        content: entry.content,
    }
}
