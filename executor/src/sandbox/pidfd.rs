//! Descriptors of processes: unlike a number, one never comes to mean another process.
#![allow(unsafe_code)] // pidfd_open and pidfd_send_signal have no safe counterpart

use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use nix::errno::Errno;
use nix::unistd::Pid;

/// It becomes readable when the process ends.
pub(super) fn open(pid: Pid) -> nix::Result<OwnedFd> {
    // SAFETY: pidfd_open takes two integers.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid.as_raw(), 0) };
    let fd = i32::try_from(Errno::result(fd)?).map_err(|_| Errno::EBADF)?;
    // SAFETY: the kernel has just made this descriptor for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub(super) fn kill(process: BorrowedFd<'_>) -> nix::Result<()> {
    let info = ptr::null::<libc::siginfo_t>();
    // SAFETY: without siginfo_t the kernel reads no memory of this process.
    let sent = unsafe {
        libc::syscall(libc::SYS_pidfd_send_signal, process.as_raw_fd(), libc::SIGKILL, info, 0)
    };
    Errno::result(sent).map(drop)
}
