//! What is missing of a release, from the server.

use std::io::Read;

use super::assembly::Assembly;
use super::rate::{Rate, STEP};
use crate::agent::link::{Link, LinkError, Speaker, Wanted};
use crate::agent::source::{GoesOn, SourceError};
use crate::swarm::pieces::Place;

/// Bytes that are asked for at once.
const MAX_RUN: u64 = 64 << 20;

/// Where an agent that fetches by itself gets bytes from, and how fast they may come.
pub struct Origin<'a, L> {
    pub link: &'a L,
    pub speaker: &'a Speaker,
    pub rate: &'a Rate,
}

impl<L: Link> Origin<'_, L> {
    /// Everything that is missing. Pieces that lie side by side come together.
    pub fn rest(&self, assembly: &Assembly, goes_on: GoesOn<'_>) -> Result<(), SourceError> {
        // What comes meanwhile lies behind `next`.
        let (have, mut next) = (assembly.have(), 0);
        while next < assembly.list.len() {
            let run = run(assembly, next, &|it| !have.get(it));
            if !run.is_empty() {
                self.some(assembly, &run, goes_on)?;
            }
            next = run.last().map_or(next, |(it, _)| *it) + 1;
        }
        Ok(())
    }

    /// Pieces that lie side by side.
    pub fn some(
        &self,
        assembly: &Assembly,
        run: &[(usize, Place)],
        goes_on: GoesOn<'_>,
    ) -> Result<(), SourceError> {
        let Some((_, first)) = run.first() else { return Ok(()) };
        let Some(blob) = assembly.list.blobs().get(first.blob) else { return Ok(()) };
        let length = run.iter().map(|(_, it)| u64::from(it.piece.size)).sum();
        let wanted = Wanted { blob: &blob.digest, start: first.offset, length: Some(length) };
        let mut from = self.link.blob(self.speaker, &assembly.version, &wanted)?;
        for (index, place) in run {
            let data = self.read(&mut *from, place.piece.size as usize, goes_on)?;
            if !assembly.put(*index, &data)? {
                return Err(SourceError::Tampered(blob.digest.clone()));
            }
        }
        Ok(())
    }

    fn read(
        &self,
        from: &mut dyn Read,
        size: usize,
        goes_on: GoesOn<'_>,
    ) -> Result<Vec<u8>, SourceError> {
        let mut data = vec![0; size];
        for step in data.chunks_mut(STEP) {
            if !goes_on() || !self.rate.pass(step.len(), goes_on) {
                return Err(SourceError::Stopped);
            }
            let read = from.read_exact(step);
            read.map_err(|error| LinkError::Unreachable(error.to_string()))?;
        }
        Ok(data)
    }
}

/// Wanted pieces from here on that lie side by side in one blob.
fn run(assembly: &Assembly, from: usize, wanted: &dyn Fn(usize) -> bool) -> Vec<(usize, Place)> {
    let mut run: Vec<(usize, Place)> = Vec::new();
    let mut bytes = 0;
    for (index, place) in assembly.list.places().iter().enumerate().skip(from) {
        let is_first = run.is_empty();
        let fits = run.first().is_none_or(|(_, first)| first.blob == place.blob);
        if !wanted(index) || !fits || !is_first && bytes >= MAX_RUN {
            break;
        }
        bytes += u64::from(place.piece.size);
        run.push((index, *place));
    }
    run
}
