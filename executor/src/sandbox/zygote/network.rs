//! A network namespace with nothing but a loopback interface, reused while actions leave it clean.
#![allow(unsafe_code)] // the ioctl that brings an interface up has no safe counterpart

use std::fs::File;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::FileExt;

use nix::errno::Errno;
use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};

use super::error::{Context, ZygoteError};
use super::process;

#[derive(Debug)]
pub(super) struct EmptyNetwork {
    namespace: OwnedFd,
    /// The file /proc/net/sockstat of the namespace, which counts its sockets.
    sockets: File,
    clean: Vec<String>,
}

impl EmptyNetwork {
    pub(super) fn create() -> Result<Self, ZygoteError> {
        let mut made = None;
        let mut stack = process::stack();
        // The child shares memory and descriptors: what it opens in its new namespace stays open here.
        let child = process::vfork(
            CloneFlags::CLONE_FILES | CloneFlags::CLONE_NEWNET,
            &mut stack,
            &mut || {
                made = Some(inside());
                0
            },
        )?;
        process::wait(child)?;
        let (namespace, sockets) = made.unwrap_or_else(|| {
            Err(ZygoteError::Refused("no process in the new network".to_owned()))
        })?;
        let mut network = Self { namespace, sockets, clean: Vec::new() };
        network.clean = network.state();
        Ok(network)
    }

    /// Moves the calling process into this network.
    pub(super) fn join(&self) -> nix::Result<()> {
        setns(self.namespace.as_fd(), CloneFlags::CLONE_NEWNET)
    }

    /// Whether the next action may have this network. False: sockets are left that outlived the
    /// processes which made them, as connections in TIME_WAIT, which keep their ports.
    pub(super) fn is_clean(&self) -> bool {
        self.state() == self.clean
    }

    fn state(&self) -> Vec<String> {
        let mut buffer = [0; 1024];
        let count = self.sockets.read_at(&mut buffer, 0).unwrap_or(0);
        leftovers(&String::from_utf8_lossy(&buffer[..count]))
    }
}

/// The counts that tell of left sockets: `sockets: used N`, `TCP: inuse N orphan N tw N ..`.
fn leftovers(sockstat: &str) -> Vec<String> {
    let mut counts = Vec::new();
    for line in sockstat.lines() {
        let mut words = line.split(' ');
        let protocol = words.next().unwrap_or("");
        while let (Some(name), Some(value)) = (words.next(), words.next()) {
            if ["used", "inuse", "orphan", "tw"].contains(&name) {
                counts.push(format!("{protocol}{name}{value}"));
            }
        }
    }
    counts
}

fn inside() -> Result<(OwnedFd, File), ZygoteError> {
    loopback_up().context("ioctl", "SIOCSIFFLAGS on lo")?;
    let open = |path: &str| File::open(path).context("open", path);
    Ok((OwnedFd::from(open("/proc/self/ns/net")?), open("/proc/self/net/sockstat")?))
}

fn loopback_up() -> nix::Result<()> {
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    // SAFETY: ifreq is plain numbers, for which all zeroes is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    request.ifr_name[0] = b'l'.cast_signed();
    request.ifr_name[1] = b'o'.cast_signed();
    request.ifr_ifru.ifru_flags =
        libc::c_short::try_from(libc::IFF_UP | libc::IFF_RUNNING).unwrap_or(0);
    // SAFETY: the request is a live ifreq with a terminated name, as SIOCSIFFLAGS reads it.
    Errno::result(unsafe {
        libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, &raw const request)
    })
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::leftovers;

    #[test]
    fn a_waiting_connection_is_a_leftover() {
        let clean =
            "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 7 mem 1\nUDP: inuse 0 mem 0\n";
        let busy_elsewhere = clean.replace("alloc 7", "alloc 9");
        let waiting = clean.replace("tw 0", "tw 1");
        assert_eq!(leftovers(clean), leftovers(&busy_elsewhere));
        assert_ne!(leftovers(clean), leftovers(&waiting));
    }
}
