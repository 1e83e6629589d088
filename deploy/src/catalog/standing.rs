//! Shows in the registry which release stands in which environment: a tag for each environment that follows its
//! pointer, and what was signed of a promotion among the referrers of the release.

use kiln_cas::pins::Pin;
use kiln_cas::records::{Expect, Write};

use super::entry::{Attached, CatalogEntry};
use super::error::CatalogError;
use super::showing::put;
use super::{Catalog, PINS, keys, sized};
use crate::json;
use crate::oci::{
    ContentDigest, Descriptor, Document, EMPTY_CONFIG, EMPTY_TYPE, MANIFEST_TYPE, Tag,
};
use crate::registry::store::{ReleasedRepository, Shown};
use crate::releases::{ReleaseName, bundle_manifest};
use crate::signing::{BUNDLE_TYPE, Bundle, Envelope};

/// A release comes to an environment.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<'a> {
    pub environment: &'a str,
    pub release: (&'a ReleaseName, &'a ContentDigest),
    /// The release that stood there before; `None`: none did.
    pub before: Option<&'a ReleaseName>,
    /// An envelope with what was signed of it, and the type of its predicate.
    pub signed: Option<(&'a [u8], &'a str)>,
}

impl Catalog {
    /// The writes that show it, for the one that moves the pointer. A version that is called as the environment is keeps its
    /// name: then there is no tag for the environment.
    pub async fn arrival(
        &self,
        instance: &str,
        arrival: &Arrival<'_>,
    ) -> Result<Vec<Write>, CatalogError> {
        let (name, digest) = arrival.release;
        let mut writes = Vec::new();
        let left = arrival.before.filter(|it| it.repository != name.repository);
        if let Ok(tag) = arrival.environment.parse::<Tag>() {
            if let Some(left) = left {
                writes.extend(self.pointer(instance, left, &tag, None).await?);
            }
            writes.extend(self.pointer(instance, name, &tag, Some(digest)).await?);
        }
        let entry = self.find(instance, name).await?;
        let entry = entry.filter(|it| it.release.subject.digest == *digest);
        if let (Some(entry), Some(signed)) = (entry, arrival.signed) {
            writes.extend(self.attach(&entry, signed).await?);
        }
        Ok(writes)
    }

    /// The write that points a tag of a release's repository at a manifest, or at nothing where that is not there.
    async fn pointer(
        &self,
        instance: &str,
        name: &ReleaseName,
        tag: &Tag,
        to: Option<&ContentDigest>,
    ) -> Result<Option<Write>, CatalogError> {
        let repository = self.repository(&name.repository);
        if repository.owner().await?.is_none_or(|it| it != instance) {
            return Ok(None);
        }
        let named = ReleaseName { repository: name.repository.clone(), version: tag.clone() };
        if self.find(instance, &named).await?.is_some() {
            tracing::warn!(release = %named, "it is called as an environment is, which has no tag there");
            return Ok(None);
        }
        Ok(Some(match to {
            Some(digest) if repository.has(digest).await? => repository.tag(tag, digest),
            _ => repository.untag(tag),
        }))
    }

    /// Puts an envelope into the store, and gives the writes that show it among the referrers of the release. Pins that no
    /// such write follows are removed as those of releases are.
    async fn attach(
        &self,
        entry: &CatalogEntry,
        (envelope, predicate): (&[u8], &str),
    ) -> Result<Vec<Write>, CatalogError> {
        let release = &entry.release;
        let repository = self.repository(&release.name.repository);
        if !repository.has(&release.subject.digest).await? {
            return Ok(Vec::new());
        }
        let blobs = &self.parts.blobs;
        let bundle = Bundle::of(Envelope::read(envelope).map_err(CatalogError::Envelope)?)?;
        let bundle = bundle.write()?;
        let (manifest, data) = bundle_manifest(&bundle, predicate, &release.subject)?;
        let shown = Shown::of(&manifest, &Document::read(MANIFEST_TYPE, &data)?)?;
        let own = shown.about(&release.subject.digest).cloned().into_iter().collect();
        let (list, listed) =
            self.list_of_referrers(&repository, &release.subject.digest, own).await?;
        let kept = [
            put(blobs, BUNDLE_TYPE, bundle).await?,
            put(blobs, EMPTY_TYPE, EMPTY_CONFIG.to_vec()).await?,
            put(blobs, MANIFEST_TYPE, data).await?,
            list.clone(),
        ];
        let content = kept.iter().map(|it| (it.digest.clone(), it.size)).collect();
        let attached = Attached { pin: Pin::fresh_name(), manifest: manifest.digest, content };
        self.parts.pins.pin_all(&self.pins_of(&attached.pin, &attached.content)?).await?;
        self.attach_writes(entry, &attached, &repository, (&list, [shown, listed]))
    }

    fn attach_writes(
        &self,
        entry: &CatalogEntry,
        attached: &Attached,
        repository: &ReleasedRepository,
        (list, shown): (&Descriptor, [Shown; 2]),
    ) -> Result<Vec<Write>, CatalogError> {
        let (instance, name) = (&entry.instance, &entry.release.name);
        let put = |key, value: Vec<u8>| Write {
            key,
            expect: Expect::Anything,
            value: Some(value.into()),
        };
        let key = keys::attached(instance, name, &attached.manifest);
        let mut writes = vec![
            put(key, json::write(attached)?),
            put(keys::pin(&attached.pin), keys::entry(instance, name).into_bytes()),
        ];
        writes.extend(repository.link_writes(&shown)?);
        writes.extend(repository.show(&shown)?);
        if let Ok(tag) = entry.release.subject.digest.fallback_tag().parse() {
            writes.push(repository.tag(&tag, &list.digest));
        }
        Ok(writes)
    }

    pub(super) fn pins_of(
        &self,
        name: &str,
        content: &[(ContentDigest, u64)],
    ) -> Result<Vec<Pin>, CatalogError> {
        let at = u64::try_from(self.now().unix()).unwrap_or(0).saturating_mul(1_000);
        let pin = |(digest, size): &(ContentDigest, u64)| {
            let stored =
                sized(digest, *size).ok_or_else(|| CatalogError::Sha512(digest.clone()))?;
            Ok(Pin { digest: stored, kind: PINS.to_owned(), name: name.to_owned(), at })
        };
        content.iter().map(pin).collect()
    }
}
