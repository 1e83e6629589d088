//! A process that stays for further requests, with the input root of one after the other.

use std::io;
use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use futures_util::FutureExt;
use kiln_net::clock::until;
use tokio::net::unix::pipe;
use tokio::time::Instant;

use super::connection::Connection;
use super::{KILL_PATIENCE, Slot, input_pipe, output_pipe};
use crate::sandbox::pump::read_now;
use crate::sandbox::wire::{Reply, Report, Request};
use crate::sandbox::{CommandSpec, Ending, SandboxError, SlotConfig, Withdrawal};

/// Most bytes that one read takes.
const CHUNK: usize = 64 << 10;
/// How long the zygote may take to change what a tool sees.
const PRESENT_PATIENCE: Duration = Duration::from_secs(30);

/// How long a tool that has closed its stdin or its stdout may take to end.
const CLOSED_PATIENCE: Duration = Duration::from_secs(1);

/// A tool with a zygote of its own, which is killed when this is dropped, and the tool with it.
#[derive(Debug)]
pub struct Tool {
    /// The slot, with the connection to its zygote.
    slot: Slot,
    stdin: pipe::Sender,
    stdout: Option<pipe::Receiver>,
    stderr: Option<pipe::Receiver>,
    ended: Option<Ending>,
    /// When the tool was found to have closed its stdin or its stdout, so that it cannot be asked
    /// or cannot answer; `None`: both are open.
    closed: Option<Instant>,
}

/// Something that a tool did while the worker listened to it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToolEvent {
    Stdout(Bytes),
    Stderr(Bytes),
    /// The tool has ended; all that it printed before was in earlier events.
    Ended(Ending),
}

impl Tool {
    /// Starts `spec` with the input root of its first request. The descriptor is that input root, as
    /// in [`Finished`](crate::sandbox::Finished): valid until it is [released](Self::release).
    pub async fn start(
        config: SlotConfig,
        spec: &CommandSpec,
    ) -> Result<(Self, OwnedFd), SandboxError> {
        let mut slot = Slot::start(config).await?;
        let (stdin, stdin_end) = input_pipe()?;
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        let fds = vec![stdin_end, stdout_end, stderr_end];
        connected(&mut slot)?.send(&Request::StartTool(spec), fds).await?;
        let (stdout, stderr) = (Some(stdout), Some(stderr));
        let mut tool = Self { slot, stdin, stdout, stderr, ended: None, closed: None };
        let root = tool.presented().await?;
        Ok((tool, root))
    }

    /// The input root of the next request, which is in `spec` with its layers and directories. The tool
    /// has answered the one before: then it has begun, and its first input root is all there.
    pub async fn present(&mut self, spec: &CommandSpec) -> Result<OwnedFd, SandboxError> {
        self.check_runs()?;
        connected(&mut self.slot)?.send(&Request::Present(spec), Vec::new()).await?;
        self.presented().await
    }

    /// A zygote whose tool has ended answers nothing.
    fn check_runs(&self) -> Result<(), SandboxError> {
        let ended = |ending: &Ending| Err(SandboxError::ToolEnded(format!("{ending:?}")));
        self.ended.as_ref().map_or(Ok(()), ended)
    }

    async fn presented(&mut self) -> Result<OwnedFd, SandboxError> {
        match self.reply().await? {
            (Reply::Presented, mut fds) => {
                fds.pop().ok_or(SandboxError::Malformed("an input root came without itself"))
            }
            _ => Err(SandboxError::Malformed("the input root was not presented")),
        }
    }

    /// Takes its input root away: no path of the tool leads there any more, and nothing it does changes what
    /// is there, unless it is [still writing](Withdrawal::still_writing).
    pub async fn withdraw(&mut self) -> Result<Withdrawal, SandboxError> {
        self.check_runs()?;
        connected(&mut self.slot)?.send(&Request::Withdraw, Vec::new()).await?;
        match self.reply().await? {
            (Reply::Withdrawn(left), _) => Ok(left),
            _ => Err(SandboxError::Malformed("the input root was not withdrawn")),
        }
    }

    /// Throws away what the withdrawn request wrote, and everything before it.
    pub fn release(&mut self) -> Result<(), SandboxError> {
        self.check_runs()?;
        connected(&mut self.slot)?.send_now(&Request::Release)
    }

    async fn reply(&mut self) -> Result<(Reply, Vec<OwnedFd>), SandboxError> {
        let reply = connected(&mut self.slot)?.receive();
        let reply = tokio::time::timeout(PRESENT_PATIENCE, reply).await;
        match reply.map_err(|_| SandboxError::ZygoteLost("it does not answer".to_owned()))?? {
            (Reply::Done(report), _) => {
                let ending = ending(report);
                let text = format!("{ending:?}");
                self.ended = Some(ending);
                Err(SandboxError::ToolEnded(text))
            }
            (Reply::Failed(message), _) => Err(self.given_up(message)),
            other => Ok(other),
        }
    }

    /// Writes of `input` what the tool takes, until something comes from it. May be given up and
    /// called again: nothing is lost.
    pub async fn step(&mut self, input: &mut Bytes) -> Result<ToolEvent, SandboxError> {
        loop {
            if let Some(ending) = &self.ended {
                let ending = ending.clone();
                return Ok(self.last_words().unwrap_or(ToolEvent::Ended(ending)));
            }
            let Self { slot, stdin, stdout, stderr, closed, .. } = self;
            let connection = connected(slot)?;
            // What a tool prints without end must not keep those waiting who would stop it.
            tokio::task::consume_budget().await;
            tokio::select! {
                // In turns: none of them keeps the others from being looked at.
                reply = connection.receive() => match reply?.0 {
                    Reply::Done(report) => self.ended = Some(ending(report)),
                    Reply::Failed(message) => return Err(self.given_up(message)),
                    _ => return Err(SandboxError::Malformed("a tool was not asked for this")),
                },
                chunk = read(stdout) => match chunk {
                    Some(chunk) => return Ok(ToolEvent::Stdout(chunk)),
                    None => *closed = closed.or_else(|| Some(Instant::now())),
                },
                taken = write(stdin, input), if !input.is_empty() && closed.is_none() => {
                    *closed = (!taken).then(Instant::now);
                }
                chunk = read(stderr) => if let Some(chunk) = chunk {
                    return Ok(ToolEvent::Stderr(chunk));
                },
                () = until(closed.map(|since| since + CLOSED_PATIENCE)) => {
                    let why = "it has closed its stdin or stdout";
                    return Err(SandboxError::ToolEnded(why.to_owned()));
                }
            }
        }
    }

    /// How many bytes were sent to the tool's stdin that it has not read yet.
    pub fn unread(&self) -> usize {
        waiting_in(&self.stdin)
    }

    /// Takes what the tool has printed by now on its stdout, or the beginning of it. Waits for
    /// nothing.
    pub fn printed(&mut self) -> Bytes {
        let mut all = BytesMut::new();
        while let Some(pipe) = self.stdout.as_ref().filter(|_| all.len() < CHUNK) {
            match read_now(pipe, &mut all) {
                Ok(1..) => {}
                Ok(0) => self.stdout = None,
                Err(_) => break,
            }
        }
        all.freeze()
    }

    /// Whether the tool runs and can be asked, as far as the zygote has said by now.
    pub fn is_alive(&mut self) -> bool {
        if self.ended.is_some() || self.closed.is_some() || self.stdout.is_none() {
            return false;
        }
        let Ok(connection) = connected(&mut self.slot) else { return false };
        match connection.receive().now_or_never() {
            None => return true,
            Some(Ok((Reply::Done(report), _))) => self.ended = Some(ending(report)),
            Some(Ok((Reply::Failed(message), _))) => drop(self.given_up(message)),
            // The zygote has ended, or says what nobody asked for: it is ended with the tool.
            Some(_) => {}
        }
        false
    }

    /// Takes note that the zygote has killed the tool, and makes an error of `why`.
    fn given_up(&mut self, why: String) -> SandboxError {
        self.ended = Some(Ending::Signalled(libc::SIGKILL));
        SandboxError::Prepare(why)
    }

    fn last_words(&self) -> Option<ToolEvent> {
        let rest = |pipe: &Option<pipe::Receiver>| {
            let mut chunk = BytesMut::new();
            let read = read_now(pipe.as_ref()?, &mut chunk);
            matches!(read, Ok(1..)).then(|| chunk.freeze())
        };
        rest(&self.stdout)
            .map(ToolEvent::Stdout)
            .or_else(|| rest(&self.stderr).map(ToolEvent::Stderr))
    }

    /// Kills the tool and all that it has started, and returns when they are gone. After an error
    /// they are being killed, and may be there for a while.
    pub async fn stop(mut self) -> Result<(), SandboxError> {
        let killed = if self.ended.is_none() { self.kill().await } else { Ok(()) };
        self.slot.stop().await;
        killed
    }

    async fn kill(&mut self) -> Result<(), SandboxError> {
        let connection = connected(&mut self.slot)?;
        connection.send(&Request::Kill, Vec::new()).await?;
        let gone = async {
            // A reply to what was asked before may come first.
            while !matches!(connection.receive().await?.0, Reply::Done(_) | Reply::Failed(_)) {}
            Ok(())
        };
        let late = |_| SandboxError::ZygoteLost("it does not end".to_owned());
        tokio::time::timeout(KILL_PATIENCE, gone).await.map_err(late)?
    }
}

fn connected(slot: &mut Slot) -> Result<&mut Connection, SandboxError> {
    slot.connection.as_mut().ok_or_else(|| SandboxError::ZygoteLost("it was ended".to_owned()))
}

fn ending(report: Report) -> Ending {
    super::ending(report.over_limit, report.status)
}

/// How many bytes in a pipe are unread; as many as there can be where the pipe cannot be asked.
fn waiting_in(pipe: &pipe::Sender) -> usize {
    let asked = rustix::io::ioctl_fionread(pipe);
    asked.ok().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
}

/// Reads once; `None` when nothing more can come, which it says once and then waits for ever.
async fn read(pipe: &mut Option<pipe::Receiver>) -> Option<Bytes> {
    while let Some(open) = pipe {
        let mut chunk = BytesMut::with_capacity(CHUNK);
        let read = match open.readable().await {
            Ok(()) => open.try_read_buf(&mut chunk),
            Err(error) => Err(error),
        };
        match read {
            Ok(1..) => return Some(chunk.freeze()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Ok(0) | Err(_) => {
                *pipe = None;
                return None;
            }
        }
    }
    std::future::pending().await
}

/// Writes the beginning of `input` to the pipe and takes it off. False: nobody reads the pipe any
/// more.
async fn write(pipe: &pipe::Sender, input: &mut Bytes) -> bool {
    let written = match pipe.writable().await {
        Ok(()) => pipe.try_write(input),
        Err(error) => Err(error),
    };
    match written {
        Ok(count) => input.advance(count),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
        Err(_) => return false,
    }
    true
}
