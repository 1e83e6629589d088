//! The calls that the kernel asks about, and the answers to it (`seccomp_unotify(2)`).
#![allow(unsafe_code)] // the ioctl calls and reading them have no safe counterpart

use std::ffi::OsString;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use nix::errno::Errno;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;

use super::super::error::{Context, ZygoteError};
use super::super::seccomp::{Rename, rename_of};

/// Most bytes of a path with its NUL; the next constant says how many bytes are read at a time: no
/// page is smaller.
const PATH_MAX: usize = 4096;
const PAGE: usize = 4096;

/// A system call that waits for an answer.
#[derive(Clone, Copy)]
pub(super) struct Notice {
    id: u64,
    process: Pid,
    call: Rename,
    arguments: [u64; 6],
}

pub(super) enum NoticeResponse {
    /// The kernel is to do the call itself.
    Continue,
    Done,
    Failed(Errno),
}

/// A notice as the kernel writes it, with room for more: newer kernels may tell more than is known
/// here.
#[repr(C)]
struct Received {
    told: libc::seccomp_notif,
    spare: [u64; 32],
}

impl Notice {
    /// Reads the next notice; `None`: the process that made the call is gone.
    pub(super) fn receive(listener: &OwnedFd) -> Result<Option<Self>, ZygoteError> {
        // SAFETY: both parts are plain numbers, for which all zeroes is a value, and what the kernel wants.
        let mut received: Received = unsafe { std::mem::zeroed() };
        let call = libc::SECCOMP_IOCTL_NOTIF_RECV;
        // SAFETY: the kernel writes its seccomp_notif, for which there is room and to spare.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), call, &raw mut received) };
        match Errno::result(result) {
            Err(Errno::ENOENT | Errno::EINTR) => return Ok(None),
            other => drop(other.context("ioctl", "SECCOMP_IOCTL_NOTIF_RECV")?),
        }
        let Received { told, .. } = received;
        let call = rename_of(told.data.arch, told.data.nr.cast_unsigned());
        let process = Pid::from_raw(told.pid.cast_signed());
        Ok(Some(Self { id: told.id, process, call, arguments: told.data.args }))
    }

    pub(super) fn answer(
        &self,
        listener: &OwnedFd,
        answer: NoticeResponse,
    ) -> Result<(), ZygoteError> {
        let (error, flags) = match answer {
            NoticeResponse::Continue => (0, libc::SECCOMP_USER_NOTIF_FLAG_CONTINUE),
            NoticeResponse::Done => (0, 0),
            NoticeResponse::Failed(errno) => (-(errno as i32), 0),
        };
        let flags = u32::try_from(flags).unwrap_or(0);
        let mut response = libc::seccomp_notif_resp { id: self.id, val: 0, error, flags };
        let call = libc::SECCOMP_IOCTL_NOTIF_SEND;
        // SAFETY: the kernel reads a live seccomp_notif_resp.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), call, &raw mut response) };
        match Errno::result(result) {
            // Whoever asked has been killed.
            Err(Errno::ENOENT) => Ok(()),
            other => other.map(drop).context("ioctl", "SECCOMP_IOCTL_NOTIF_SEND"),
        }
    }

    /// Whether who asked waits for the answer. Until then its number is no other process's: what was read
    /// of that process before was its own.
    pub(super) fn still_waits(&self, listener: &OwnedFd) -> bool {
        let mut id = self.id;
        let call = libc::SECCOMP_IOCTL_NOTIF_ID_VALID;
        // SAFETY: the kernel reads a live u64.
        let result = unsafe { libc::ioctl(listener.as_raw_fd(), call, &raw mut id) };
        result == 0
    }

    pub(super) fn process(&self) -> Pid {
        self.process
    }

    /// The old and the new path, each with the descriptor that it is meant from.
    pub(super) fn paths(&self) -> Option<((i32, PathBuf), (i32, PathBuf))> {
        let argument = |index: usize| self.arguments[index];
        // Descriptors are the low half, as the kernel takes them.
        let descriptor = |index| argument(index) as u32 as i32;
        let (old, new) = match self.call {
            Rename::Plain => ((libc::AT_FDCWD, 0), (libc::AT_FDCWD, 1)),
            Rename::At => ((descriptor(0), 1), (descriptor(2), 3)),
        };
        let path = |index| self.path(argument(index));
        Some(((old.0, path(old.1)?), (new.0, path(new.1)?)))
    }

    fn path(&self, address: u64) -> Option<PathBuf> {
        let mut at = usize::try_from(address).ok()?;
        let mut bytes = Vec::new();
        while bytes.len() < PATH_MAX {
            // Page by page, since the next one may not be there.
            let mut piece = vec![0; PAGE - at % PAGE];
            let remote = [RemoteIoVec { base: at, len: piece.len() }];
            let local = &mut [IoSliceMut::new(&mut piece)];
            let read =
                process_vm_readv(self.process, local, &remote).ok().filter(|read| *read > 0)?;
            piece.truncate(read);
            if let Some(end) = piece.iter().position(|byte| *byte == 0) {
                bytes.extend_from_slice(&piece[..end]);
                return Some(OsString::from_vec(bytes).into());
            }
            bytes.extend_from_slice(&piece);
            at = at.checked_add(read)?;
        }
        None
    }
}
