//! The zygote's end of the socket to its slot. Blocking: the zygote has nothing else to do.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use super::error::{Context, ZygoteError};
use crate::sandbox::channel::{Inbox, send_some};
use crate::sandbox::wire::{self, Asked, Reply};

#[derive(Debug)]
pub(super) struct Socket {
    fd: OwnedFd,
    inbox: Inbox,
}

impl Socket {
    pub(super) fn new(fd: OwnedFd) -> Self {
        Self { fd, inbox: Inbox::default() }
    }

    pub(super) fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Waits for the next request and its descriptors; `None`: the server is gone.
    pub(super) fn receive(&mut self) -> Result<Option<(Asked, Vec<OwnedFd>)>, ZygoteError> {
        loop {
            if let Some(request) = self.next()? {
                return Ok(Some(request));
            }
            if self.receive_some()? == 0 {
                return Ok(None);
            }
        }
    }

    /// A request that has already come whole; `None`: there is none.
    pub(super) fn next(&mut self) -> Result<Option<(Asked, Vec<OwnedFd>)>, ZygoteError> {
        let malformed =
            |error: crate::sandbox::SandboxError| ZygoteError::Refused(error.to_string());
        let Some(frame) = self.inbox.next_frame().map_err(malformed)? else {
            return Ok(None);
        };
        Ok(Some((wire::decode(&frame.body).map_err(malformed)?, frame.fds)))
    }

    /// Waits for more bytes; zero when the server is gone.
    pub(super) fn receive_some(&mut self) -> Result<usize, ZygoteError> {
        self.inbox.receive_some(self.fd.as_fd()).context("recvmsg", "from the server")
    }

    pub(super) fn send(&self, reply: &Reply, fd: Option<OwnedFd>) -> Result<(), ZygoteError> {
        let frame = wire::frame(reply).map_err(|error| ZygoteError::Refused(error.to_string()))?;
        let numbers: Vec<_> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let mut sent =
            send_some(self.fd.as_fd(), &frame, &numbers).context("sendmsg", "to the server")?;
        while sent < frame.len() {
            sent += send_some(self.fd.as_fd(), &frame[sent..], &[])
                .context("sendmsg", "to the server")?;
        }
        Ok(())
    }
}
