//! Fetches one version by pieces.

use std::path::Path;
use std::sync::Arc;

use super::alone::Origin;
use super::assembly::Assembly;
use super::crew::{self, Ended, Tools};
use super::exchange::Exchange;
use super::giving::Giving;
use super::rate::Rate;
use super::shelf::Shelf;
use crate::agent::link::{Link, LinkError, Speaker};
use crate::agent::source::{GoesOn, SourceError};
use crate::oci::ContentDigest;
use crate::swarm::downloader::Limits;
use crate::swarm::pieces::PieceList;

/// Bytes that are worth asking others for.
const WORTH: u64 = 1 << 20;

/// How this agent takes part.
pub struct Sharing {
    pub shelf: Arc<Shelf>,
    /// `None`: nothing is asked of other agents, nor given to them.
    pub exchange: Option<Arc<dyn Exchange>>,
    pub giving: Option<Arc<Giving>>,
    /// Agents of one value are near each other.
    pub near: String,
    /// The rate at which bytes may come.
    pub rate: Arc<Rate>,
    pub limits: Limits,
}

impl Sharing {
    /// Brings all blobs of a version to where an export has them, and verifies each by its digest. `None`: the server cannot
    /// say what the pieces are, or says what is not so; what is whole by then stays.
    pub fn bring<L: Link>(
        &self,
        (link, speaker): (&L, &Speaker),
        version: &ContentDigest,
        blobs: &[(ContentDigest, u64)],
        place: &Path,
        goes_on: GoesOn<'_>,
    ) -> Result<Option<Arc<Assembly>>, SourceError> {
        let Some(list) = list((link, speaker), version, blobs)? else { return Ok(None) };
        let opened = Assembly::open(version, Arc::new(list), place, goes_on);
        let brought = opened.map(Arc::new).and_then(|assembly| {
            self.shelf.comes(Some(&assembly));
            let origin = Origin { link, speaker, rate: &self.rate };
            self.fill(&origin, &assembly, goes_on)?;
            Ok(assembly)
        });
        match brought {
            Ok(assembly) => Ok(Some(assembly)),
            Err(SourceError::Tampered(blob)) => {
                self.shelf.comes(None);
                tracing::warn!(
                    %version, %blob,
                    "the pieces that the server named do not make up the blob: it is fetched as a whole"
                );
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }

    fn fill<L: Link>(
        &self,
        origin: &Origin<'_, L>,
        assembly: &Assembly,
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        let reused = self.shelf.reuse(assembly, goes_on)?;
        let missing = missing(assembly);
        tracing::info!(
            version = %assembly.version, bytes = assembly.bytes(), reused, missing,
            "the release comes by pieces"
        );
        if let Some(exchange) = self.exchange.as_ref().filter(|_| missing >= WORTH) {
            let tools = Tools {
                origin,
                exchange: &**exchange,
                giving: self.giving.as_ref(),
                near: &self.near,
                limits: self.limits,
            };
            if crew::work(&tools, assembly, goes_on)? == Ended::Done {
                return assembly.check();
            }
        }
        origin.rest(assembly, goes_on)?;
        assembly.check()
    }
}

/// How many bytes of the version are not here.
fn missing(assembly: &Assembly) -> u64 {
    let have = assembly.have();
    let places = assembly.list.places().iter().enumerate();
    places.filter(|(it, _)| !have.get(*it)).map(|(_, it)| u64::from(it.piece.size)).sum()
}

/// The list of the pieces of a version, if the server has one that is of these blobs.
fn list<L: Link>(
    (link, speaker): (&L, &Speaker),
    version: &ContentDigest,
    blobs: &[(ContentDigest, u64)],
) -> Result<Option<PieceList>, SourceError> {
    let written = match link.pieces(speaker, version) {
        // An older server has none.
        Err(LinkError::Refused(why)) => {
            tracing::info!(%version, why, "the server names no pieces");
            return Ok(None);
        }
        other => other?,
    };
    let list = PieceList::read(&written).and_then(|list| {
        list.check_blobs(blobs)?;
        Ok(list)
    });
    match list {
        Ok(list) => Ok(Some(list)),
        Err(error) => {
            tracing::warn!(%version, %error, "the list of pieces that the server gave is of no use");
            Ok(None)
        }
    }
}
