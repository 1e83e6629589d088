//! Limits for memory, processes and cpu, on version 1 and version 2.
//!
//! The server makes one cgroup per controller and slot ([`Owned`]); the zygote opens their
//! files before it enters its user namespace ([`Cgroups`]) and reuses them for every action.

mod discover;
mod files;
mod set;
mod stale;

use std::fs::{self, File, OpenOptions};
use std::io;
use std::path::{Path, PathBuf};

pub(super) use files::{Cgroups, SMALLEST};
#[cfg(test)]
pub(super) use set::Version;
pub(super) use set::{CgroupSet, Controller, Kind};

/// The cgroups that the server made for a slot: its own while this lives.
#[derive(Debug, Default)]
pub(super) struct Owned {
    pub set: CgroupSet,
    /// The controllers that this machine does not allow, each with a sentence that says why.
    pub missing: Vec<(Kind, String)>,
    locks: Vec<(PathBuf, File)>,
}

impl Owned {
    /// Makes what this machine allows. What killed servers left goes first: that may take a
    /// second where processes have to be killed.
    pub(super) fn create(name: &str) -> Self {
        let found = discover::parents();
        let leaf = stale::name(name);
        let mut missing = found.missing;
        let mut owned = Self::default();
        for parent in found.parents {
            stale::remove_from(&parent.dir);
            let dir = parent.dir.join(&leaf);
            match owned.make(&dir, &parent) {
                Ok(()) => owned.set.controllers.push(Controller { dir, ..parent }),
                Err(error) => {
                    missing.push((parent.kind, format!("cannot create {}: {error}", dir.display())))
                }
            }
        }
        missing.sort_by_key(|(kind, _)| *kind as u8);
        owned.missing =
            missing.into_iter().map(|(kind, why)| (kind, sentence(kind, &why))).collect();
        owned
    }

    fn make(&mut self, dir: &Path, parent: &Controller) -> io::Result<()> {
        // Version 2 has one directory for all controllers.
        if !self.locks.iter().any(|(locked, _)| locked == dir) {
            self.locks.push((dir.to_owned(), stale::create(dir)?));
        }
        let limit_file = files::limit_file(parent.kind, parent.version);
        OpenOptions::new().write(true).open(dir.join(limit_file)).map(drop)
    }

    /// Removes the cgroups. Those in which processes still die stay, and the next start removes them.
    pub(super) fn remove(&mut self) {
        for (dir, _lock) in self.locks.drain(..) {
            let _ = fs::remove_dir(dir);
        }
    }
}

fn sentence(kind: Kind, why: &str) -> String {
    let (limit, instead) = match kind {
        Kind::Memory => ("memory limit", "only each process's data is limited"),
        Kind::Pids => ("process limit", "RLIMIT_NPROC stands in for it"),
        Kind::Cpu => ("cpu limit", "nothing stands in for it"),
    };
    format!("{limit}: {why}; {instead}")
}
