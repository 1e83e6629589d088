//! Giving up what an action must not have: capabilities, new privileges, resources, descriptors.
#![allow(unsafe_code)] // capset, prctl and close_range have no safe counterpart

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::error::{Context, ZygoteError};

pub(super) const CAP_KILL: u32 = 5;
const CAPABILITY_VERSION_3: u32 = 0x2008_0522;
/// More than the kernel knows; it says EINVAL at its own end.
const CAPABILITY_END: libc::c_ulong = 64;

/// Keeps `kept` alone (a set of bits) of the capabilities of this process.
pub(super) fn keep_capabilities(kept: u32) -> nix::Result<()> {
    // The layouts of struct __user_cap_header_struct and of two __user_cap_data_struct:
    // effective, permitted, inheritable for capabilities 0-31, then the same for 32-63.
    let header = [CAPABILITY_VERSION_3, 0];
    let data = [kept, kept, 0, 0, 0, 0];
    // SAFETY: the kernel reads the two arrays, which have the sizes that version 3 states.
    Errno::result(unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), data.as_ptr()) })
        .map(drop)
}

/// A process that enters a user namespace begins with all of it again.
pub(super) fn drop_bounding_set() -> nix::Result<()> {
    for capability in 0..CAPABILITY_END {
        // SAFETY: integers only.
        let result = unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) };
        match Errno::result(result) {
            Err(Errno::EINVAL) => break,
            other => drop(other?),
        }
    }
    Ok(())
}

/// After this no exec in this process or its children can gain a capability or another user.
pub(super) fn forbid_new_privileges() -> Result<(), ZygoteError> {
    drop_bounding_set().context("prctl", "PR_CAPBSET_DROP")?;
    // A user namespace has begun with none set; without one, what cannot be changed binds root alone.
    // SAFETY: integers only.
    unsafe { libc::prctl(libc::PR_SET_SECUREBITS, 0, 0, 0, 0) };
    nix::sys::prctl::set_no_new_privs().context("prctl", "PR_SET_NO_NEW_PRIVS")
}

/// Marks all descriptors but the standard three to be closed by exec.
pub(super) fn close_on_exec() -> nix::Result<()> {
    // SAFETY: integers only; no descriptor is closed, so none that Rust owns becomes invalid.
    let result = unsafe {
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC)
    };
    Errno::result(result).map(drop)
}

/// Closes all descriptors but the standard three: for a process that has opened nothing yet.
pub(super) fn close_all() -> nix::Result<()> {
    // SAFETY: integers only; nothing in this process owns any of them yet.
    Errno::result(unsafe { libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, 0) })
        .map(drop)
}

/// Closes all descriptors but the standard three and `kept`: for a process that ends without dropping
/// what it owns.
pub(super) fn close_all_but(kept: BorrowedFd<'_>) -> nix::Result<()> {
    let kept = kept.as_raw_fd().cast_unsigned();
    for (first, last) in [(3, kept.saturating_sub(1)), (kept.saturating_add(1).max(3), u32::MAX)] {
        if first <= last {
            // SAFETY: integers only; the caller uses no descriptor but `kept` any more.
            Errno::result(unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) })?;
        }
    }
    Ok(())
}

/// Limits of one action: they stand in where the machine has no cgroup or file system limit for the same.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct StandIns {
    pub processes: Option<u64>,
    pub data_bytes: Option<u64>,
    pub file_bytes: Option<u64>,
}

impl StandIns {
    pub(super) fn apply(&self) -> nix::Result<()> {
        let limits = [
            (Resource::RLIMIT_NPROC, self.processes),
            (Resource::RLIMIT_DATA, self.data_bytes),
            (Resource::RLIMIT_FSIZE, self.file_bytes),
        ];
        for (resource, wanted) in limits {
            let Some(wanted) = wanted else { continue };
            let (_, hard) = getrlimit(resource)?;
            let value = wanted.min(hard);
            setrlimit(resource, value, value)?;
        }
        Ok(())
    }
}
