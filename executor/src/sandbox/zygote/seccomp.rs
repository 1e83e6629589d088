//! Which system calls an action cannot make.
//!
//! Actions have no capability, so most of these would fail anyway: the filter keeps them away
//! from kernel code that has been a way out of sandboxes before.

use std::collections::BTreeMap;

use libc::{
    CLONE_NEWCGROUP, CLONE_NEWIPC, CLONE_NEWNET, CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWUSER,
    CLONE_NEWUTS,
};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, apply_filter,
};

use super::error::ZygoteError;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;

/// `CLONE_NEWTIME`, which shares its bit with exit signals: only `unshare` takes it.
const CLONE_NEWTIME: i32 = 0x80;

/// What neither the zygote nor its actions ever need.
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

/// What the zygote makes actions with, and actions do not need.
const ZYGOTE_ONLY: &[i64] = &[
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_pivot_root,
    libc::SYS_setns,
    libc::SYS_umount2,
];

/// Said not to exist, so that callers take their other way. The flags of `clone3` lie in memory
/// where a filter cannot see them; C libraries fall back to `clone`.
const ABSENT: &[i64] = &[
    libc::SYS_clone3,
    libc::SYS_io_uring_setup,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
];

/// Compiled once. Installing a filter costs time with its length, so most of it lies on the
/// zygote, from which actions inherit it, and each action adds only the rest.
#[derive(Debug)]
pub(super) struct Filter(Vec<BpfProgram>);

impl Filter {
    pub(super) fn for_zygote() -> Result<Self, ZygoteError> {
        Ok(Self(vec![
            program(unconditional(ABSENT), libc::ENOSYS)?,
            program(unconditional(NEVER), libc::EPERM)?,
        ]))
    }

    pub(super) fn for_actions() -> Result<Self, ZygoteError> {
        let namespaces = [
            CLONE_NEWNS,
            CLONE_NEWUTS,
            CLONE_NEWIPC,
            CLONE_NEWUSER,
            CLONE_NEWPID,
            CLONE_NEWNET,
            CLONE_NEWCGROUP,
        ];
        let mut refused = unconditional(ZYGOTE_ONLY);
        refused.insert(libc::SYS_clone, any_flag(&namespaces)?);
        let unshared: Vec<i32> = namespaces.iter().copied().chain([CLONE_NEWTIME]).collect();
        refused.insert(libc::SYS_unshare, any_flag(&unshared)?);
        Ok(Self(vec![program(refused, libc::EPERM)?]))
    }

    /// Holds for this process and all that it becomes and starts.
    pub(super) fn apply(&self) -> Result<(), ZygoteError> {
        self.0
            .iter()
            .try_for_each(|program| apply_filter(program))
            .map_err(|error| ZygoteError::Refused(format!("seccomp: {error}")))
    }
}

fn unconditional(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, Vec::new())).collect()
}

/// Rules that match when the first argument has any of the flags.
fn any_flag(flags: &[i32]) -> Result<Vec<SeccompRule>, ZygoteError> {
    let rule = |flag: &i32| {
        let flag = u64::from(flag.cast_unsigned());
        SeccompCondition::new(0, SeccompCmpArgLen::Qword, SeccompCmpOp::MaskedEq(flag), flag)
            .and_then(|condition| SeccompRule::new(vec![condition]))
            .map_err(broken)
    };
    flags.iter().map(rule).collect()
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
