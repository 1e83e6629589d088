//! Which system calls an action cannot make.
//!
//! Actions have no capability, and no way to a user namespace in which they would have some, so
//! mounts and namespaces are out of their reach anyway. The filter keeps them away from further
//! kernel code that has been a way out of sandboxes before. Installing one costs as much as starting
//! a small program: it lies on the zygote, and actions inherit it.

use std::collections::BTreeMap;

use libc::CLONE_NEWUSER;
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::error::ZygoteError;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// What neither actions nor the zygote, once it is set up, ever need.
const NEVER: &[i64] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_open_by_handle_at,
    libc::SYS_perf_event_open,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_settimeofday,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// Said not to exist, so that callers take their other way. The flags of `clone3` lie in memory
/// where a filter cannot see them; C libraries fall back to `clone`.
const ABSENT: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Holds for this process and all that it becomes and starts.
pub(super) fn apply() -> Result<(), ZygoteError> {
    let absent = unconditional(ABSENT);
    let mut refused = unconditional(NEVER);
    refused.insert(libc::SYS_clone, vec![with_flag(CLONE_NEWUSER)?]);
    refused.insert(libc::SYS_unshare, vec![with_flag(CLONE_NEWUSER)?]);
    for (rules, errno) in [(absent, libc::ENOSYS), (refused, libc::EPERM)] {
        apply_filter(&program(rules, errno)?)
            .map_err(|error| ZygoteError::Refused(format!("seccomp: {error}")))?;
    }
    Ok(())
}

fn unconditional(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Matches when the first argument has the flag.
fn with_flag(flag: i32) -> Result<SeccompRule, ZygoteError> {
    let flag = u64::from(flag.cast_unsigned());
    SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)
        .and_then(|condition| SeccompRule::new(vec![condition]))
        .map_err(broken)
}

fn program(rules: Rules, errno: i32) -> Result<BpfProgram, ZygoteError> {
    let arch = std::env::consts::ARCH.try_into().map_err(broken)?;
    let action = SeccompAction::Errno(errno.cast_unsigned());
    let filter = SeccompFilter::new(rules, SeccompAction::Allow, action, arch).map_err(broken)?;
    filter.try_into().map_err(broken)
}

fn broken(error: seccompiler::BackendError) -> ZygoteError {
    ZygoteError::Refused(format!("the system call filter cannot be made: {error}"))
}
