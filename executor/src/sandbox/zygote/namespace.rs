//! Mount namespaces: the zygote's own, one per prepared root, and a copy of that per action.

use std::fs::File;
use std::os::fd::AsFd;
use std::path::Path;

use nix::mount::{MntFlags, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, pivot_root};

use super::error::{Context, ZygoteError};
use super::{mounts, process};

/// A mount namespace, which lives as long as this, whoever else is in it. Its end takes the kernel a while, for
/// which nobody should wait where an action waits.
#[derive(Debug)]
pub(super) struct MountNamespace(File);

impl MountNamespace {
    /// The namespace of the calling process.
    pub(super) fn current() -> Result<Self, ZygoteError> {
        File::open("/proc/self/ns/mnt").context("open", "/proc/self/ns/mnt").map(Self)
    }

    /// Makes a new one with `root`, a mount of the current one, as its root and nothing else.
    pub(super) fn with_root(root: &Path) -> Result<Self, ZygoteError> {
        let mut made = None;
        let mut stack = process::stack();
        // The child shares memory and descriptors: what it opens in its new namespace stays open here.
        let flags = CloneFlags::CLONE_FILES | CloneFlags::CLONE_NEWNS;
        let child = process::vfork(flags, &mut stack, &mut || {
            made = Some(with_proc(root).and_then(|()| Self::current()));
            0
        })?;
        process::wait(child)?;
        made.unwrap_or_else(|| {
            Err(ZygoteError::Refused("no process in the new mount namespace".to_owned()))
        })
    }

    /// Moves the calling process into this namespace, to its root.
    pub(super) fn enter(&self) -> Result<(), ZygoteError> {
        setns(self.0.as_fd(), CloneFlags::CLONE_NEWNS).context("setns", "a mount namespace")
    }

    /// Moves the calling process into a copy of this one.
    pub(super) fn enter_copy(&self) -> Result<Self, ZygoteError> {
        self.enter()?;
        unshare(CloneFlags::CLONE_NEWNS).context("unshare", "the mount namespace")?;
        Self::current()
    }
}

fn with_proc(root: &Path) -> Result<(), ZygoteError> {
    // The machine's stays beneath each action's own: the kernel wants it there to mount that.
    mounts::bind(Path::new("/proc"), &root.join("proc"))?;
    change_root(root)
}

/// Makes `root`, a mount, the root of the calling process's mount namespace, and takes the old one off.
pub(super) fn change_root(root: &Path) -> Result<(), ZygoteError> {
    // The old root ends up on top of the new one, from where it is taken off.
    chdir(root).context("chdir", root.display())?;
    pivot_root(".", ".").context("pivot_root", root.display())?;
    umount2(".", MntFlags::MNT_DETACH).context("umount2", "the old root")?;
    chdir("/").context("chdir", "/")
}
