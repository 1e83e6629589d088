//! The zygote's own mount namespace: a small root that holds what actions are made of, and
//! nothing else, so that copying it for an action is cheap.
//!
//! | path | what |
//! | --- | --- |
//! | `/inputs` | the directories beneath which lower trees and images lie, at their own paths |
//! | `/inputs.other` | the same for lower trees, where a check runs an action as another user |
//! | `/devices` | the slot's own device nodes, where it has any |
//! | `/roots/N` | prepared root file systems |
//! | `/scratch` | the running action's writable places, mounted anew for each |
//! | `/disk` | the slot's directory on a disk |
//! | `/proc` | the machine's: the kernel mounts a new one only where a whole one is visible |
//! | `/machine` | the machine's root, only while the zygote starts |

use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, unshare};
use nix::unistd::{chdir, pivot_root, sethostname};

use super::error::{Context, ZygoteError};
use super::mounts;

pub(super) const INPUTS: &str = "/inputs";
pub(super) const OTHER_INPUTS: &str = "/inputs.other";
pub(super) const DEVICES: &str = "/devices";
pub(super) const ROOTS: &str = "/roots";
pub(super) const SCRATCH: &str = "/scratch";
pub(super) const DISK: &str = "/disk";
pub(super) const MACHINE: &str = "/machine";
const PROC: &str = "/proc";

/// The host name of every action.
const HOST_NAME: &str = "kiln";

/// Leaves the machine's mounts for a root of the zygote's own. Any existing directory serves as
/// `place`: the new root lies over it for a moment.
pub(super) fn enter(
    place: &Path,
    input_dirs: &[PathBuf],
    image_dirs: &[PathBuf],
) -> Result<(), ZygoteError> {
    unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWUTS)
        .context("unshare", "mounts and host name")?;
    sethostname(HOST_NAME).context("sethostname", HOST_NAME)?;
    // Without it actions see in which group of the machine's processes they are, and no more.
    let _ = unshare(CloneFlags::CLONE_NEWCGROUP);
    let inputs = canonical(input_dirs, image_dirs)?;
    let disk = fs::canonicalize(place).context("find", place.display())?;
    mounts::make_private()?;
    mounts::tmpfs(&disk, "mode=0755")?;
    chdir(&disk).context("chdir", disk.display())?;
    for path in [INPUTS, OTHER_INPUTS, DEVICES, ROOTS, SCRATCH, DISK, PROC, MACHINE] {
        make_dir(Path::new(path.trim_start_matches('/')))?;
    }
    pivot_root(".", MACHINE.trim_start_matches('/')).context("pivot_root", disk.display())?;
    chdir("/").context("chdir", "/")?;
    mounts::bind(&under(MACHINE, Path::new(PROC)), Path::new(PROC))?;
    mounts::bind(&under(MACHINE, &disk), Path::new(DISK))?;
    for (given, real) in &inputs {
        let target = under(INPUTS, given);
        make_dir(&target)?;
        mounts::bind(&under(MACHINE, real), &target)?;
    }
    Ok(())
}

/// Detaches the machine's root: after this nothing of it is reachable but what the table above
/// names.
pub(super) fn leave_machine() -> Result<(), ZygoteError> {
    mounts::detach(Path::new(MACHINE))
}

/// `path` as seen from the zygote's root, below `base`.
pub(super) fn under(base: &str, path: &Path) -> PathBuf {
    Path::new(base).join(path.strip_prefix("/").unwrap_or(path))
}

/// Makes `from` appear at `to`, read-only: links as links, the rest as a bind mount.
pub(super) fn place(from: &Path, to: &Path) -> Result<(), ZygoteError> {
    let Ok(metadata) = fs::symlink_metadata(from) else { return Ok(()) };
    if metadata.is_symlink() {
        let target = fs::read_link(from).context("readlink", from.display())?;
        return symlink(target, to).context("symlink", to.display());
    }
    if metadata.is_dir() {
        make_dir(to)?;
    } else {
        File::create(to).context("create", to.display())?;
    }
    mounts::bind(from, to)?;
    mounts::restrict(to, true, false)
}

pub(super) fn make_dir(path: &Path) -> Result<(), ZygoteError> {
    fs::create_dir_all(path).context("mkdir", path.display())
}

/// For each directory of inputs and images, the path at which it is to appear and the one at which
/// it really is. Where no directory of inputs is given, it is the machine's root.
fn canonical(
    input_dirs: &[PathBuf],
    image_dirs: &[PathBuf],
) -> Result<Vec<(PathBuf, PathBuf)>, ZygoteError> {
    if input_dirs.is_empty() {
        return Ok(vec![(PathBuf::from("/"), PathBuf::from("/"))]);
    }
    let find = |given: &PathBuf| {
        Ok((given.clone(), fs::canonicalize(given).context("find", given.display())?))
    };
    input_dirs.iter().chain(image_dirs).map(find).collect()
}
