//! Processes: how they are made, waited for and watched.
//!
//! The zygote is single-threaded, so a child made by a plain fork may allocate and lock: no other
//! thread can have held a lock at the moment of the fork.
#![allow(unsafe_code)] // clone and wait4 have no safe counterpart

use std::os::fd::OwnedFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sched::{CloneFlags, clone};
use nix::unistd::Pid;

use super::error::{Context, ZygoteError};
use crate::sandbox::pidfd;
use crate::sandbox::wire::Status;

/// Bytes of a child's stack: enough for everything that runs between clone and exec.
pub(super) const STACK: usize = 256 << 10;

/// How a child ended and what it and its waited-for descendants used.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ended {
    pub status: Status,
    pub user: Duration,
    pub system: Duration,
    pub peak_memory_bytes: u64,
}

/// A stack for a child, which may be used for one child after the other.
pub(super) fn stack() -> Vec<u8> {
    vec![0; STACK]
}

/// A child with a copy of this process's memory, in the new namespaces that `flags` name.
pub(super) fn spawn(
    flags: CloneFlags,
    stack: &mut [u8],
    body: &mut dyn FnMut() -> i32,
) -> Result<Pid, ZygoteError> {
    debug_assert!(!flags.intersects(CloneFlags::CLONE_VM));
    // SAFETY: without CLONE_VM the child has its own copy of everything, the stack included; this
    // process is single-threaded, so no lock is held for ever in that copy.
    let pid = unsafe { clone(Box::new(|| leave(body())), stack, flags, Some(libc::SIGCHLD)) };
    pid.context("clone", format_args!("with {flags:?}"))
}

/// A child that shares this process's memory; the caller sleeps until it ends or calls exec.
/// What `body` writes into its captured variables is seen by the caller.
pub(super) fn vfork(
    flags: CloneFlags,
    stack: &mut [u8],
    body: &mut dyn FnMut() -> i32,
) -> Result<Pid, ZygoteError> {
    let flags = flags | CloneFlags::CLONE_VM | CloneFlags::CLONE_VFORK;
    // SAFETY: the child runs on a stack of its own, and CLONE_VFORK keeps this only thread asleep
    // while the child uses the shared memory; `stack` and `body` outlive it for the same reason.
    let pid = unsafe { clone(Box::new(|| leave(body())), stack, flags, Some(libc::SIGCHLD)) };
    pid.context("clone", "sharing memory")
}

fn leave(code: i32) -> isize {
    // SAFETY: _exit takes no pointer; unlike exit it runs none of the parent's exit handlers.
    unsafe { libc::_exit(code) }
}

/// Waits until the child `pid` has ended.
pub(super) fn wait(pid: Pid) -> Result<Ended, ZygoteError> {
    let mut status = 0;
    // SAFETY: rusage is plain numbers, for which all zeroes is a value.
    let mut usage: libc::rusage = unsafe { std::mem::zeroed() };
    loop {
        // SAFETY: both pointers are to live variables of the right types.
        let result = unsafe { libc::wait4(pid.as_raw(), &raw mut status, 0, &raw mut usage) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            other => {
                other.context("wait4", pid)?;
                break;
            }
        }
    }
    Ok(Ended {
        status: meaning(status),
        user: duration(usage.ru_utime),
        system: duration(usage.ru_stime),
        // ru_maxrss is in KiB.
        peak_memory_bytes: u64::try_from(usage.ru_maxrss).unwrap_or(0) << 10,
    })
}

/// What the status of a child that has ended says. Signals have numbers here, not names: those from 32 on
/// have none, and a program may die of them as well.
fn meaning(status: libc::c_int) -> Status {
    if libc::WIFSIGNALED(status) {
        Status::Signalled(libc::WTERMSIG(status))
    } else {
        Status::Exited(libc::WEXITSTATUS(status))
    }
}

/// Takes leave of one child that has ended, whichever it is; `None`: none has.
pub(super) fn reap() -> Option<(Pid, Status)> {
    let mut status = 0;
    loop {
        // SAFETY: the pointer is to a live variable of the right type.
        let result = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
        match Errno::result(result) {
            Err(Errno::EINTR) => {}
            Err(_) | Ok(0) => return None,
            Ok(pid) => return Some((Pid::from_raw(pid), meaning(status))),
        }
    }
}

fn duration(time: libc::timeval) -> Duration {
    let micros = u64::try_from(time.tv_usec).unwrap_or(0);
    Duration::from_secs(u64::try_from(time.tv_sec).unwrap_or(0)) + Duration::from_micros(micros)
}

/// A descriptor that becomes readable when the process ends.
pub(super) fn pidfd(pid: Pid) -> Result<OwnedFd, ZygoteError> {
    pidfd::open(pid).context("pidfd_open", pid)
}
