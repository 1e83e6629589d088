//! Descriptors of processes: unlike a number, one never comes to mean another process.

use std::os::fd::{BorrowedFd, OwnedFd};

use nix::unistd::Pid;
use rustix::io::{Errno, Result};
use rustix::process::{PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// Opens a descriptor that becomes readable when the process ends.
pub(super) fn open(pid: Pid) -> Result<OwnedFd> {
    let pid = rustix::process::Pid::from_raw(pid.as_raw()).ok_or(Errno::SRCH)?;
    pidfd_open(pid, PidfdFlags::empty())
}

pub(super) fn kill(process: BorrowedFd<'_>) -> Result<()> {
    pidfd_send_signal(process, Signal::KILL)
}
