//! The places in which an action writes: its input root over the read-only inputs, /tmp and
//! /dev/shm.

mod lower;
mod place;
mod remove;
mod tool;

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use nix::sys::statvfs::{Statvfs, statvfs};
use nix::unistd::chdir;

pub(super) use self::place::Fill;
use self::place::{Place, used};
use super::error::{Context, ZygoteError};
use super::identity::Identity;
use super::layout::{INPUTS, make_dir, under};
use super::{copy, mounts, writable};
use crate::sandbox::{CommandSpec, EXEC_ROOT, RootFs, UpperDir};

/// The directories of the input root on which something is mounted where it is the root itself.
const MOUNT_POINTS: [&str; 3] = ["dev", "proc", "tmp"];

/// Bytes in memory beyond which what an action left is removed before the next one begins, and not
/// only when that has ended.
const LARGE: u64 = 8 << 20;

#[derive(Debug)]
pub(super) struct Scratch {
    upper: UpperDir,
    /// The user and group of the action that these places are prepared for.
    identity: Identity,
    places: [Place; 2],
    current: usize,
    /// The place for what a tool keeps from request to request, and for the frame of its input
    /// root.
    tool: Place,
    /// Bytes that a tool wrote for earlier requests and still holds open.
    held: u64,
}

impl Scratch {
    pub(super) fn new(upper: UpperDir, identity: Identity) -> Result<Self, ZygoteError> {
        let mut places = [Place::new("0"), Place::new("1")];
        let mut tool = Place::new("tool");
        for place in places.iter_mut().chain([&mut tool]) {
            make_dir(&place.base)?;
            // What a killed zygote left.
            place.clear(upper)?;
        }
        Ok(Self { upper, identity, places, current: 0, tool, held: 0 })
    }

    /// Copies of the action's writable places, and where in its root they belong.
    pub(super) fn trees(&self, spec: &CommandSpec) -> Result<[(OwnedFd, PathBuf); 3], ZygoteError> {
        let place = self.place();
        Ok([
            (mounts::open_tree(&place.root(spec))?, PathBuf::from(EXEC_ROOT)),
            (mounts::open_tree(&place.tmp())?, PathBuf::from("/tmp")),
            (mounts::open_tree(&place.shm())?, PathBuf::from("/dev/shm")),
        ])
    }

    fn place(&self) -> &Place {
        &self.places[self.current]
    }

    /// Makes place for the next action. The descriptor is its input root's, and outlives it. False: what
    /// it may write has no room for the directories that it is to find.
    pub(super) fn prepare(
        &mut self,
        spec: &CommandSpec,
        identity: Identity,
    ) -> Result<(OwnedFd, bool), ZygoteError> {
        self.identity = identity;
        self.forget_large()?;
        self.current = 1 - self.current;
        self.places[self.current].mount(self.upper, &spec.limits)?;
        let place = self.place();
        self.own_dir(&place.upper(), 0o755)?;
        self.own_dir(&place.tmp(), 0o1777)?;
        self.own_dir(&place.shm(), 0o1777)?;
        let lower = lower::paths(&spec.lower, self.identity.inputs)?;
        let copies = spec.conditions.copies_inputs();
        if copies {
            let owner = self.identity.owns_inputs && self.identity.switches_user;
            let owner = owner.then_some((self.identity.uid, self.identity.gid));
            copy::inputs(&lower, &place.upper(), spec.conditions, owner)?;
        }
        let fits = match self.make_directories(spec, &lower) {
            Err(error) if matches!(error.errno(), Some(Errno::ENOSPC | Errno::EDQUOT)) => false,
            made => made.map(|()| true)?,
        };
        if fits && !lower.is_empty() && !copies {
            self.mount_overlay(&lower)?;
        }
        let root = if fits { place.root(spec) } else { place.upper() };
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let opened = open(&root, flags, Mode::empty()).context("open", root.display())?;
        Ok((opened, fits))
    }

    /// Why the inputs are not copied; `None`: they can be.
    pub(super) fn copy_hindrance(&self, spec: &CommandSpec) -> Option<String> {
        match lower::paths(&spec.lower, INPUTS) {
            Ok(lower) => copy::hindrance(&lower, spec.limits.disk_bytes),
            Err(error) => Some(error.to_string()),
        }
    }

    /// Gives the action the directories of `spec.writable` beneath `root`. False: what it may write
    /// has no room for their copies.
    pub(super) fn hand_over(
        &self,
        spec: &CommandSpec,
        root: &OwnedFd,
    ) -> Result<bool, ZygoteError> {
        for path in &spec.writable {
            match writable::hand_over(root.as_fd(), path, &self.identity) {
                Ok(()) => {}
                Err(Errno::ENOSPC | Errno::EDQUOT) => return Ok(false),
                Err(error) => return Err(error).context("hand over", path),
            }
        }
        Ok(true)
    }

    /// Throws away what the action before the prepared one left. The kernel may take milliseconds.
    pub(super) fn forget(&mut self) -> Result<(), ZygoteError> {
        self.places[1 - self.current].clear(self.upper)
    }

    /// Removes what an action left, and what the prepared place left.
    pub(super) fn forget_all(&mut self) -> Result<(), ZygoteError> {
        self.places.iter_mut().try_for_each(|place| place.clear(self.upper))
    }

    /// Removes what the last action left in memory, where that is so much that the next one may
    /// lack it.
    fn forget_large(&mut self) -> Result<(), ZygoteError> {
        let large = |space: Statvfs| used(&space) > LARGE;
        let last = &mut self.places[self.current];
        let in_memory = last.mounted && self.upper == UpperDir::Tmpfs;
        if in_memory && statvfs(&last.base).is_ok_and(large) {
            last.clear(self.upper)
        } else {
            Ok(())
        }
    }

    /// Whether the action has used up what it may write.
    pub(super) fn is_full(&self) -> bool {
        self.fill(self.place()) == Fill::Full
    }

    /// How full `place` is; always `Little` on a disk, which has no limit of the action's own.
    fn fill(&self, place: &Place) -> Fill {
        let space = (self.upper == UpperDir::Tmpfs).then(|| statvfs(&place.base).ok()).flatten();
        space.filter(|space| space.blocks() > 0).map_or(Fill::Little, |space| Fill::of(&space))
    }

    fn own_dir(&self, path: &Path, mode: u32) -> Result<(), ZygoteError> {
        fs::create_dir(path).context("mkdir", path.display())?;
        fs::set_permissions(path, PermissionsExt::from_mode(mode))
            .context("chmod", path.display())?;
        self.give(path)
    }

    fn give(&self, path: &Path) -> Result<(), ZygoteError> {
        if !self.identity.switches_user {
            return Ok(());
        }
        chown(path, Some(self.identity.uid), Some(self.identity.gid))
            .context("chown", path.display())
    }

    /// Makes the directories that outputs go to. They are made in the upper layer, where they lie over
    /// those of the inputs with the action as their owner, and nothing has to be copied up.
    fn make_directories(&self, spec: &CommandSpec, lower: &[PathBuf]) -> Result<(), ZygoteError> {
        let mut made = BTreeSet::new();
        let declared = spec.directories.iter().chain([&spec.working_directory]);
        for directory in declared.map(String::as_str).chain(mount_points(spec).iter().copied()) {
            let mut path = PathBuf::new();
            for part in Path::new(directory).components() {
                let Component::Normal(part) = part else {
                    return Err(ZygoteError::Refused(format!(
                        "the directory {directory:?} is not a plain relative path"
                    )));
                };
                path.push(part);
                if made.contains(&path) {
                    continue;
                }
                // A file or link among the inputs stays what it is: the action will meet it.
                if lower.iter().any(|tree| is_other_than_directory(&tree.join(&path))) {
                    break;
                }
                let target = self.place().upper().join(&path);
                if !target.is_dir() {
                    fs::create_dir(&target).context("mkdir", path.display())?;
                }
                self.give(&target)?;
                made.insert(path.clone());
            }
        }
        Ok(())
    }

    fn mount_overlay(&self, lower: &[PathBuf]) -> Result<(), ZygoteError> {
        let place = self.place();
        let (work, merged) = (place.base.join("work"), place.merged());
        fs::create_dir(&work).context("mkdir", work.display())?;
        fs::create_dir(&merged).context("mkdir", merged.display())?;
        let xattr = if self.identity.user_namespace { ",userxattr" } else { "" };
        let options = format!(
            "lowerdir={},upperdir={},workdir={},volatile{xattr}",
            lower::option(lower, &place.base)?,
            place.upper().display(),
            work.display()
        );
        let mounted = mounts::overlay(&merged, &options);
        // Short names of lower trees are relative; the directory must not stay in use.
        chdir("/").context("chdir", "/")?;
        mounted
    }
}

fn mount_points<'a>(spec: &CommandSpec) -> &'a [&'a str] {
    if spec.root == RootFs::Inputs { &MOUNT_POINTS } else { &[] }
}

/// The name of the first entry of the inputs that keeps them from being the root, since it is no
/// directory and something is to be mounted there; `None`: there is none.
pub(super) fn blocked_mount_point(spec: &CommandSpec) -> Option<&'static str> {
    let blocked = |name: &&str| {
        spec.lower.iter().any(|tree| is_other_than_directory(&under(INPUTS, tree).join(name)))
    };
    mount_points(spec).iter().copied().find(blocked)
}

fn is_other_than_directory(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| !metadata.is_dir())
}
