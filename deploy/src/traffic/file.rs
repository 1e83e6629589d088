//! The files of a place in a balancer's directory: what is rendered, and what was in force before it.
//!
//! | entry | what it is |
//! | --- | --- |
//! | `SERVICE.ENVIRONMENT.conf` (HAProxy: `.cfg`, Envoy: `.yaml`) | what the balancer reads |
//! | `SERVICE.ENVIRONMENT.before` | what is put back when the balancer does not take it |
//! | `kiln.lock` | held by whoever changes anything here |
//!
//! Calls block: they are made where that is no harm.

use std::fs::{File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};

use super::document::{Document, MAX_BYTES, is_own};
use super::error::TrafficError;
use crate::agent::disk;
use crate::rollouts::parts::Place;

/// The files of one place.
#[derive(Debug, Clone)]
pub struct Files {
    directory: PathBuf,
    pub path: PathBuf,
    before: PathBuf,
}

impl Files {
    /// `name`: what the balancer calls the place.
    pub fn new(directory: &Path, name: &str, extension: &str) -> Self {
        Self {
            directory: directory.to_owned(),
            path: directory.join(format!("{name}.{extension}")),
            before: directory.join(format!("{name}.before")),
        }
    }

    /// Nobody else changes anything here until this is dropped. `None`: somebody else does so.
    pub fn try_lock(&self) -> Result<Option<File>, TrafficError> {
        let path = self.directory.join("kiln.lock");
        let failed = |source| failed(&path, "cannot be locked", source);
        let lock = File::options().write(true).create(true).truncate(false).open(&path);
        let lock = lock.map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => Ok(Some(lock)),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }

    pub fn current(&self, place: &Place, most: u32) -> Result<Option<Document>, TrafficError> {
        read(&self.path, place, most)
    }

    pub fn before(&self, place: &Place, most: u32) -> Result<Option<Document>, TrafficError> {
        read(&self.before, place, most)
    }

    /// Keeps `document`, which is put back when something goes wrong from now on; `None`: there is nothing.
    pub fn keep(&self, document: Option<&Document>) -> Result<(), TrafficError> {
        match document {
            Some(document) => write(&self.before, &document.text),
            None => disk::remove_if_there(&self.before)
                .map_err(|source| failed(&self.before, "cannot be removed", source)),
        }
    }

    pub fn put(&self, document: &Document) -> Result<(), TrafficError> {
        write(&self.path, &document.text)
    }

    /// Puts back what was kept.
    pub fn restore(&self, place: &Place, most: u32) -> Result<Option<Document>, TrafficError> {
        let before = self.before(place, most)?;
        match &before {
            Some(document) => self.put(document)?,
            // Some balancers do not start where it is not there.
            None => write(&self.path, "")?,
        }
        Ok(before)
    }
}

fn write(path: &Path, text: &str) -> Result<(), TrafficError> {
    disk::write_whole(path, text.as_bytes())
        .map_err(|source| failed(path, "cannot be written", source))
}

/// `None`: there is no such file.
fn read(path: &Path, place: &Place, most: u32) -> Result<Option<Document>, TrafficError> {
    let cannot = |source| failed(path, "cannot be read", source);
    let Some(data) = disk::read_if_there(path, MAX_BYTES).map_err(cannot)? else { return Ok(None) };
    let foreign = || TrafficError::Foreign(path.to_owned());
    let text = String::from_utf8(data).map_err(|_| foreign())?;
    // Made by hand for a balancer that starts with it, or what was left when nothing was to be put back.
    if text.trim().is_empty() {
        return Ok(None);
    }
    // Whatever else is there may be somebody's work.
    if !is_own(&text) {
        return Err(foreign());
    }
    let wrong = || cannot(io::Error::new(io::ErrorKind::InvalidData, "its comments were changed"));
    Document::read(text, place, most).map(Some).ok_or_else(wrong)
}

fn failed(path: &Path, what: &'static str, source: io::Error) -> TrafficError {
    TrafficError::File { path: path.to_owned(), what, source }
}
