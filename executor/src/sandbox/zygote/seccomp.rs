//! Which system calls an action cannot make, in every set of numbers that the kernel takes them in.
//!
//! Actions have no capability, and no way to a user namespace in which they would have some, so
//! mounts and namespaces are out of their reach anyway. The filter keeps them away from further
//! kernel code that has been a way out of sandboxes before, and from sockets that no network namespace
//! bounds. Installing one costs as much as starting a small program: it lies on the zygote, and actions
//! inherit it. What the zygote itself needs to mount is taken from each action by a second one, which is
//! short and finds a number in few steps: whenever it is installed, the kernel tries it with each number.
#![allow(unsafe_code)] // the seccomp call has no safe counterpart

mod numbers;
mod program;

use std::os::fd::{FromRawFd, OwnedFd};

use nix::errno::Errno;

use self::numbers::{Abi, abis};
use self::program::{Program, equal, greater_or_equal, has_bits};
use super::error::{Context, ZygoteError};

/// The offset of the call's number in `struct seccomp_data`; after it those of the architecture and
/// of the low half of an argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const fn argument(index: u32) -> u32 {
    let low = if cfg!(target_endian = "little") { 0 } else { 4 };
    16 + index * 8 + low
}

/// The first number that an x86-64 kernel takes for one of x32, which no distribution uses any
/// more.
const X32: u32 = 0x4000_0000;
const CLONE_NEWUSER: u32 = 0x1000_0000;
/// The values of the first argument of `socketcall` for calls that make sockets; their family lies
/// in memory, where no filter sees it.
const SOCKETCALL_SOCKET: u32 = 1;
const SOCKETCALL_SOCKETPAIR: u32 = 8;

/// Families of sockets that a network namespace bounds and programs need.
const FAMILIES: [i32; 3] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6];
/// The netlink protocols that actions may use: for addresses and routes (`getifaddrs`), and for the
/// own sockets (`ss`).
const NETLINK_PROTOCOLS: [i32; 2] = [libc::NETLINK_ROUTE, libc::NETLINK_SOCK_DIAG];

/// Most numbers that one is compared with in turn: of more it is first found which half it is in.
const COMPARED: usize = 3;

/// The kind of a system call that renames, by the arguments that it takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rename {
    /// The call takes two paths, as `rename` does.
    Plain,
    /// The call takes a directory before each path, as `renameat` does.
    At,
}

/// The kind of rename that a call is which the filter asks about.
pub(super) fn rename_of(architecture: u32, call: u32) -> Rename {
    let plain = |abi: &Abi| abi.architecture == architecture && abi.rename == Some(call);
    if abis().iter().any(plain) { Rename::Plain } else { Rename::At }
}

/// Installs the first filter for this process and all that it becomes and starts. The kernel asks
/// about renames on the descriptor from now on; `None`: it cannot, being older than 5.19, or a
/// filter around this process asks already.
pub(super) fn apply() -> Result<Option<OwnedFd>, ZygoteError> {
    let flags =
        libc::SECCOMP_FILTER_FLAG_NEW_LISTENER | libc::SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV;
    match install(true, flags) {
        Ok(fd) => {
            let fd =
                i32::try_from(fd).map_err(|_| Errno::EBADF).context("seccomp", "a listener")?;
            // SAFETY: the kernel has just made this descriptor for this process.
            Ok(Some(unsafe { OwnedFd::from_raw_fd(fd) }))
        }
        Err(error) if matches!(error.errno(), Some(Errno::EINVAL | Errno::EBUSY)) => {
            install(false, 0).map(|_| None)
        }
        Err(error) => Err(error),
    }
}

/// The second filter, which takes away what only the zygote needs; made once for all actions of a
/// slot.
#[derive(Debug)]
pub(super) struct OfAction(Vec<libc::sock_filter>);

impl OfAction {
    pub(super) fn new() -> Self {
        Self(no_mounts().into_filter())
    }

    /// Installs the filter for this process and all that it becomes and starts.
    pub(super) fn apply(&self) -> Result<(), ZygoteError> {
        set(&self.0, 0).map(drop)
    }
}

fn install(asks: bool, flags: libc::c_ulong) -> Result<libc::c_long, ZygoteError> {
    set(&whole(asks).into_filter(), flags)
}

fn set(filter: &[libc::sock_filter], flags: libc::c_ulong) -> Result<libc::c_long, ZygoteError> {
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())
            .map_err(|_| ZygoteError::Refused("the system call filter is too long".to_owned()))?,
        // The kernel only reads it.
        filter: filter.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads a live sock_fprog, whose length is that of the live array it points to.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program)
    };
    Errno::result(result).context("seccomp", "SECCOMP_SET_MODE_FILTER")
}

/// The first filter, for all architectures. `asks`: whether it asks the zygote about renames.
fn whole(asks: bool) -> Program {
    let mut program = Program::default();
    program.load(ARCHITECTURE);
    for abi in abis() {
        program.when(equal(abi.architecture), calls(&abi, asks));
    }
    program.answer(libc::SECCOMP_RET_KILL_PROCESS);
    program
}

/// The second filter. It lets calls of unknown architectures pass, which the first one sees to.
fn no_mounts() -> Program {
    let mut program = Program::default();
    program.load(ARCHITECTURE);
    for mut abi in abis() {
        abi.mounting.sort_unstable();
        let mut calls = Program::default();
        calls.load(NUMBER);
        calls.append(none_of(&abi.mounting));
        program.when(equal(abi.architecture), calls);
    }
    program.append(allow());
    program
}

/// Refuses the calls with these numbers, which are in order, and allows all others.
fn none_of(numbers: &[u32]) -> Program {
    let mut program = Program::default();
    let (low, high) = numbers.split_at(numbers.len() / 2);
    match high.first() {
        Some(middle) if numbers.len() > COMPARED => {
            program.when(greater_or_equal(*middle), none_of(high));
            program.append(none_of(low));
        }
        _ => {
            for number in numbers {
                program.when(equal(*number), refuse(libc::EPERM));
            }
            program.append(allow());
        }
    }
    program
}

fn calls(abi: &Abi, asks: bool) -> Program {
    let mut program = Program::default();
    program.load(NUMBER);
    if abi.has_x32 {
        program.when(greater_or_equal(X32), refuse(libc::ENOSYS));
    }
    for call in &abi.never {
        program.when(equal(*call), refuse(libc::EPERM));
    }
    // Said not to exist, so that callers take their other way.
    for call in &abi.absent {
        program.when(equal(*call), refuse(libc::ENOSYS));
    }
    for call in abi.namespaces {
        program.when(equal(call), no_user_namespace());
    }
    for call in abi.sockets {
        program.when(equal(call), known_families());
    }
    if let Some(call) = abi.socketcall {
        program.when(equal(call), no_unseen_family());
    }
    if asks {
        for call in abi.rename.into_iter().chain([abi.renameat]) {
            program.when(equal(call), ask());
        }
        program.when(equal(abi.renameat2), ask_without_flags());
    }
    program.answer(libc::SECCOMP_RET_ALLOW);
    program
}

fn ask() -> Program {
    let mut program = Program::default();
    program.answer(libc::SECCOMP_RET_USER_NOTIF);
    program
}

fn ask_without_flags() -> Program {
    let mut program = Program::default();
    program.load(argument(4));
    program.when(equal(0), ask());
    program.append(allow());
    program
}

fn refuse(errno: i32) -> Program {
    let mut program = Program::default();
    program.answer(libc::SECCOMP_RET_ERRNO | errno.cast_unsigned());
    program
}

fn allow() -> Program {
    let mut program = Program::default();
    program.answer(libc::SECCOMP_RET_ALLOW);
    program
}

fn no_user_namespace() -> Program {
    let mut program = Program::default();
    program.load(argument(0));
    program.when(has_bits(CLONE_NEWUSER), refuse(libc::EPERM));
    program.append(allow());
    program
}

fn known_families() -> Program {
    let mut program = Program::default();
    program.load(argument(0));
    for family in FAMILIES {
        program.when(equal(family.cast_unsigned()), allow());
    }
    let mut netlink = Program::default();
    netlink.load(argument(2));
    for protocol in NETLINK_PROTOCOLS {
        netlink.when(equal(protocol.cast_unsigned()), allow());
    }
    netlink.append(refuse(libc::EPROTONOSUPPORT));
    program.when(equal(libc::AF_NETLINK.cast_unsigned()), netlink);
    program.append(refuse(libc::EAFNOSUPPORT));
    program
}

/// The part for `socketcall`, which makes no sockets: programs have calls of their own for that,
/// whose families the filter can see.
fn no_unseen_family() -> Program {
    let mut program = Program::default();
    program.load(argument(0));
    for call in [SOCKETCALL_SOCKET, SOCKETCALL_SOCKETPAIR] {
        program.when(equal(call), refuse(libc::EAFNOSUPPORT));
    }
    program.append(allow());
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer of a zygote's filter that asks about renames to this call.
    fn answer<const N: usize>(architecture: u32, number: u32, arguments: [u64; N]) -> u32 {
        answer_of(&whole(true), architecture, number, arguments)
    }

    fn answer_of<const N: usize>(
        filter: &Program,
        architecture: u32,
        number: u32,
        arguments: [u64; N],
    ) -> u32 {
        filter.run(&data(architecture, number, arguments)).0
    }

    /// The bytes of the kernel's `struct seccomp_data` for this call.
    fn data<const N: usize>(architecture: u32, number: u32, arguments: [u64; N]) -> Vec<u8> {
        let mut data = Vec::new();
        data.extend(number.to_ne_bytes());
        data.extend(architecture.to_ne_bytes());
        data.extend(0_u64.to_ne_bytes());
        arguments.iter().for_each(|argument| data.extend(argument.to_ne_bytes()));
        data
    }

    fn errno(errno: i32) -> u32 {
        libc::SECCOMP_RET_ERRNO | errno.cast_unsigned()
    }

    #[test]
    fn every_abi_refuses_the_same() {
        for abi in abis() {
            let of = |number, first: u64, third: u64| {
                answer(abi.architecture, number, [first, 0, third])
            };
            for call in &abi.never {
                assert_eq!(of(*call, 0, 0), errno(libc::EPERM), "{call}");
            }
            for call in &abi.absent {
                assert_eq!(of(*call, 0, 0), errno(libc::ENOSYS), "{call}");
            }
            for call in abi.namespaces {
                assert_eq!(of(call, u64::from(CLONE_NEWUSER) | 17, 0), errno(libc::EPERM));
                assert_eq!(of(call, 17, 0), libc::SECCOMP_RET_ALLOW);
            }
            for call in abi.sockets {
                for family in FAMILIES {
                    assert_eq!(of(call, family as u64, 0), libc::SECCOMP_RET_ALLOW);
                }
                for family in [libc::AF_VSOCK, libc::AF_ALG, libc::AF_PACKET, 0, 99] {
                    assert_eq!(of(call, family as u64, 0), errno(libc::EAFNOSUPPORT), "{family}");
                }
                // The kernel looks at the low half alone.
                let hidden = libc::AF_VSOCK as u64 | 1 << 32;
                assert_eq!(of(call, hidden, 0), errno(libc::EAFNOSUPPORT));
                let netlink = libc::AF_NETLINK as u64;
                assert_eq!(of(call, netlink, 0), libc::SECCOMP_RET_ALLOW);
                let audit = libc::NETLINK_AUDIT as u64;
                assert_eq!(of(call, netlink, audit), errno(libc::EPROTONOSUPPORT));
            }
            if let Some(call) = abi.socketcall {
                for (what, expected) in [
                    (1, errno(libc::EAFNOSUPPORT)),
                    (8, errno(libc::EAFNOSUPPORT)),
                    (2, libc::SECCOMP_RET_ALLOW),
                ] {
                    assert_eq!(of(call, what, 0), expected, "{what}");
                }
            }
            for call in abi.rename.into_iter().chain([abi.renameat, abi.renameat2]) {
                let of = |flags| answer(abi.architecture, call, [0, 0, 0, 0, flags]);
                assert_eq!(of(0), libc::SECCOMP_RET_USER_NOTIF, "{call}");
            }
            let exchange = answer(abi.architecture, abi.renameat2, [0, 0, 0, 0, 2]);
            assert_eq!(exchange, libc::SECCOMP_RET_ALLOW);
            if abi.has_x32 {
                assert_eq!(of(X32 | 39, 0, 0), errno(libc::ENOSYS));
            }
        }
    }

    #[test]
    fn an_action_mounts_nothing_and_the_zygote_does() {
        let filter = no_mounts();
        for abi in abis() {
            for call in &abi.mounting {
                let of_action = answer_of(&filter, abi.architecture, *call, [0; 3]);
                assert_eq!(of_action, errno(libc::EPERM), "{call}");
                let of_zygote = answer(abi.architecture, *call, [0; 3]);
                assert_eq!(of_zygote, libc::SECCOMP_RET_ALLOW, "{call}");
            }
            for call in (0..1024).chain([X32, u32::MAX]) {
                let refused = abi.mounting.contains(&call);
                let expected = if refused { errno(libc::EPERM) } else { libc::SECCOMP_RET_ALLOW };
                let of_action = answer_of(&filter, abi.architecture, call, [0; 3]);
                assert_eq!(of_action, expected, "{call}");
            }
        }
        assert_eq!(answer_of(&filter, 0x1234, 0, [0; 3]), libc::SECCOMP_RET_ALLOW);
    }

    #[test]
    fn the_filter_of_an_action_is_quick_to_try_with_each_number() {
        let filter = no_mounts();
        for abi in abis() {
            for call in 0..1024 {
                let (_, steps) = filter.run(&data(abi.architecture, call, [0; 3]));
                assert!(steps <= 10, "{steps} for {call}");
            }
        }
    }

    #[test]
    fn what_speaks_another_abi_is_killed() {
        assert_eq!(answer(0x1234, 0, [0; 3]), libc::SECCOMP_RET_KILL_PROCESS);
    }
}
