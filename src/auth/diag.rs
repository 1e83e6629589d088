//! Asks the kernel by both ends of a connection within this machine which user's process holds it
//! (`sock_diag(7)`). The cost does not grow with the number of connections of the machine, as that
//! of reading their table does.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd as _;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

/// Bytes of the header of a netlink message, `struct nlmsghdr`.
const HEADER: usize = 16;
/// Bytes of the question, `struct inet_diag_req_v2`.
const QUESTION: usize = 56;
/// `SOCK_DIAG_BY_FAMILY`, the type of both the question and the answer.
const BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST`, the flag of a question.
const REQUEST: u16 = 1;
/// `NLMSG_ERROR`, the type of an answer that is an error.
const ERROR: u16 = 2;
/// `TCP_ESTABLISHED`: both ends are open. The kernel tells no user of others.
const ESTABLISHED: u8 = 1;
/// The buffer for an answer, in bytes: more than the kernel says of one connection.
const ANSWER: usize = 1024;

/// The user whose end is `client`. `None`: it has ended, or there is nobody but who listens there. Does not block.
///
/// # Errors
///
/// When the kernel cannot be asked so, or knows nothing: the same is said (`ENOENT`) by one that was built without this.
pub fn user(client: SocketAddr, here: SocketAddr) -> io::Result<Option<u32>> {
    let Some(question) = question(client, here) else { return Ok(None) };
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    send(kernel.as_raw_fd(), &question, MsgFlags::empty())?;
    let mut answer = [0; ANSWER];
    // It is there when the question has been taken.
    let length = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    said(answer.get(..length).unwrap_or_default(), &question)
}

/// The message that asks for a connection; `None`: its two ends are of different address families.
fn question(client: SocketAddr, here: SocketAddr) -> Option<Vec<u8>> {
    let (family, ends) = match (client.ip().to_canonical(), here.ip().to_canonical()) {
        (IpAddr::V4(client), IpAddr::V4(here)) => {
            let rest = [0; 12];
            let ends = [&client.octets()[..], &rest, &here.octets(), &rest].concat();
            (AddressFamily::Inet, ends)
        }
        (IpAddr::V6(client), IpAddr::V6(here)) => {
            (AddressFamily::Inet6, [client.octets(), here.octets()].concat())
        }
        _ => return None,
    };
    let length = u32::try_from(HEADER + QUESTION).ok()?;
    let mut out = Vec::with_capacity(HEADER + QUESTION);
    out.extend(length.to_ne_bytes());
    out.extend(BY_FAMILY.to_ne_bytes());
    out.extend(REQUEST.to_ne_bytes());
    // Number and sender: one question, and the kernel knows whose.
    out.extend([0; 8]);
    out.extend([
        u8::try_from(family as i32).ok()?,
        u8::try_from(nix::libc::IPPROTO_TCP).ok()?,
        0,
        0,
    ]);
    // In whatever state it is; then the socket by its ends, on any interface, without a cookie.
    out.extend(u32::MAX.to_ne_bytes());
    out.extend(client.port().to_be_bytes());
    out.extend(here.port().to_be_bytes());
    out.extend(ends);
    out.extend([0; 4]);
    out.extend([0xff; 8]);
    Some(out)
}

/// The user that an answer (`struct inet_diag_msg`) names for the connection that was asked for.
fn said(answer: &[u8], question: &[u8]) -> io::Result<Option<u32>> {
    let broken = || io::Error::from(io::ErrorKind::InvalidData);
    let word = |at: usize| -> Option<[u8; 4]> { answer.get(at..at + 4)?.try_into().ok() };
    let kind = answer.get(4..6).ok_or_else(broken)?;
    if kind == ERROR.to_ne_bytes() {
        let code = i32::from_ne_bytes(word(HEADER).ok_or_else(broken)?);
        return Err(Errno::from_raw(code.wrapping_neg()).into());
    }
    if kind != BY_FAMILY.to_ne_bytes() {
        return Err(broken());
    }
    let state = *answer.get(HEADER + 1).ok_or_else(broken)?;
    // Where there is no connection the kernel answers with who listens at that address.
    let ports = answer.get(HEADER + 4..HEADER + 8);
    let same = ports.is_some() && ports == question.get(HEADER + 8..HEADER + 12);
    let user = u32::from_ne_bytes(word(HEADER + 64).ok_or_else(broken)?);
    Ok((state == ESTABLISHED && same).then_some(user))
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    #[test]
    fn the_kernel_knows_the_user_of_a_connection_and_of_nothing_else() {
        let own = nix::unistd::geteuid().as_raw();
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let here = listener.local_addr().unwrap();
            let client = TcpStream::connect(here).unwrap();
            let (_served, peer) = listener.accept().unwrap();
            assert_eq!(user(peer, here).unwrap(), Some(own), "{address}");
            assert_eq!(user(here, peer).unwrap(), Some(own), "the other end");
            // Somebody listens at the first address, but that is no connection with the stranger.
            let stranger = SocketAddr::new(peer.ip(), 1);
            assert_eq!(user(here, stranger).unwrap(), None, "{address}");
            let unknown = user(stranger, here).unwrap_err();
            assert_eq!(unknown.kind(), io::ErrorKind::NotFound, "{address}");
            drop(client);
            assert_eq!(user(peer, here).unwrap(), None, "half a connection");
        }
        let (four, six) = ("127.0.0.1:80".parse().unwrap(), "[::1]:80".parse().unwrap());
        assert_eq!(user(four, six).unwrap(), None);
        let mapped: SocketAddr = "[::ffff:127.0.0.1]:80".parse().unwrap();
        assert_eq!(question(mapped, four), question(four, four));
    }

    #[test]
    fn an_answer_that_is_cut_short_is_an_error() {
        let question = question("127.0.0.1:1".parse().unwrap(), "127.0.0.1:2".parse().unwrap());
        let question = question.unwrap();
        let mut answer = vec![0; HEADER + 72];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[HEADER + 1] = ESTABLISHED;
        answer[HEADER + 4..HEADER + 8].copy_from_slice(&question[HEADER + 8..HEADER + 12]);
        answer[HEADER + 64..HEADER + 68].copy_from_slice(&7_u32.to_ne_bytes());
        assert_eq!(said(&answer, &question).unwrap(), Some(7));
        for length in 0..HEADER + 68 {
            assert!(said(&answer[..length], &question).is_err(), "{length}");
        }
        answer[HEADER + 4] ^= 1;
        assert_eq!(said(&answer, &question).unwrap(), None, "another connection");
        answer[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        answer[HEADER..HEADER + 4].copy_from_slice(&(-(Errno::ENOENT as i32)).to_ne_bytes());
        let unknown = said(&answer, &question).unwrap_err();
        assert_eq!(unknown.kind(), io::ErrorKind::NotFound);
    }
}
