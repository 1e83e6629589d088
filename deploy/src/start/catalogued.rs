//! What the list of releases tells promotion, and what promotion shows there.

use async_trait::async_trait;
use kiln_cas::records::Write;

use crate::catalog::{self, Catalog, CatalogEntry};
use crate::promotion::{Arrival, Known, PartError, Releases, ShowPlaces, VSA_PREDICATE, Verdict};
use crate::releases::ReleaseName;
use crate::timestamp::Timestamp;

/// The releases of one instance.
pub struct Catalogued {
    pub catalog: Catalog,
    pub instance: String,
}

/// A release of the list, as promotion knows it.
pub(super) fn known(entry: &CatalogEntry) -> Known {
    let rejected = entry.rejected.clone();
    let rejected = rejected.map(|it| Verdict { by: it.by, at: it.at, reason: it.reason });
    let release = &entry.release;
    Known {
        name: release.name.clone(),
        digest: release.subject.digest.clone(),
        author: entry.made_by.clone(),
        created: release.created,
        invocation: release.invocation.clone(),
        instance: entry.instance.clone(),
        target: release.target.clone(),
        rejected,
    }
}

#[async_trait]
impl Releases for Catalogued {
    async fn find(&self, name: &ReleaseName) -> Result<Option<Known>, PartError> {
        Ok(self.catalog.find(&self.instance, name).await?.as_ref().map(known))
    }

    /// They are there since the release was made or taken in, by this server's clock: its record of that no signer can change.
    async fn bundles(
        &self,
        release: &Known,
    ) -> Result<(Vec<Vec<u8>>, Option<Timestamp>), PartError> {
        let entry = self.catalog.get(&self.instance, &release.name).await?;
        Ok((self.catalog.bundles(&entry).await?, Some(entry.release.created)))
    }
}

/// Tags of environments, and summaries among the referrers of releases.
#[async_trait]
impl ShowPlaces for Catalogued {
    async fn arrival(&self, arrival: Arrival<'_>) -> Result<Vec<Write>, PartError> {
        let comes = catalog::Arrival {
            environment: arrival.environment,
            release: (&arrival.comes.release, &arrival.comes.digest),
            before: arrival.before.map(|it| &it.release),
            signed: arrival.summary.map(|it| (it, VSA_PREDICATE)),
        };
        Ok(self.catalog.arrival(&self.instance, &comes).await?)
    }
}
