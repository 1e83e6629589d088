//! Renames of input directories.
//!
//! Inputs lie beneath an overlay, which says EXDEV to a `rename(2)` of a directory that has a part in a
//! read-only layer. The filter of system calls so asks the zygote about each rename. What is no directory
//! the kernel goes on with; a directory is renamed by a process that has the rights of the action and no
//! more, entry by entry where it has to be (`directory`). `renameat2` with flags is not asked about: who
//! uses it knows other ways, and this needs it itself.

mod directory;
mod notice;

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open};
use nix::sched::{CloneFlags, setns};
use nix::sys::prctl;
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::{Mode, fstatat};
use nix::unistd::{Gid, Pid, Uid, getpid, getppid, setresgid, setresuid};
use rustix::thread::CapabilitySet;

use self::notice::{Notice, NoticeResponse};
use super::error::ZygoteError;
use super::identity::Identity;
use super::{privileges, process};
use crate::sandbox::wire::Status;

/// The descriptor on which the kernel asks about renames.
#[derive(Debug)]
pub(super) struct Listener(OwnedFd);

impl Listener {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

/// Who renames for an action: nobody where its tree is not one of its own.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rights<'a> {
    pub identity: Identity,
    /// The user namespace of the action's programs; `None`: it is the zygote's.
    pub namespace: Option<BorrowedFd<'a>>,
}

/// Does the renames that the kernel asks about while an action or a tool runs.
pub(super) struct Renames<'a> {
    listener: Option<&'a Listener>,
    /// The rights with which renames are done; `None`: the kernel does every one.
    rights: Option<Rights<'a>>,
    running: Option<Running>,
    stack: Vec<u8>,
}

/// A rename under way; there is one at a time, and others wait in the kernel.
struct Running {
    notice: Notice,
    child: Pid,
    ended: OwnedFd,
}

impl<'a> Renames<'a> {
    pub(super) fn new(listener: Option<&'a Listener>, rights: Option<Rights<'a>>) -> Self {
        Self { listener, rights, running: None, stack: Vec::new() }
    }

    /// The descriptor that can be read when [`Self::attend`] has something to do; `None`: it never
    /// has.
    pub(super) fn waits_for(&self) -> Option<BorrowedFd<'_>> {
        let listener = self.listener.map(|listener| listener.0.as_fd());
        self.running.as_ref().map(|running| running.ended.as_fd()).or(listener)
    }

    pub(super) fn attend(&mut self) -> Result<(), ZygoteError> {
        let Some(Listener(listener)) = self.listener else { return Ok(()) };
        if let Some(Running { notice, child, .. }) = self.running.take() {
            let answer = match process::wait(child)?.status {
                Status::Exited(0) => NoticeResponse::Done,
                Status::Exited(errno) => NoticeResponse::Failed(Errno::from_raw(errno)),
                // Of its memory limit, say.
                Status::Signalled(_) => NoticeResponse::Failed(Errno::EXDEV),
            };
            return notice.answer(listener, answer);
        }
        let Some(notice) = Notice::receive(listener)? else { return Ok(()) };
        let wanted = self.rights.and_then(|rights| Some((rights, Wanted::of(&notice)?)));
        let Some((rights, wanted)) = wanted.filter(|_| notice.still_waits(listener)) else {
            return notice.answer(listener, NoticeResponse::Continue);
        };
        match self.start(&wanted, rights) {
            Ok((child, ended)) => {
                self.running = Some(Running { notice, child, ended });
                Ok(())
            }
            // The action has used up the processes or the memory that this would take.
            Err(_) => notice.answer(listener, NoticeResponse::Failed(Errno::EXDEV)),
        }
    }

    fn start(
        &mut self,
        wanted: &Wanted,
        rights: Rights<'_>,
    ) -> Result<(Pid, OwnedFd), ZygoteError> {
        self.stack.resize(process::STACK, 0);
        let zygote = getpid();
        let child = process::spawn(CloneFlags::empty(), &mut self.stack, &mut || {
            wanted.rename(rights, zygote).map_or_else(|errno| errno as i32, |()| 0)
        })?;
        let ended = process::pidfd(child).inspect_err(|_| end(child))?;
        Ok((child, ended))
    }
}

impl Drop for Renames<'_> {
    /// Ends a rename that is under way: nothing may go on in the tree of an action that has ended.
    fn drop(&mut self) {
        if let Some(Running { child, .. }) = &self.running {
            end(*child);
        }
    }
}

fn end(child: Pid) {
    let _ = kill(child, Signal::SIGKILL);
    let _ = process::wait(child);
}

impl Rights<'_> {
    /// Gives this process the user and the user namespace of the action, and takes its capabilities
    /// away.
    fn assume(self) -> nix::Result<()> {
        if self.identity.switches_user {
            let (uid, gid) = (self.identity.uid, self.identity.gid);
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            setresgid(gid, gid, gid)?;
            setresuid(uid, uid, uid)?;
        }
        if let Some(namespace) = self.namespace {
            setns(namespace, CloneFlags::CLONE_NEWUSER)?;
        }
        privileges::keep_capabilities(CapabilitySet::empty())?;
        // Last: the kernel forgets it of a process that becomes somebody else.
        prctl::set_pdeathsig(Signal::SIGKILL)
    }
}

/// A rename of what may be a directory, with what its paths are meant from.
struct Wanted {
    mounts: File,
    old: (OwnedFd, PathBuf),
    new: (OwnedFd, PathBuf),
}

impl Wanted {
    /// The rename that the notice asks about; `None`: the kernel is to do it, or the process that
    /// asked is gone or cannot be looked into.
    fn of(notice: &Notice) -> Option<Self> {
        let (old, new) = notice.paths()?;
        let process = PathBuf::from(format!("/proc/{}", notice.process()));
        let old = (base(&process, old.0, &old.1).ok()?, old.1);
        // A stranger's links may lead this look somewhere else: then the kernel says EXDEV, no more.
        let seen = if old.1.is_absolute() {
            let path = process.join("root").join(old.1.strip_prefix("/").ok()?);
            fstatat(nix::fcntl::AT_FDCWD, &path, AtFlags::AT_SYMLINK_NOFOLLOW)
        } else {
            fstatat(&old.0, &old.1, AtFlags::AT_SYMLINK_NOFOLLOW)
        };
        if !directory::is_directory(&seen.ok()?) {
            return None;
        }
        let new = (base(&process, new.0, &new.1).ok()?, new.1);
        let mounts = File::open(process.join("ns/mnt")).ok()?;
        Some(Self { mounts, old, new })
    }

    /// Does the rename. Called in a process of its own, which becomes one of the action's before it
    /// follows any path.
    fn rename(&self, rights: Rights<'_>, zygote: Pid) -> nix::Result<()> {
        setns(&self.mounts, CloneFlags::CLONE_NEWNS)?;
        rights.assume()?;
        if getppid() != zygote {
            return Err(Errno::ESRCH);
        }
        directory::rename(self.old.0.as_fd(), &self.old.1, self.new.0.as_fd(), &self.new.1)
    }
}

/// Opens the directory from which `process` (its directory in /proc) means `path`: its root for an
/// absolute path, else its working directory or its descriptor `directory`.
fn base(process: &Path, directory: i32, path: &Path) -> io::Result<OwnedFd> {
    let base = match directory {
        _ if path.is_absolute() => process.join("root"),
        libc::AT_FDCWD => process.join("cwd"),
        number => process.join("fd").join(number.to_string()),
    };
    let base = CString::new(base.as_os_str().as_bytes())?;
    Ok(open(base.as_c_str(), OFlag::O_PATH | OFlag::O_CLOEXEC, Mode::empty())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_renames_for_an_action_ends_with_the_zygote() {
        let identity = Identity {
            uid: 61_000,
            gid: 61_000,
            user_namespace: false,
            switches_user: Uid::effective().is_root(),
            owns_inputs: false,
            inputs: "",
        };
        let mut stack = process::stack();
        let child = process::spawn(CloneFlags::empty(), &mut stack, &mut || {
            let assumed = Rights { identity, namespace: None }.assume();
            let ends = prctl::get_pdeathsig() == Ok(Some(Signal::SIGKILL));
            i32::from(assumed.is_err() || !ends)
        });
        assert_eq!(process::wait(child.unwrap()).unwrap().status, Status::Exited(0));
    }
}
