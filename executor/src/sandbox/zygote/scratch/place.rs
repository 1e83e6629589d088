//! The place in which one action writes, and how full that is.

use std::path::{Path, PathBuf};

use nix::sys::statvfs::Statvfs;

use super::super::error::{Context, ZygoteError};
use super::super::layout::{DISK, SCRATCH, make_dir};
use super::super::mounts;
use super::remove;
use crate::sandbox::{CommandSpec, Limits, UpperDir};

/// Bytes of the disk limit for which one inode is allowed, within bounds: empty files take memory
/// too.
const BYTES_PER_INODE: u64 = 4096;
const INODES: std::ops::RangeInclusive<u64> = 16_384..=4_194_304;
/// Bytes of free space below which a place counts as full.
const FULL: u64 = 64 << 10;

/// One of two places that take turns, so that throwing away what the last action left can wait until
/// nobody waits for it.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) base: PathBuf,
    /// The directory on disk in which the place lies with [`UpperDir::Disk`].
    disk: PathBuf,
    pub(super) mounted: bool,
}

impl Place {
    pub(super) fn new(name: &str) -> Self {
        Self {
            base: Path::new(SCRATCH).join(name),
            disk: Path::new(DISK).join(name),
            mounted: false,
        }
    }

    /// The action's input root, in the zygote's namespace.
    pub(super) fn root(&self, spec: &CommandSpec) -> PathBuf {
        if spec.lower.is_empty() || spec.conditions.copies_inputs() {
            self.upper()
        } else {
            self.merged()
        }
    }

    pub(super) fn tmp(&self) -> PathBuf {
        self.base.join("tmp")
    }

    pub(super) fn shm(&self) -> PathBuf {
        self.base.join("shm")
    }

    pub(super) fn upper(&self) -> PathBuf {
        self.base.join("upper")
    }

    pub(super) fn frame(&self) -> PathBuf {
        self.base.join("frame")
    }

    pub(super) fn merged(&self) -> PathBuf {
        self.base.join("root")
    }

    pub(super) fn mount(&mut self, upper: UpperDir, limits: &Limits) -> Result<(), ZygoteError> {
        self.clear(upper)?;
        match upper {
            UpperDir::Tmpfs => mounts::tmpfs(&self.base, &tmpfs_options(limits))?,
            UpperDir::Disk => {
                make_dir(&self.disk)?;
                mounts::bind(&self.disk, &self.base)?;
            }
        }
        self.mounted = true;
        Ok(())
    }

    pub(super) fn clear(&mut self, upper: UpperDir) -> Result<(), ZygoteError> {
        if self.mounted {
            mounts::detach(&self.base)?;
            self.mounted = false;
        }
        if upper == UpperDir::Disk && self.disk.exists() {
            remove::tree(&self.disk).context("remove", "an earlier action's files")?;
        }
        Ok(())
    }
}

/// How full a place is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in super::super) enum Fill {
    Little,
    /// More than three quarters of the space or of the inodes are used.
    Nearly,
    Full,
}

impl Fill {
    pub(super) fn of(space: &Statvfs) -> Self {
        let (free, files_free) = (space.blocks_available(), space.files_free());
        if free * space.fragment_size() < FULL || files_free == 0 {
            Self::Full
        } else if free < space.blocks() / 4 || files_free < space.files() / 4 {
            Self::Nearly
        } else {
            Self::Little
        }
    }
}

pub(super) fn used(space: &Statvfs) -> u64 {
    (space.blocks() - space.blocks_free()) * space.fragment_size()
}

fn tmpfs_options(limits: &Limits) -> String {
    match limits.disk_bytes {
        None => "mode=0755".to_owned(),
        Some(bytes) => {
            let inodes = (bytes / BYTES_PER_INODE).clamp(*INODES.start(), *INODES.end());
            // A size of zero would mean no limit at all.
            format!("mode=0755,size={},nr_inodes={inodes}", bytes.max(BYTES_PER_INODE))
        }
    }
}
