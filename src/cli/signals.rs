//! SIGTERM and SIGINT, which ask a server or a worker to end.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::error::CliError;

/// Hears every signal from when it was made: one that comes between two calls of
/// [`Signals::next`] is answered by the second.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Must be called within a Tokio runtime. Error: the system refuses a handler.
    pub fn listen() -> Result<Self, CliError> {
        let failed = |error| CliError::machine(format!("cannot wait for signals: {error}"));
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    /// Returns at the next signal of either kind.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
