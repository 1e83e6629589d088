//! Changed conditions of one action: which of them this machine can change, and what they become.

use std::fs;
use std::path::Path;

use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::unistd::{Pid, sethostname};

use super::error::{Context, ZygoteError};
use super::identity::Identity;
use crate::sandbox::conditions::{Condition, Conditions, NotChanged};
use crate::sandbox::{CommandSpec, RootFs, UpperDir};

/// The host name of a check that changes it. It is longer than the usual one, as the directory is,
/// so that a length that leaks shows as well.
const OTHER_HOST_NAME: &str = "kiln-hermeticity-check";
/// The directory that is covered, so that the input root can lie elsewhere beneath it.
pub(super) const COVERED: &str = "/kiln";
pub(super) const OTHER_EXEC_ROOT: &str = "/kiln/hermeticity/check/elsewhere";
/// The last process number that counts as used: the action gets the next.
const OTHER_LAST_PID: &str = "23456";
const LAST_PID: &str = "/proc/sys/kernel/ns_last_pid";
/// By how much clocks without a date are ahead, in seconds and nanoseconds as `timens_offsets`
/// takes them: 37 days and some.
const CLOCK_OFFSETS: &str = "monotonic 3211234 567\nboottime 3211234 567\n";
const TIME_NAMESPACE: &str = "/proc/self/ns/time_for_children";
/// The kernel version since which a program enters the new time namespace at its exec.
const TIME_AT_EXEC: (u32, u32) = (6, 1);

/// The conditions of `spec` that can be changed, and the others, each with the reason. `inputs`:
/// why the inputs cannot be copied; `None`: they can.
pub(super) fn possible(
    spec: &CommandSpec,
    identity: &Identity,
    upper: UpperDir,
    inputs: Option<&str>,
) -> (Conditions, Vec<NotChanged>) {
    let mut changed = spec.conditions;
    let mut not_changed = Vec::new();
    for condition in Condition::ALL.into_iter().filter(|one| spec.conditions.has(*one)) {
        if let Some(reason) = hindrance(condition, spec, identity, upper, inputs) {
            changed = changed.without(condition);
            not_changed.push((condition, reason));
        }
    }
    (changed, not_changed)
}

fn hindrance(
    condition: Condition,
    spec: &CommandSpec,
    identity: &Identity,
    upper: UpperDir,
    inputs: Option<&str>,
) -> Option<String> {
    let when = |hindered: bool, reason: &str| hindered.then(|| reason.to_owned());
    match condition {
        Condition::HostName => None,
        Condition::ProcessIds => {
            when(!Path::new(LAST_PID).exists(), "this kernel lets nobody choose process numbers")
        }
        Condition::Directory => {
            when(spec.root == RootFs::Inputs, "the input root is the root directory of this action")
        }
        Condition::Clock => when(
            !Path::new(TIME_NAMESPACE).exists() || !time_at_exec(),
            "it needs time namespaces and Linux 6.1 or later",
        ),
        Condition::Cpus => when(cpus().len() < 2, "this worker has one processor only"),
        Condition::FileOrder if upper == UpperDir::Disk => {
            Some("on disk the file system alone chooses the order".to_owned())
        }
        Condition::FileOrder | Condition::ModificationTimes => inputs.map(str::to_owned),
        Condition::User => {
            when(!identity.switches_user, "this worker does not run as root and has one user only")
        }
    }
}

fn time_at_exec() -> bool {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let mut numbers = release.split(['.', '-']).map_while(|part| part.trim().parse::<u32>().ok());
    let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    version >= TIME_AT_EXEC
}

/// The processors on which this process may run.
fn cpus() -> Vec<usize> {
    let Ok(set) = sched_getaffinity(Pid::this()) else { return Vec::new() };
    (0..CpuSet::count()).filter(|cpu| set.is_set(*cpu).unwrap_or(false)).collect()
}

/// The namespaces of its own that an action needs for these conditions to be changed.
pub(super) fn namespaces(conditions: Conditions) -> CloneFlags {
    if conditions.has(Condition::HostName) { CloneFlags::CLONE_NEWUTS } else { CloneFlags::empty() }
}

/// Changes what init can change before it gives anything up, while the machine's `/proc` is there.
pub(super) fn enter(conditions: Conditions) -> Result<(), ZygoteError> {
    if conditions.has(Condition::HostName) {
        sethostname(OTHER_HOST_NAME).context("sethostname", OTHER_HOST_NAME)?;
    }
    if conditions.has(Condition::Clock) {
        let time = CloneFlags::from_bits_retain(libc::CLONE_NEWTIME);
        unshare(time).context("unshare", "the time namespace")?;
        let path = "/proc/self/timens_offsets";
        fs::write(path, CLOCK_OFFSETS).context("write", path)?;
    }
    Ok(())
}

/// Changes what init can change right before the program is started, with the action's own `/proc`.
pub(super) fn before_start(conditions: Conditions) -> Result<(), ZygoteError> {
    if conditions.has(Condition::ProcessIds) {
        fs::write(LAST_PID, OTHER_LAST_PID).context("write", LAST_PID)?;
    }
    Ok(())
}

/// Changes what only the program's own process can.
pub(super) fn in_program(conditions: Conditions) -> nix::Result<()> {
    if !conditions.has(Condition::Cpus) {
        return Ok(());
    }
    let mut one = CpuSet::new();
    if let Some(last) = cpus().last() {
        one.set(*last)?;
    }
    sched_setaffinity(Pid::from_raw(0), &one)
}
