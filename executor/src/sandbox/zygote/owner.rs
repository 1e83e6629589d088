//! Inputs that belong to the action's user. The cache of inputs is root's, and every slot of a server that
//! root runs has a user of its own: each sees the same files through a mount that changes their owner. What
//! an action does to them it does to its own copy, above that mount.

use std::fs;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::fcntl::OFlag;
use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid, pipe2, read};

use super::error::{Context, ZygoteError};
use super::identity::{Identity, OTHER_OUTER_ID};
use super::layout::{INPUTS, OTHER_INPUTS, SCRATCH, make_dir, under};
use super::{mounts, process};

/// The directories of inputs, mounted nowhere yet.
pub(super) struct Inputs(Vec<Tree>);

struct Tree {
    /// The path at which the server says that the tree lies.
    given: PathBuf,
    usual: OwnedFd,
    /// The tree as the user owns it that a check runs an action as.
    other: OwnedFd,
}

/// To be called with the rights of the machine's root. `None`: this kernel, or the file system of one of
/// the directories, cannot change owners.
pub(super) fn inputs(dirs: &[PathBuf], outer_id: u32) -> Option<Inputs> {
    if dirs.is_empty() || !Uid::effective().is_root() {
        return None;
    }
    let usual = owner(outer_id).ok()?;
    let other = owner(outer_id.checked_add(OTHER_OUTER_ID)?).ok()?;
    let tree = |given: &PathBuf| {
        let real = fs::canonicalize(given).ok()?;
        Some(Tree {
            usual: mounts::open_tree_owned(&real, usual.as_fd()).ok()?,
            other: mounts::open_tree_owned(&real, other.as_fd()).ok()?,
            given: given.clone(),
        })
    };
    dirs.iter().map(tree).collect::<Option<Vec<_>>>().map(Inputs)
}

/// A user namespace in which the files of this process are those of the machine's user `outer_id`.
fn owner(outer_id: u32) -> Result<OwnedFd, ZygoteError> {
    let (wait_end, go_end) = pipe2(OFlag::O_CLOEXEC).context("pipe2", "for a user namespace")?;
    let mut go_end = Some(go_end);
    let mut stack = process::stack();
    let child = process::spawn(CloneFlags::CLONE_NEWUSER, &mut stack, &mut || {
        drop(go_end.take());
        // Only there to be pointed at, until the other end is closed.
        let _ = read(wait_end.as_fd(), &mut [0]);
        0
    })?;
    let made = (|| {
        let of = |file: &str| format!("/proc/{child}/{file}");
        fs::write(of("uid_map"), format!("0 {outer_id} 1"))?;
        fs::write(of("gid_map"), format!("{} {outer_id} 1", Gid::effective()))?;
        fs::File::open(of("ns/user"))
    })();
    drop(go_end);
    process::wait(child)?;
    made.map(OwnedFd::from).context("map", "the owner of inputs")
}

impl Inputs {
    /// Over the plain directories, which lie there already. False: actions could not be run so, and the
    /// plain ones stay.
    pub(super) fn mount(self, identity: &Identity) -> bool {
        let mut mounted = Vec::new();
        let all = self.0.iter().all(|tree| tree.mount(identity, &mut mounted).is_ok());
        if !all {
            for path in mounted {
                // Where it cannot be taken off again the first action says so.
                let _ = mounts::detach(&path);
            }
        }
        all
    }
}

impl Tree {
    fn mount(&self, identity: &Identity, mounted: &mut Vec<PathBuf>) -> Result<(), ZygoteError> {
        for (base, tree) in [(INPUTS, &self.usual), (OTHER_INPUTS, &self.other)] {
            let at = under(base, &self.given);
            make_dir(&at)?;
            mounts::attach(tree, &at)?;
            mounted.push(at);
        }
        let at = under(INPUTS, &self.given);
        let found = fs::metadata(&at).context("stat", at.display())?;
        if (found.uid(), found.gid()) != (identity.uid, identity.gid) {
            let why = "the inputs belong to others than the server";
            return Err(ZygoteError::Refused(why.to_owned()));
        }
        try_overlay(&at)
    }
}

/// Fails where an overlay does not take `lower` as a layer: kernels before 5.19 take no mount whose
/// owner is mapped.
fn try_overlay(lower: &Path) -> Result<(), ZygoteError> {
    let place = Path::new(SCRATCH);
    mounts::tmpfs(place, "mode=0755")?;
    let tried = (|| {
        for name in ["upper", "work", "root"] {
            make_dir(&place.join(name))?;
        }
        // A name without the characters that the mount call's options are made of.
        let link = place.join("lower");
        std::os::unix::fs::symlink(lower, &link).context("symlink", link.display())?;
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr",
            link.display(),
            place.join("upper").display(),
            place.join("work").display()
        );
        let root = place.join("root");
        mounts::overlay(&root, &options)?;
        mounts::detach(&root)
    })();
    mounts::detach(place)?;
    tried
}
