//! Giving up what an action must not have: capabilities, new privileges, resources, descriptors.
#![allow(unsafe_code)] // close_range has no safe counterpart

use std::os::fd::{AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, remove_capability_from_bounding_set,
    set_capabilities, set_capabilities_secure_bits,
};

use super::error::{Context, ZygoteError, errno};

/// Keeps `kept` alone of the capabilities of this process.
pub(super) fn keep_capabilities(kept: CapabilitySet) -> nix::Result<()> {
    let inheritable = CapabilitySet::empty();
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable };
    set_capabilities(None, sets).map_err(errno)
}

/// Drops all capabilities of the bounding set: a process that enters a user namespace begins with
/// all of them again.
pub(super) fn drop_bounding_set() -> nix::Result<()> {
    // More than the kernel knows; it says EINVAL at its own end.
    for number in 0..u64::BITS {
        let capability = CapabilitySet::from_bits_retain(1 << number);
        match remove_capability_from_bounding_set(capability).map_err(errno) {
            Err(Errno::EINVAL) => break,
            other => other?,
        }
    }
    Ok(())
}

/// Makes sure that no exec in this process or its children can gain a capability or another user.
pub(super) fn forbid_new_privileges() -> Result<(), ZygoteError> {
    drop_bounding_set().context("prctl", "PR_CAPBSET_DROP")?;
    // A user namespace has begun with none set; without one, what cannot be changed binds root alone.
    let _ = set_capabilities_secure_bits(CapabilitiesSecureBits::empty());
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
