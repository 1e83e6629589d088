//! The places of a tool: what it keeps from request to request, and what it sees of each.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sys::statvfs::statvfs;

use super::super::error::{Context, ZygoteError};
use super::super::layout::make_dir;
use super::super::mounts;
use super::place::used;
use super::{Fill, Scratch};
use crate::sandbox::{CommandSpec, EXEC_ROOT, Limits, UpperDir};

/// A tool that holds on to more of what it has written before gets no other request.
const MAX_HELD: u64 = 8 << 20;
/// Most entries in the uppermost directory of a tool's input root: each is a mount of its own.
const MAX_SHOWN: usize = 1024;

impl Scratch {
    /// Copies of a tool's writable places, and where in its root they belong: an empty frame for
    /// its input root, /tmp and /dev/shm. What it writes in these stays while it lives.
    pub(in super::super) fn tool_trees(
        &mut self,
        limits: &Limits,
    ) -> Result<[(OwnedFd, PathBuf); 3], ZygoteError> {
        self.tool.mount(self.upper, limits)?;
        let (frame, tmp, shm) = (self.tool.frame(), self.tool.tmp(), self.tool.shm());
        make_dir(&frame)?;
        self.own_dir(&tmp, 0o1777)?;
        self.own_dir(&shm, 0o1777)?;
        Ok([
            (mounts::open_tree(&frame)?, PathBuf::from(EXEC_ROOT)),
            (mounts::open_tree(&tmp)?, PathBuf::from("/tmp")),
            (mounts::open_tree(&shm)?, PathBuf::from("/dev/shm")),
        ])
    }

    /// Puts the prepared input root's uppermost entries into the tool's frame: links as links, and
    /// of the rest copies that are to be mounted where it is said.
    pub(in super::super) fn show(
        &self,
        spec: &CommandSpec,
    ) -> Result<Vec<(OwnedFd, PathBuf)>, ZygoteError> {
        let (root, frame) = (self.place().root(spec), self.tool.frame());
        let mut trees = Vec::new();
        let entries = fs::read_dir(&root).context("read directory", root.display())?;
        for (count, entry) in entries.enumerate() {
            if count == MAX_SHOWN {
                return Err(ZygoteError::Refused(format!(
                    "the input root of a tool has more than {MAX_SHOWN} entries"
                )));
            }
            let entry = entry.context("read directory", root.display())?;
            let (from, at) = (entry.path(), frame.join(entry.file_name()));
            let kind = entry.file_type().context("stat", from.display())?;
            if kind.is_symlink() {
                let target = fs::read_link(&from).context("readlink", from.display())?;
                symlink(target, &at).context("symlink", at.display())?;
                continue;
            }
            if kind.is_dir() {
                fs::create_dir(&at).context("mkdir", at.display())?;
            } else {
                fs::File::create(&at).context("create", at.display())?;
            }
            trees.push((mounts::open_tree(&from)?, Path::new(EXEC_ROOT).join(entry.file_name())));
        }
        Ok(trees)
    }

    /// Empties the tool's frame, in which nothing is mounted any more.
    pub(in super::super) fn empty_frame(&self) -> Result<(), ZygoteError> {
        let frame = self.tool.frame();
        for entry in fs::read_dir(&frame).context("read directory", frame.display())? {
            let entry = entry.context("read directory", frame.display())?;
            let (path, kind) = (entry.path(), entry.file_type());
            let removed = match kind.context("stat", path.display())?.is_dir() {
                true => fs::remove_dir(&path),
                false => fs::remove_file(&path),
            };
            removed.context("remove", path.display())?;
        }
        Ok(())
    }

    /// Throws away what a tool wrote for a request whose outputs have been collected. Its files are
    /// removed first: the tool still holds on to the bytes that are there after that, and no limit
    /// of the next request counts them.
    pub(in super::super) fn release(&mut self) -> Result<(), ZygoteError> {
        let place = self.place();
        if self.upper == UpperDir::Tmpfs && place.mounted {
            // What cannot be removed counts.
            let _ = fs::remove_dir_all(place.upper());
            self.held += statvfs(&place.base).map_or(0, |space| used(&space));
        }
        self.forget_all()
    }

    /// Fails where the tool holds on to so much of earlier requests that it may not have another
    /// one.
    pub(in super::super) fn check_held(&self) -> Result<(), ZygoteError> {
        if self.held <= MAX_HELD {
            return Ok(());
        }
        Err(ZygoteError::Refused(format!(
            "the tool keeps {} bytes open that it wrote for earlier requests; {MAX_HELD} may be",
            self.held
        )))
    }

    /// How full the place is in which a tool keeps things from request to request.
    pub(in super::super) fn own_place(&self) -> Fill {
        self.fill(&self.tool)
    }
}
