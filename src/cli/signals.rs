//! SIGTERM and SIGINT, which ask a server or a worker to end.

use std::io::IsTerminal;

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::error::CliError;

/// Hears every signal from when it was made: one that comes between two calls of
/// [`Signals::next`] is answered by the second.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    /// Heard so that it does not kill: what it says is what the write that caused it answers as well.
    _file_too_large: Signal,
    /// A person sits at the other end, whose leaving means that this ends too.
    has_terminal: bool,
}

impl Signals {
    /// Must be called within a Tokio runtime. Error: the system refuses a handler.
    pub fn listen() -> Result<Self, CliError> {
        // Before a handler takes the place of what whoever started this has set (nohup).
        let has_terminal = std::io::stdin().is_terminal() && !is_hangup_ignored();
        let failed = |error| CliError::machine(format!("cannot wait for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
            hangup: signal(SignalKind::hangup()).map_err(failed)?,
            _file_too_large: signal(SignalKind::from_raw(libc::SIGXFSZ)).map_err(failed)?,
            has_terminal,
        })
    }

    /// Returns at the next signal that asks for the end: SIGTERM, SIGINT, and SIGHUP from a terminal. Elsewhere
    /// SIGHUP asks daemons to read their files again, which happens here by itself.
    pub async fn next(&mut self) {
        loop {
            tokio::select! {
                _ = self.terminate.recv() => return,
                _ = self.interrupt.recv() => return,
                _ = self.hangup.recv() => {
                    if self.has_terminal {
                        return;
                    }
                    tracing::info!(
                        "SIGHUP: certificates and access files are read again when they change; \
                         other settings need a restart"
                    );
                }
            }
        }
    }
}

/// Whether this process was started with SIGHUP ignored; proc(5), `SigIgn`.
fn is_hangup_ignored() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << (libc::SIGHUP - 1)) != 0)
}
