//! SIGTERM and SIGINT, which ask a server or a worker to end.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use nix::libc;
use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::cli::error::CliError;

/// How soon after another a signal counts as the same one: some programs tell both a process and
/// its group, and people press a key long.
const SAME: Duration = Duration::from_millis(200);
/// These are heard so that they do not kill. What SIGXFSZ says, the write that caused it answers as well; the
/// others ask for what some other program does, or come from timers that nobody here has set.
const WITHOUT_MEANING: [libc::c_int; 8] = [
    libc::SIGXFSZ,
    libc::SIGUSR1,
    libc::SIGUSR2,
    libc::SIGALRM,
    libc::SIGVTALRM,
    libc::SIGPROF,
    libc::SIGIO,
    libc::SIGPWR,
];

/// Hears every signal from when it was made: one that comes between two calls of
/// [`Signals::next`] is answered by the second.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    _without_meaning: Vec<Signal>,
    /// The last one that asked for the end.
    heard: Option<Instant>,
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
            _without_meaning: WITHOUT_MEANING
                .into_iter()
                .map(|number| signal(SignalKind::from_raw(number)).map_err(failed))
                .collect::<Result<_, _>>()?,
            heard: None,
            has_terminal,
        })
    }

    /// Returns at the next signal that asks for the end: SIGTERM, SIGINT, and SIGHUP from a terminal. Elsewhere
    /// SIGHUP asks daemons to read their files again, which happens here by itself. What comes within [`SAME`]
    /// of another one is no signal of its own.
    pub async fn next(&mut self) {
        loop {
            self.any().await;
            let now = Instant::now();
            if self.heard.is_none_or(|last| now.duration_since(last) >= SAME) {
                self.heard = Some(now);
                return;
            }
        }
    }

    async fn any(&mut self) {
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
