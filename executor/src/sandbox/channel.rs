//! Frames and descriptors over a unix stream socket: sending, receiving, reassembling.
#![allow(unsafe_code)] // received descriptors have to be owned by someone

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

use super::SandboxError;
use super::wire::{LENGTH_BYTES, MAX_FRAME};

/// Most descriptors that come with one message.
const MAX_FDS: usize = 3;
const RECEIVE_CHUNK: usize = 64 << 10;

/// Sends as much of `bytes` as the socket takes; `fds` go with the first byte.
pub(super) fn send_some(socket: BorrowedFd<'_>, bytes: &[u8], fds: &[RawFd]) -> io::Result<usize> {
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    let flags = MsgFlags::MSG_NOSIGNAL;
    Ok(sendmsg::<()>(socket.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?)
}

/// A message's body and the descriptors that came with it.
#[derive(Debug)]
pub(super) struct Frame {
    pub body: Vec<u8>,
    pub fds: Vec<OwnedFd>,
}

/// Puts frames together from what a socket delivers. Keeps its state between calls, so a wait
/// for a message may be given up and taken up again.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    buffer: Vec<u8>,
    fds: Vec<OwnedFd>,
}

impl Inbox {
    /// Receives once (`recvmsg`). `Ok(0)`: the other end is gone.
    pub(super) fn receive_some(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let missing = self.missing().clamp(4 << 10, RECEIVE_CHUNK);
        let filled = self.buffer.len();
        self.buffer.resize(filled + missing, 0);
        let result = match receive(socket, &mut self.buffer[filled..], &mut self.fds) {
            // It went without having read all that it was told.
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(0),
            received => received,
        };
        self.buffer.truncate(filled + *result.as_ref().unwrap_or(&0));
        result
    }

    /// Takes the next whole frame's body with the descriptors that came so far.
    pub(super) fn next_frame(&mut self) -> Result<Option<Frame>, SandboxError> {
        let Some(length) = self.frame_length() else { return Ok(None) };
        if length > MAX_FRAME {
            return Err(SandboxError::Malformed("its length is beyond the limit"));
        }
        if self.buffer.len() < LENGTH_BYTES + length {
            return Ok(None);
        }
        let body = self.buffer[LENGTH_BYTES..LENGTH_BYTES + length].to_vec();
        self.buffer.drain(..LENGTH_BYTES + length);
        self.buffer.shrink_to(RECEIVE_CHUNK);
        Ok(Some(Frame { body, fds: std::mem::take(&mut self.fds) }))
    }

    fn frame_length(&self) -> Option<usize> {
        let prefix = self.buffer.first_chunk::<LENGTH_BYTES>()?;
        Some(u32::from_le_bytes(*prefix) as usize)
    }

    fn missing(&self) -> usize {
        let whole = LENGTH_BYTES + self.frame_length().unwrap_or(0).min(MAX_FRAME);
        whole.saturating_sub(self.buffer.len())
    }
}

fn receive(socket: BorrowedFd<'_>, into: &mut [u8], fds: &mut Vec<OwnedFd>) -> io::Result<usize> {
    let mut control = nix::cmsg_space!([RawFd; MAX_FDS]);
    let mut slices = [IoSliceMut::new(into)];
    let message = recvmsg::<()>(
        socket.as_raw_fd(),
        &mut slices,
        Some(&mut control),
        MsgFlags::MSG_CMSG_CLOEXEC,
    )?;
    for part in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = part {
            // SAFETY: the kernel has just put these descriptors into this process's table;
            // nothing else knows their numbers.
            fds.extend(received.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
        }
    }
    Ok(message.bytes)
}
