//! A blob of which a part is here: what is there is hashed again, and only the rest is asked for.

use std::fs::{self, File};
use std::io::{Read, Write as _};
use std::path::{Path, PathBuf};

use super::link::LinkError;
use super::source::{GoesOn, SourceError};
use crate::oci::{ContentDigest, Hashing};

/// What the name of a blob ends with of which the first bytes are here, and of which some pieces are.
pub const PART: &str = "part";
pub const PIECES: &str = "pieces";
/// Bytes that are read at once.
const CHUNK: usize = 256 << 10;

pub struct Part<'a> {
    path: PathBuf,
    file: File,
    digest: &'a ContentDigest,
    size: u64,
    hashing: Hashing,
    count: u64,
}

impl<'a> Part<'a> {
    /// `path`: where it lies until it is whole.
    pub fn open(
        path: PathBuf,
        digest: &'a ContentDigest,
        size: u64,
        goes_on: GoesOn<'_>,
    ) -> Result<Self, SourceError> {
        let mut options = File::options();
        let file = options.read(true).write(true).create(true).truncate(false).open(&path)?;
        if file.metadata()?.len() > size {
            file.set_len(0)?;
        }
        let hashing = digest.algorithm().hashing();
        let mut part = Self { path, file, digest, size, hashing, count: 0 };
        let mut chunk = vec![0; CHUNK];
        loop {
            if !goes_on() {
                return Err(SourceError::Stopped);
            }
            let length = part.file.read(&mut chunk)?;
            if length == 0 {
                return Ok(part);
            }
            part.count += length as u64;
            part.hashing.update(chunk.get(..length).unwrap_or_default());
        }
    }

    /// How many bytes are here.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// Adds the bytes that follow. What has come stays, whatever ends it.
    pub fn add(&mut self, from: Box<dyn Read>, goes_on: GoesOn<'_>) -> Result<(), SourceError> {
        // One byte more than there should be shows that there is more.
        let mut from = from.take((self.size - self.count).saturating_add(1));
        let mut chunk = vec![0; CHUNK];
        loop {
            if !goes_on() {
                return Err(SourceError::Stopped);
            }
            let read = from.read(&mut chunk);
            let length = read.map_err(|error| LinkError::Unreachable(error.to_string()))?;
            if length == 0 {
                return Ok(());
            }
            let data = chunk.get(..length).unwrap_or_default();
            self.file.write_all(data)?;
            self.hashing.update(data);
            self.count += length as u64;
        }
    }

    /// Gives it its name, if it is what it should be. Other bytes do not stay.
    pub fn finish(self, into: &Path) -> Result<(), SourceError> {
        if self.count < self.size {
            let message =
                format!("{} ended after {} of {} bytes", self.digest, self.count, self.size);
            return Err(LinkError::Unreachable(message).into());
        }
        if self.count > self.size || self.hashing.finish() != *self.digest {
            fs::remove_file(&self.path)?;
            return Err(SourceError::Tampered(self.digest.clone()));
        }
        Ok(fs::rename(&self.path, into)?)
    }
}

/// Whether a file is all of this, and nothing else.
pub fn is_whole(
    path: &Path,
    digest: &ContentDigest,
    size: u64,
    goes_on: GoesOn<'_>,
) -> Result<bool, SourceError> {
    let Ok(mut file) = File::open(path) else { return Ok(false) };
    if file.metadata()?.len() != size {
        return Ok(false);
    }
    let (mut hashing, mut chunk) = (digest.algorithm().hashing(), vec![0; CHUNK]);
    loop {
        if !goes_on() {
            return Err(SourceError::Stopped);
        }
        match file.read(&mut chunk)? {
            0 => return Ok(hashing.finish() == *digest),
            length => hashing.update(chunk.get(..length).unwrap_or_default()),
        }
    }
}
