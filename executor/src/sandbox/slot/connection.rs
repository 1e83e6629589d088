//! A zygote process and the socket to it.

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::process::Stdio;
use std::time::Duration;

use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use tokio::io::{AsyncWriteExt, Interest};
use tokio::net::UnixStream;
use tokio::process::{Child, Command};

use crate::sandbox::channel::{Inbox, send_some};
use crate::sandbox::wire::{self, Reply, Request};
use crate::sandbox::{CommandSpec, SandboxError};

/// How long the zygote may take to remove what an action left: millions of files, on a disk that others use as well.
const TIDY_PATIENCE: Duration = Duration::from_secs(600);

#[derive(Debug)]
pub(super) struct Connection {
    /// The zygote, which is killed when this is dropped; its death kills its action.
    child: Child,
    stream: UnixStream,
    inbox: Inbox,
    /// The zygote still removes what an action left, and will say when it has done so.
    tidies: bool,
}

impl Connection {
    /// Starts a zygote, which finds its end of the socket as its standard input.
    pub(super) fn start(command: &[OsString]) -> Result<Self, SandboxError> {
        let failed = |source| SandboxError::StartZygote { command: format!("{command:?}"), source };
        let (program, arguments) = command.split_first().ok_or_else(|| {
            failed(io::Error::new(io::ErrorKind::InvalidInput, "the command is empty"))
        })?;
        let (ours, theirs) = std::os::unix::net::UnixStream::pair().map_err(failed)?;
        ours.set_nonblocking(true).map_err(failed)?;
        let child = Command::new(program)
            .args(arguments)
            // Secrets of the server are none of its business.
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::null())
            .stderr(Stdio::inherit())
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        let stream = UnixStream::from_std(ours).map_err(failed)?;
        Ok(Self { child, stream, inbox: Inbox::default(), tidies: false })
    }

    /// Takes note that an action has ended.
    pub(super) fn ended_one(&mut self) {
        self.tidies = true;
    }

    /// Waits until what an earlier action left is gone: that is no part of the next one's time.
    pub(super) async fn tidied(&mut self) -> Result<(), SandboxError> {
        if !self.tidies {
            return Ok(());
        }
        match tokio::time::timeout(TIDY_PATIENCE, self.receive()).await {
            Ok(Ok((Reply::Tidied, _))) => {
                self.tidies = false;
                Ok(())
            }
            Ok(Ok(_)) => Err(SandboxError::Malformed("an action ended a second time")),
            Ok(Err(error)) => Err(error),
            Err(_) => {
                let seconds = TIDY_PATIENCE.as_secs();
                let message = format!("what an action left was not removed within {seconds} s");
                Err(SandboxError::ZygoteLost(message))
            }
        }
    }

    /// Whether the other end is still open. Call it when all is [tidied](Self::tidied).
    pub(super) fn is_alive(&self) -> bool {
        let mut byte = [0];
        // Between actions the zygote says nothing else: any readable state is its end.
        matches!(self.stream.try_read(&mut byte), Err(error) if error.kind() == io::ErrorKind::WouldBlock)
    }

    pub(super) async fn send(
        &mut self,
        request: &Request<&CommandSpec>,
        fds: Vec<OwnedFd>,
    ) -> Result<(), SandboxError> {
        let frame = wire::frame(request)?;
        let numbers: Vec<_> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let sent = self
            .stream
            .async_io(Interest::WRITABLE, || send_some(self.stream.as_fd(), &frame, &numbers))
            .await
            .map_err(lost)?;
        drop(fds);
        self.stream.write_all(&frame[sent..]).await.map_err(lost)
    }

    /// Sends a message without waiting: for a few bytes there is room while nothing else is being said.
    pub(super) fn send_now(&self, request: &Request<&CommandSpec>) -> Result<(), SandboxError> {
        let frame = wire::frame(request)?;
        let send = || send_some(self.stream.as_fd(), &frame, &[]);
        match self.stream.try_io(Interest::WRITABLE, send) {
            Ok(sent) if sent == frame.len() => Ok(()),
            Ok(_) => Err(SandboxError::ZygoteLost("it takes no more messages".to_owned())),
            Err(error) => Err(lost(error)),
        }
    }

    /// Waits for the zygote's next reply and its descriptors. The future may be dropped and this
    /// called again: nothing is lost.
    pub(super) async fn receive(&mut self) -> Result<(Reply, Vec<OwnedFd>), SandboxError> {
        loop {
            if let Some(frame) = self.inbox.next_frame()? {
                return Ok((wire::decode(&frame.body)?, frame.fds));
            }
            let (stream, inbox) = (&self.stream, &mut self.inbox);
            let count = stream
                .async_io(Interest::READABLE, || inbox.receive_some(stream.as_fd()))
                .await
                .map_err(lost)?;
            if count == 0 {
                return Err(self.ended().await);
            }
        }
    }

    /// Kills the zygote and waits until it is gone.
    pub(super) async fn close(mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::warn!(%error, "cannot end the sandbox process");
        }
    }

    /// Kills the zygote and waits for its death without a runtime: it is quick, and its cgroups
    /// cannot be removed before.
    pub(super) fn close_now(mut self) {
        let Some(pid) = self.child.id().and_then(|id| i32::try_from(id).ok()) else { return };
        if self.child.start_kill().is_ok() {
            // The runtime collects the status: here only the moment matters.
            let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT;
            let _ = waitid(Id::Pid(Pid::from_raw(pid)), flags);
        }
    }

    async fn ended(&mut self) -> SandboxError {
        match self.child.wait().await {
            Ok(status) => SandboxError::ZygoteLost(status.to_string()),
            Err(error) => SandboxError::ZygoteLost(error.to_string()),
        }
    }
}

fn lost(error: io::Error) -> SandboxError {
    SandboxError::ZygoteLost(error.to_string())
}
