//! What a process inherits from whoever started the server, set to fixed values before the zygote does
//! anything else: its actions inherit it from there. docs/sandbox.md has the whole list.
#![allow(unsafe_code)] // some of these calls have no safe counterpart

use std::fs;
use std::num::NonZeroU64;

use nix::errno::Errno;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::SigSet;
use nix::sys::stat::{Mode, umask};
use nix::unistd::setsid;
use rustix::process::{
    TimeStampCounterReadability, configure_io_flusher_behavior, getpriority_process,
    set_machine_check_memory_corruption_kill_policy, set_time_stamp_counter_readability,
};
use rustix::thread::{
    clear_ambient_capability_set, disable_transparent_huge_pages, set_current_timer_slack,
};

use super::error::{Context, ZygoteError};
use super::privileges;

/// The mask for the modes of all files that the zygote and, at its start, an action makes.
const UMASK: Mode = Mode::from_bits_truncate(0o022);
/// Actions are to be killed before the zygote and anything else when memory runs out.
pub(super) const OOM_SCORE: i32 = 500;
const OOM_SCORE_FILE: &str = "/proc/self/oom_score_adj";
/// The timer slack of actions in nanoseconds: the kernel's own default.
const TIMER_SLACK_NANOS: NonZeroU64 = NonZeroU64::new(50_000).expect("it is not zero");
const COREDUMP_FILTER: &str = "0x33";
/// The login id that says that no user has logged in for this process.
const NO_LOGIN: &str = "4294967295";
const LAST_SIGNAL: libc::c_int = 64;

const PR_GET_MDWE: libc::c_int = 66;
const PR_SET_MEMORY_MERGE: libc::c_int = 67;
const KEYCTL_JOIN_SESSION_KEYRING: libc::c_ulong = 1;
const IOPRIO_WHO_PROCESS: libc::c_ulong = 1;
const STACK_BYTES: u64 = 8 << 20;
const LOCKED_BYTES: u64 = 8 << 20;
/// Most signals that may wait for a user's processes; each POSIX timer takes one as well.
const PENDING_SIGNALS: u64 = 8_192;
const MESSAGE_QUEUE_BYTES: u64 = 819_200;

/// Sets all inherited attributes. To be called before anything is opened. Returns a sentence for
/// each that this user cannot take back.
pub(super) fn set() -> Result<Vec<String>, ZygoteError> {
    privileges::close_all().context("close_range", "what was inherited")?;
    umask(UMASK);
    // Without a terminal nobody's Ctrl-C ends an action; one who leads a session already has none.
    let _ = setsid();
    default_signals();
    SigSet::empty().thread_set_mask().context("sigprocmask", "in the zygote")?;
    memory();
    identity();
    let mut kept = Vec::new();
    kept.extend(scheduling());
    kept.extend(oom_score());
    kept.extend(no_new_executable_memory());
    Ok(kept)
}

/// Resets all signals but SIGPIPE, which the zygote ignores like every Rust program, and an action's start
/// resets.
fn default_signals() {
    // struct sigaction as the kernel has it: no handler, no flags, an empty mask.
    let default = [0_u64; 4];
    for signal in (1..=LAST_SIGNAL).filter(|signal| *signal != libc::SIGPIPE) {
        // SAFETY: the kernel reads at most the four words of `default`; the default action runs no
        // code of this process. SIGKILL and SIGSTOP are refused, and have the default action anyway.
        unsafe {
            libc::syscall(
                libc::SYS_rt_sigaction,
                signal,
                default.as_ptr(),
                std::ptr::null::<u64>(),
                size_of::<u64>(),
            )
        };
    }
}

/// Sets what processes inherit about memory and timers to fixed values. An attribute that an old
/// kernel does not know is the same everywhere there.
fn memory() {
    let _ = set_current_timer_slack(Some(TIMER_SLACK_NANOS));
    let _ = disable_transparent_huge_pages(false);
    let _ = set_machine_check_memory_corruption_kill_policy(None);
    let _ = configure_io_flusher_behavior(false);
    let _ = set_time_stamp_counter_readability(TimeStampCounterReadability::Readable);
    // SAFETY: an integer only; nothing here relies on another execution domain.
    unsafe { libc::personality(0) };
    // Of pages that are merged with those of others, writing tells who else has the same.
    // SAFETY: integers only; what is in memory stays the same.
    unsafe { libc::prctl(PR_SET_MEMORY_MERGE, 0, 0, 0, 0) };
    let _ = fs::write("/proc/self/coredump_filter", COREDUMP_FILTER);
}

/// Forgets whose login session this was, with its keys and ambient capabilities. Where the kernel
/// has no such thing, or keeps it, nothing depends on it.
fn identity() {
    let _ = fs::write("/proc/self/loginuid", NO_LOGIN);
    // SAFETY: without a name the kernel reads no memory of this process.
    unsafe { libc::syscall(libc::SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, 0) };
    let _ = clear_ambient_capability_set();
}

/// `struct sched_attr`. All zeroes but the size: the normal policy, nice 0, the default time slice.
#[repr(C)]
#[derive(Default)]
struct SchedulingAttributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    least_utilisation: u32,
    most_utilisation: u32,
}

/// The flag that says that both bounds of utilisation are given; a bound of all ones takes it away.
const UTILISATION: u64 = 0x60;

/// Sets the scheduling of processors and disks back to the default. `Some`: says what of it the
/// kernel did not let be set back.
fn scheduling() -> Option<String> {
    // SAFETY: integers only.
    unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, 0, 0) };
    let unbounded = SchedulingAttributes {
        flags: UTILISATION,
        least_utilisation: u32::MAX,
        most_utilisation: u32::MAX,
        ..Default::default()
    };
    let usual = SchedulingAttributes::default;
    // A kernel without bounds of utilisation refuses the first.
    if schedule(unbounded).or_else(|_| schedule(usual())).is_ok() {
        return None;
    }
    let nice = getpriority_process(None).unwrap_or(0);
    let _ = schedule(SchedulingAttributes { nice, ..usual() });
    Some(format!(
        "priority: this server was started with nice {nice}, and its actions have that too"
    ))
}

fn schedule(mut attributes: SchedulingAttributes) -> nix::Result<()> {
    attributes.size = u32::try_from(size_of::<SchedulingAttributes>()).unwrap_or(0);
    // SAFETY: the kernel reads a live sched_attr of the size that it states.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, 0, &raw const attributes, 0) };
    Errno::result(result).map(drop)
}

/// An action raises its own to the usual one; only root can lower it, and only here.
fn oom_score() -> Option<String> {
    let score = fs::read_to_string(OOM_SCORE_FILE).ok()?.trim().parse::<i32>().ok()?;
    if score <= OOM_SCORE || fs::write(OOM_SCORE_FILE, OOM_SCORE.to_string()).is_ok() {
        return None;
    }
    Some(format!(
        "oom_score_adj: this server was started with {score}, and its actions have that instead of {OOM_SCORE}"
    ))
}

/// Lets the kernel kill an action first when memory runs out. Called in its first process, before that gives
/// anything up.
pub(super) fn raise_oom_score() {
    // Without it the score of the zygote stands, which is no higher where it could be helped.
    let _ = fs::write(OOM_SCORE_FILE, OOM_SCORE.to_string());
}

fn no_new_executable_memory() -> Option<String> {
    // SAFETY: integers only.
    let denied = unsafe { libc::prctl(PR_GET_MDWE, 0, 0, 0, 0) };
    (denied > 0).then(|| {
        "memory: this server was started so that no program can make its memory executable \
         (MemoryDenyWriteExecute), and for its actions it is the same"
            .to_owned()
    })
}

/// Sets every resource limit but those that belong to one action. To be called while the process
/// still has the server's rights: only root can raise what its starter has lowered for good.
/// Returns a sentence for each that could not be raised.
pub(super) fn set_limits(open_files: u64) -> Result<Vec<String>, ZygoteError> {
    let limits = [
        (Resource::RLIMIT_AS, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_CORE, 0, 0),
        (Resource::RLIMIT_CPU, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_DATA, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_FSIZE, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_LOCKS, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_MEMLOCK, LOCKED_BYTES, LOCKED_BYTES),
        (Resource::RLIMIT_MSGQUEUE, MESSAGE_QUEUE_BYTES, MESSAGE_QUEUE_BYTES),
        (Resource::RLIMIT_NICE, 0, 0),
        (Resource::RLIMIT_NOFILE, open_files, open_files),
        (Resource::RLIMIT_RSS, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_RTPRIO, 0, 0),
        (Resource::RLIMIT_RTTIME, RLIM_INFINITY, RLIM_INFINITY),
        (Resource::RLIMIT_SIGPENDING, PENDING_SIGNALS, PENDING_SIGNALS),
        (Resource::RLIMIT_STACK, STACK_BYTES, RLIM_INFINITY),
        // Each action gets its own number. What is raised here can be lowered there.
        (Resource::RLIMIT_NPROC, RLIM_INFINITY, RLIM_INFINITY),
    ];
    let mut kept = Vec::new();
    for (resource, soft, hard) in limits {
        let lowered =
            set_limit(resource, soft, hard).context("setrlimit", format_args!("{resource:?}"))?;
        // How many processes a user may have is the machine's to say.
        if let Some(lowered) = lowered.filter(|_| resource != Resource::RLIMIT_NPROC) {
            kept.push(format!(
                "{resource:?}: the hard limit of whoever started this server is {lowered}, and its actions \
                 have that instead of {}",
                if soft == RLIM_INFINITY { "none".to_owned() } else { soft.to_string() }
            ));
        }
    }
    Ok(kept)
}

/// Sets both limits of `resource`. `Some`: the lower value that `soft` got because of the hard
/// limit, which only root can raise.
fn set_limit(resource: Resource, soft: u64, hard: u64) -> nix::Result<Option<u64>> {
    if setrlimit(resource, soft, hard).is_ok() {
        return Ok(None);
    }
    let (_, own) = getrlimit(resource)?;
    setrlimit(resource, soft.min(own), hard.min(own))?;
    Ok((own < soft).then_some(own))
}
