//! The errors that a user reads when something fails: message, cause, hint; and the exit code.

use std::error::Error;
use std::net::TcpStream;
use std::process::ExitCode;
use std::time::Duration;

use kiln_cas::StoreError;
use kiln_cas::redis::RedisError;
use kiln_executor::worker::WorkerError;
use kiln_net::causes;
use kiln_net::grpc::unheard;
use kiln_net::urls;
use tonic::{Code, Status};

use super::say::say;
use crate::config::ConfigError;
use crate::serve::ServeError;

/// How a command that worked ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    Done,
    /// The command found nothing, or found a difference (exit code 1).
    Negative,
    /// The exit code of a gate's answer, or of another program that the command ran.
    Code(u8),
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Negative => Self::from(1),
            Exit::Code(code) => Self::from(code),
        }
    }
}

#[derive(Debug)]
pub struct CliError {
    pub code: u8,
    pub message: String,
    pub hint: Option<String>,
    /// Whether the server cannot answer now, so that the same command may succeed in a moment.
    pub passing: bool,
    /// Whether something that is there stands in the way, so that the same command may succeed once
    /// it has changed.
    pub conflict: bool,
}

impl CliError {
    /// Exit codes that others decide by.
    pub const NOT_FOUND: u8 = 1;
    pub const USAGE: u8 = 2;
    pub const MACHINE: u8 = 5;

    fn new(code: u8, message: String) -> Self {
        Self { code, message, hint: None, passing: false, conflict: false }
    }

    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(Self::NOT_FOUND, message.into())
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Self::USAGE, message.into())
    }

    pub fn unreachable(server: &str, cause: impl std::fmt::Display) -> Self {
        let hint = "start one with `kiln serve`, or name it with --server or KILN_SERVER";
        let hint = (!something_listens(server)).then(|| hint.to_owned());
        let message = format!("cannot reach the server at {server}: {cause}");
        Self { hint, passing: true, ..Self::new(3, message) }
    }

    pub fn answered(message: impl Into<String>) -> Self {
        Self::new(4, message.into())
    }

    /// The error for a server that answered that it cannot do this now.
    pub fn busy(message: impl Into<String>) -> Self {
        Self { passing: true, ..Self::answered(message) }
    }

    /// The error for a server that answered that something else stands in the way.
    pub fn conflict(message: impl Into<String>) -> Self {
        Self { conflict: true, ..Self::answered(message) }
    }

    pub fn machine(message: impl Into<String>) -> Self {
        Self::new(Self::MACHINE, message.into())
    }

    /// The error for a machine that cannot do what it was asked for, with its causes.
    pub fn of_machine(error: &(dyn Error + 'static)) -> Self {
        Self::machine(causes::chain(error))
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same error with this hint, where it is that something was not found and has no hint yet.
    #[must_use]
    pub fn or_hint(self, hint: &str) -> Self {
        match (&self.hint, self.code) {
            (None, 1) => self.hint(hint),
            _ => self,
        }
    }

    /// The error for a gRPC call to `server` that failed.
    pub fn from_status(server: &str, status: &Status) -> Self {
        match status.code() {
            Code::NotFound => Self::not_found(status.message()),
            Code::InvalidArgument => Self::usage(status.message()),
            Code::Unavailable if status.source().is_some() => {
                Self::unreachable(server, unheard(status))
            }
            Code::Unimplemented => Self::answered("this server does not know what was asked for")
                .hint("are server and command of the same version?"),
            Code::Unauthenticated => Self::answered(status.message())
                .hint("give a token (--token-file, KILN_TOKEN) or a client certificate"),
            _ => Self::answered(status.message()),
        }
    }

    /// Prints message and hint to stderr, and returns the exit code.
    pub fn report(&self) -> ExitCode {
        say(&format!("error: {}", self.message));
        if let Some(hint) = &self.hint {
            say(&format!("hint: {hint}"));
        }
        ExitCode::from(self.code)
    }
}

/// How long [`something_listens`] may take for each address.
const LISTENS_WITHIN: Duration = Duration::from_secs(1);

/// Whether a process takes connections at the server's address: then nobody has to start one.
fn something_listens(server: &str) -> bool {
    let Ok(url) = urls::parse(server) else { return false };
    let Ok(addresses) = url.socket_addrs(|| None) else { return false };
    addresses.iter().any(|address| TcpStream::connect_timeout(address, LISTENS_WITHIN).is_ok())
}

impl From<ConfigError> for CliError {
    fn from(error: ConfigError) -> Self {
        let hint = match error {
            ConfigError::Unknown { .. } => Some("`kiln config default` prints every key"),
            _ => None,
        };
        Self { hint: hint.map(str::to_owned), ..Self::new(2, causes::chain(&error)) }
    }
}

impl From<ServeError> for CliError {
    fn from(error: ServeError) -> Self {
        let hint = match &error {
            ServeError::Listen { source, .. } if source.kind() == std::io::ErrorKind::AddrInUse => {
                Some(
                    "another server has this port; choose one with --listen (port 0: any free one)",
                )
            }
            ServeError::Worker(error) => worker_hint(error),
            _ => None,
        };
        let code = match error {
            ServeError::Tls(_)
            | ServeError::Auth(_)
            | ServeError::Storage(StoreError::Config(_))
            | ServeError::Redis(RedisError::Config(_)) => 2,
            _ => 5,
        };
        Self { hint: hint.map(str::to_owned), ..Self::new(code, causes::chain(&error)) }
    }
}

impl From<WorkerError> for CliError {
    fn from(error: WorkerError) -> Self {
        let hint = worker_hint(&error).map(str::to_owned);
        Self { hint, ..Self::new(Self::MACHINE, causes::chain(&error)) }
    }
}

/// A hint for the user whose worker does not start; `None`: there is none for this error.
fn worker_hint(error: &WorkerError) -> Option<&'static str> {
    matches!(error, WorkerError::Sandbox(_)).then_some(
        "the sandbox needs user namespaces and mounts in them: as an ordinary user, \
         sysctl kernel.unprivileged_userns_clone=1; in a container, a seccomp profile that allows \
         them and an unmasked /proc (examples/fleet/README.md); or serve without workers: --workers 0",
    )
}
