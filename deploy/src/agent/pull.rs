//! A version as it comes from a server: every blob by its digest, then all that was signed about it, and only then is
//! anything of it unpacked. The server is trusted with nothing but to answer.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{self, read_if_there, remove_if_there};
use super::link::{Content, Link, LinkError, Speaker, Wanted};
use super::part::{PART, PIECES, Part, is_whole};
use super::sharing::{Assembly, Sharing};
use super::source::{GoesOn, Source, SourceError};
use super::unpack;
use crate::oci::{ContentDigest, DirectoryLayout, LAYOUT_FILE, Repository};
use crate::releases::{self, Expected, INDEX_FILE, LAYOUT, blob_path, export_index};
use crate::signing::KeyRing;
use crate::timestamp::Timestamp;

/// Blobs of one release.
const MAX_BLOBS: usize = 100_000;
/// Bytes of the disk that stay free for others.
const RESERVE: u64 = 64 << 20;
/// The directory below which is what is being fetched.
const INCOMING: &str = "incoming";

/// Whom a host trusts, and for what.
pub struct Trust {
    /// Read anew for each version: a key that was revoked meanwhile counts no more. `Err`: why there are none for now.
    pub keys: Box<dyn Fn() -> Result<KeyRing, String> + Send + Sync>,
    /// Releases of another repository are refused; `None`: any.
    pub repository: Option<Repository>,
    pub expected: Expected,
    pub now: Box<dyn Fn() -> Timestamp + Send + Sync>,
    /// Bytes that one release may have.
    pub max_bytes: u64,
}

/// Fetches, verifies and unpacks.
pub struct Pull<L> {
    link: Arc<L>,
    speaker: Speaker,
    root: PathBuf,
    trust: Trust,
    sharing: Option<Arc<Sharing>>,
}

impl<L: Link> Pull<L> {
    /// `root`: the agent's directory.
    pub fn new(link: Arc<L>, speaker: Speaker, root: &Path, trust: Trust) -> Self {
        Self { link, speaker, root: root.join(INCOMING), trust, sharing: None }
    }

    /// What other versions have in common with a new one does not come again, and other agents are asked before the server.
    #[must_use]
    pub fn sharing(mut self, sharing: Arc<Sharing>) -> Self {
        self.sharing = Some(sharing);
        self
    }

    fn check(&self, version: &ContentDigest, content: &Content) -> Result<u64, SourceError> {
        let release = &content.release;
        if release.subject.digest != *version {
            let message = format!("the server tells of {} instead", release.subject.digest);
            return Err(LinkError::Refused(message).into());
        }
        let repository = &release.name.repository;
        if let Some(expected) = self.trust.repository.as_ref().filter(|it| *it != repository) {
            return Err(SourceError::refused(format!(
                "it is one of {repository}, not of {expected}"
            )));
        }
        let sum = content.blobs.iter().try_fold(0_u64, |sum, (_, size)| sum.checked_add(*size));
        let (blobs, max) = (content.blobs.len(), self.trust.max_bytes);
        match sum {
            Some(sum) if sum <= max && blobs <= MAX_BLOBS => Ok(sum),
            _ => Err(SourceError::refused(format!(
                "it has {blobs} blobs of {} bytes; at most {MAX_BLOBS} of {max} are taken",
                sum.map_or_else(|| "too many".to_owned(), |it| it.to_string()),
            ))),
        }
    }

    /// Brings what is not here yet. What an earlier try has brought is read again, and not fetched.
    fn fetch(
        &self,
        version: &ContentDigest,
        content: &Content,
        place: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        for (digest, size) in &content.blobs {
            let path = place.join(blob_path(digest));
            if is_whole(&path, digest, *size, goes_on)? {
                continue;
            }
            self.fetch_one(version, digest, *size, &path, goes_on)?;
        }
        Ok(())
    }

    fn fetch_one(
        &self,
        version: &ContentDigest,
        digest: &ContentDigest,
        size: u64,
        path: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        fs::create_dir_all(path.parent().unwrap_or(path))?;
        let mut part = Part::open(path.with_extension(PART), digest, size, goes_on)?;
        if part.count() < size || size == 0 {
            let wanted = Wanted { blob: digest, start: part.count(), length: None };
            let rest = self.link.blob(&self.speaker, version, &wanted)?;
            part.add(rest, goes_on)?;
        }
        part.finish(path)
    }

    /// Everything that `kiln release verify` checks, and that it is this version.
    fn verify(&self, content: &Content, place: &Path) -> Result<DirectoryLayout, SourceError> {
        let index = export_index(&content.release).map_err(SourceError::refused)?;
        fs::write(place.join(INDEX_FILE), index)?;
        fs::write(place.join(LAYOUT_FILE), LAYOUT)?;
        let layout = DirectoryLayout::new(place);
        let keys = (self.trust.keys)().map_err(SourceError::Keys)?;
        let now = (self.trust.now)();
        match releases::verify(&layout, &keys, &self.trust.expected, now) {
            Ok(checked) => {
                tracing::info!(
                    release = %content.release.name, digest = %content.release.subject.digest,
                    checks = checked.len(), "the release is verified"
                );
                Ok(layout)
            }
            Err(failure) => Err(SourceError::refused(failure.broken)),
        }
    }

    /// Fetches for one version at a time.
    fn place(&self, version: &ContentDigest) -> Result<PathBuf, SourceError> {
        let place = self.root.join(version.hex());
        if read_if_there(&self.root.join("version"), 256)? != Some(version.to_string().into()) {
            remove_if_there(&self.root)?;
            fs::create_dir_all(&place)?;
            disk::write_whole(&self.root.join("version"), version.to_string().as_bytes())?;
        }
        fs::create_dir_all(&place)?;
        Ok(place)
    }
}

/// Bytes of a release that lie in this directory, whole blobs and parts of them.
fn brought(content: &Content, place: &Path) -> u64 {
    let length = |path: &Path| fs::metadata(path).map_or(0, |it| it.len());
    // What comes by pieces has holes until all of them are there.
    let blocks = |path: &Path| fs::metadata(path).map_or(0, |it| it.blocks().saturating_mul(512));
    let sizes = content.blobs.iter().map(|(digest, size)| {
        let path = place.join(blob_path(digest));
        let parts = length(&path.with_extension(PART)).max(blocks(&path.with_extension(PIECES)));
        length(&path).max(parts).min(*size)
    });
    sizes.fold(0, u64::saturating_add)
}

impl<L: Link> Source for Pull<L> {
    fn unpack(
        &self,
        version: &ContentDigest,
        into: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        let unpacked = self.bring(version, into, goes_on);
        if unpacked.as_ref().is_err_and(SourceError::is_final) {
            // What is not trusted does not stay.
            if let Some(sharing) = &self.sharing {
                sharing.shelf.comes(None);
            }
            remove_if_there(&self.root)?;
        }
        unpacked
    }
}

impl<L: Link> Pull<L> {
    fn bring(
        &self,
        version: &ContentDigest,
        into: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        let content = self.link.content(&self.speaker, version)?;
        let bytes = self.check(version, &content)?;
        if let Some(sharing) = &self.sharing {
            // It may be of another version, which is removed now.
            sharing.shelf.comes(None);
        }
        let place = self.place(version)?;
        // What is fetched lies there twice for a moment, and what an earlier try has brought lies there already; what is
        // compressed takes more, and a disk that is full then is an error like any other.
        let missing = bytes.saturating_sub(brought(&content, &place));
        let needed = missing.saturating_add(bytes).saturating_add(RESERVE);
        self.check_room(needed)?;
        let assembly = self.by_pieces(version, &content, &place, goes_on)?;
        if assembly.is_none() {
            self.fetch(version, &content, &place, goes_on)?;
        }
        let layout = self.verify(&content, &place)?;
        let manifest = unpack::manifest(&layout, &content.release.subject)?;
        unpack::unpack(&layout, &manifest, into, goes_on)?;
        if let (Some(sharing), Some(assembly)) = (&self.sharing, assembly)
            && let Err(error) = sharing.shelf.keep(&assembly)
        {
            tracing::warn!(%error, %version, "the content of the version is not kept");
        }
        Ok(remove_if_there(&self.root)?)
    }

    /// What is kept for others makes room for what is ordered.
    fn check_room(&self, needed: u64) -> Result<(), SourceError> {
        let mut free = disk::free(&self.root)?;
        if free < needed
            && let Some(sharing) = &self.sharing
            && sharing.shelf.clear()?
        {
            free = disk::free(&self.root)?;
        }
        if free < needed { Err(SourceError::Full { free, needed }) } else { Ok(()) }
    }

    /// `None`: it does not come by pieces.
    fn by_pieces(
        &self,
        version: &ContentDigest,
        content: &Content,
        place: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<Option<Arc<Assembly>>, SourceError> {
        let Some(sharing) = &self.sharing else { return Ok(None) };
        let way = (&*self.link, &self.speaker);
        sharing.bring(way, version, &content.blobs, place, goes_on)
    }
}
