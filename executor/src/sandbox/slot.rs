//! The server's side of a slot: runs one action after the other through its zygote.

use std::os::fd::OwnedFd;
use std::time::Duration;

use bytes::Bytes;
use tokio::net::unix::pipe;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use self::connection::Connection;
use super::cgroup;
use super::pump::Pump;
use super::wire::{Reply, Report, Request, Status, ZygoteConfig};
use super::{
    Capabilities, CommandSpec, Ending, Finished, OutputStream, SandboxError, SlotConfig, Usage,
};

mod connection;
mod tool;

pub use tool::{Tool, ToolEvent};

/// How long the zygote may take to kill an action and report, once SIGKILL was asked for: large
/// process trees and full scratch file systems take their time.
const KILL_PATIENCE: Duration = Duration::from_secs(30);
/// Timeouts beyond this are no timeouts: it keeps sums with the clock from overflowing.
pub const LONGEST_TIMEOUT: Duration = Duration::from_secs(365 * 24 * 3600);

/// Runs one action at a time. Dropping it kills the zygote and with it a running action.
#[derive(Debug)]
pub struct Slot {
    config: SlotConfig,
    cgroups: cgroup::Owned,
    connection: Option<Connection>,
    capabilities: Capabilities,
}

impl Slot {
    pub async fn start(config: SlotConfig) -> Result<Self, SandboxError> {
        std::fs::create_dir_all(&config.scratch_dir).map_err(|source| SandboxError::Path {
            action: "create the scratch directory",
            path: config.scratch_dir.clone(),
            source,
        })?;
        let cgroups = cgroup::Owned::create(&config.name);
        let mut slot =
            Self { config, cgroups, connection: None, capabilities: Capabilities::default() };
        let connection = slot.connect().await?;
        slot.connection = Some(connection);
        Ok(slot)
    }

    /// The bounds that this slot enforces on its actions.
    pub fn capabilities(&self) -> &Capabilities {
        &self.capabilities
    }

    /// Waits until an action could begin at once: what an earlier one left is gone by then. Who cancels does not wait for
    /// that: [`SandboxError::Cancelled`].
    pub async fn ready(&mut self, cancel: &CancellationToken) -> Result<(), SandboxError> {
        let connection = self.take_usable(cancel).await?;
        self.connection = Some(connection);
        Ok(())
    }

    /// Runs `spec` to its end, or to the end that its limits or `cancel` set. Chunks of its output go to
    /// `output` as they come; a full channel makes the action wait. All chunks have been sent on return.
    ///
    /// An action that fails is `Ok`: see [`Ending`]. After an error the slot restarts its zygote. One that is cancelled
    /// before it begins is [`SandboxError::Cancelled`].
    pub async fn run(
        &mut self,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, SandboxError> {
        let mut connection = self.take_usable(&cancel).await?;
        let result = self.run_on(&mut connection, spec, output, cancel).await;
        match &result {
            Ok(_) | Err(SandboxError::CommandTooLarge { .. } | SandboxError::Prepare(_)) => {
                self.connection = Some(connection);
            }
            Err(_) => connection.close().await,
        }
        result
    }

    /// Taken out while in use: whatever interrupts what is done with it leaves no half-used connection.
    async fn take_usable(
        &mut self,
        cancel: &CancellationToken,
    ) -> Result<Connection, SandboxError> {
        match self.connection.take() {
            Some(connection) => self.usable(connection, cancel).await,
            None => self.connect().await,
        }
    }

    /// The connection once its zygote can begin an action at once, or another one where it cannot.
    /// Who cancels does not wait for that.
    async fn usable(
        &mut self,
        mut connection: Connection,
        cancel: &CancellationToken,
    ) -> Result<Connection, SandboxError> {
        let tidied = tokio::select! {
            biased;
            () = cancel.cancelled() => {
                self.connection = Some(connection);
                return Err(SandboxError::Cancelled);
            }
            tidied = connection.tidied() => tidied,
        };
        if tidied.is_ok() && connection.is_alive() {
            return Ok(connection);
        }
        if let Err(error) = tidied {
            tracing::warn!(error = &error as &dyn std::error::Error, "a slot begins anew");
        }
        connection.close().await;
        self.connect().await
    }

    /// Ends the zygote and removes what the slot made on this machine.
    pub async fn stop(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
    }

    async fn connect(&mut self) -> Result<Connection, SandboxError> {
        let config = ZygoteConfig {
            scratch_dir: self.config.scratch_dir.clone(),
            user_namespace: self.config.user_namespace,
            outer_id: self.config.outer_id,
            input_dirs: self.config.input_dirs.clone(),
            image_dirs: self.config.image_dirs.clone(),
            hidden: self.config.hidden.clone(),
            upper: self.config.upper,
            open_files: self.config.open_files,
            cgroups: self.cgroups.set.clone(),
        };
        let mut connection = Connection::start(&self.config.zygote_command)?;
        connection.send(&Request::Configure(config), Vec::new()).await?;
        match connection.receive().await? {
            (Reply::Ready { user_namespace, mut not_enforced }, _) => {
                let (lacking, sentences): (Vec<_>, Vec<_>) =
                    self.cgroups.missing.iter().cloned().unzip();
                not_enforced.extend(sentences);
                self.capabilities = Capabilities { user_namespace, not_enforced, lacking };
                Ok(connection)
            }
            (Reply::Failed(message), _) => Err(SandboxError::Setup(message)),
            _ => Err(SandboxError::Malformed("a report came before any action")),
        }
    }

    async fn run_on(
        &self,
        connection: &mut Connection,
        spec: &CommandSpec,
        output: mpsc::Sender<(OutputStream, Bytes)>,
        cancel: CancellationToken,
    ) -> Result<Finished, SandboxError> {
        let (stdout, stdout_end) = output_pipe()?;
        let (stderr, stderr_end) = output_pipe()?;
        connection.send(&Request::Run(spec), vec![stdout_end, stderr_end]).await?;

        let mut pump = Pump::new(stdout, stderr, output, spec.limits.output_bytes);
        let mut stop = Stop::new(spec.timeout, self.config.grace);
        let (reply, mut fds) = loop {
            tokio::select! {
                biased;
                reply = connection.receive() => break reply?,
                () = cancel.cancelled(), if stop.running() => stop.ask(connection, Ending::Cancelled).await?,
                () = stop.due() => stop.escalate(connection).await?,
                () = pump.step() => if let Some(limit) = pump.exceeded() {
                    stop.kill(connection, Ending::killed(limit)).await?;
                },
            }
        };
        connection.ended_one();
        match reply {
            Reply::Done(report) => {
                pump.drain().await;
                let late = pump.exceeded().map(Ending::killed);
                let root =
                    fds.pop().ok_or(SandboxError::Malformed("a report came without its root"))?;
                Ok(finished(report, stop.into_ending().or(late), root))
            }
            Reply::Failed(message) => Err(SandboxError::Prepare(message)),
            _ => Err(SandboxError::Malformed("no action has such a reply")),
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        // The zygote has to be gone before its cgroups can be; after `stop` it is.
        if let Some(connection) = self.connection.take() {
            connection.close_now();
        }
        self.cgroups.remove();
    }
}

fn input_pipe() -> Result<(pipe::Sender, OwnedFd), SandboxError> {
    let (sender, receiver) = pipe::pipe().map_err(SandboxError::io("make a pipe for the input"))?;
    let end = receiver.into_blocking_fd().map_err(SandboxError::io("make a pipe for the input"))?;
    Ok((sender, end))
}

fn output_pipe() -> Result<(pipe::Receiver, OwnedFd), SandboxError> {
    let (sender, receiver) =
        pipe::pipe().map_err(SandboxError::io("make a pipe for the output"))?;
    let end = sender.into_blocking_fd().map_err(SandboxError::io("make a pipe for the output"))?;
    Ok((receiver, end))
}

fn by_itself(status: Status) -> Ending {
    match status {
        Status::Exited(code) => Ending::Exited(code),
        Status::Signalled(signal) => Ending::Signalled(signal),
    }
}

/// The ending of an action that nobody stopped.
fn ending(over_limit: Option<String>, status: Status) -> Ending {
    let by_itself = by_itself(status);
    match over_limit {
        Some(limit) => Ending::OverLimit { limit, exit_code: by_itself.exit_code() },
        None => by_itself,
    }
}

fn finished(report: Report, stopped: Option<Ending>, root: OwnedFd) -> Finished {
    let ending = match stopped {
        Some(Ending::Cancelled) => Ending::Cancelled,
        Some(stopped) if report.over_limit.is_none() => stopped,
        _ => ending(report.over_limit, report.status),
    };
    let usage = Usage {
        user: report.user,
        system: report.system,
        peak_memory_bytes: report.peak_memory_bytes,
    };
    Finished { ending, usage, not_changed: report.not_changed, root }
}

/// Why and how far a running action is being stopped.
struct Stop {
    ending: Option<Ending>,
    /// When the next step towards the end of the action is taken.
    at: Instant,
    killed: bool,
    grace: Duration,
}

impl Stop {
    fn new(timeout: Duration, grace: Duration) -> Self {
        Self {
            ending: None,
            at: Instant::now() + timeout.min(LONGEST_TIMEOUT),
            killed: false,
            grace,
        }
    }

    fn running(&self) -> bool {
        self.ending.is_none()
    }

    fn into_ending(self) -> Option<Ending> {
        self.ending
    }

    async fn due(&self) {
        tokio::time::sleep_until(self.at).await;
    }

    /// Asks for SIGTERM, and for SIGKILL when the grace is over.
    async fn ask(
        &mut self,
        connection: &mut Connection,
        ending: Ending,
    ) -> Result<(), SandboxError> {
        self.ending = Some(ending);
        self.at = Instant::now() + self.grace;
        connection.send(&Request::Terminate, Vec::new()).await
    }

    async fn kill(
        &mut self,
        connection: &mut Connection,
        ending: Ending,
    ) -> Result<(), SandboxError> {
        self.ending.get_or_insert(ending);
        if self.killed {
            return Ok(());
        }
        self.killed = true;
        self.at = Instant::now() + KILL_PATIENCE;
        connection.send(&Request::Kill, Vec::new()).await
    }

    async fn escalate(&mut self, connection: &mut Connection) -> Result<(), SandboxError> {
        match (&self.ending, self.killed) {
            (None, _) => self.ask(connection, Ending::TimedOut).await,
            (Some(ending), false) => {
                let ending = ending.clone();
                self.kill(connection, ending).await
            }
            (Some(_), true) => {
                let seconds = KILL_PATIENCE.as_secs();
                Err(SandboxError::ZygoteLost(format!(
                    "the action did not die within {seconds} s of SIGKILL"
                )))
            }
        }
    }
}
