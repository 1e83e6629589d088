//! A key that never leaves its keeper: a program signs, such as the client of a key management service.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::keys::{PublicKey, SignError, Signer};
use crate::encoding::from_base64;

/// Bytes of what a program prints: a signature in base64.
const MAX_OUTPUT: u64 = 4096;

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub argv: Vec<String>,
    /// It is killed after this time.
    pub timeout: Duration,
}

/// Runs a program with bytes for it to read, and returns what it printed.
pub trait RunProgram: Send + Sync {
    fn run(&self, input: &[u8]) -> Result<Vec<u8>, CommandError>;
}

/// Why a program did not sign.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    #[error("no program is named")]
    Nothing,
    #[error("{program:?} cannot be run")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{0:?} took more than {1:?} and was killed")]
    TimedOut(String, Duration),
    #[error("{program:?} failed: {status}")]
    Failed { program: String, status: String },
    #[error("{0:?} printed more than a signature")]
    TooMuch(String),
}

/// Signs by a program: it reads what is to be signed from standard input and prints the signature in base64
/// (ECDSA: in DER). Nothing that it prints is believed: the signature is verified before it is used.
pub struct SignByCommand<R> {
    program: R,
    public: PublicKey,
}

impl<R: RunProgram> SignByCommand<R> {
    /// `public`: the key that the program is said to sign with.
    pub fn new(program: R, public: PublicKey) -> Self {
        Self { program, public }
    }
}

impl<R: RunProgram> Signer for SignByCommand<R> {
    fn public_key(&self) -> &PublicKey {
        &self.public
    }

    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, SignError> {
        let printed = self.program.run(message).map_err(|it| SignError::Program(Box::new(it)))?;
        let text = std::str::from_utf8(&printed).map_err(|_| SignError::OtherKey)?;
        // Programs break base64 into lines.
        let text: String = text.split_ascii_whitespace().collect();
        let signature = from_base64(&text).ok_or(SignError::OtherKey)?;
        let fits = self.public.verify(message, &signature);
        fits.then_some(signature).ok_or(SignError::OtherKey)
    }
}

impl RunProgram for Program {
    fn run(&self, input: &[u8]) -> Result<Vec<u8>, CommandError> {
        let (name, arguments) = self.argv.split_first().ok_or(CommandError::Nothing)?;
        let failed = |source| CommandError::Start { program: name.clone(), source };
        let until = Instant::now() + self.timeout;
        let mut child = Command::new(name)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .map_err(failed)?;
        let printed = converse(&mut child, input.to_owned()).recv_timeout(self.timeout).ok();
        let too_much = printed.as_ref().is_some_and(|it| it.len() as u64 > MAX_OUTPUT);
        let waits = printed.is_some() && !too_much;
        let status = if waits { wait(&mut child, until).map_err(failed)? } else { None };
        let Some(status) = status else {
            // It may have ended by itself in the meantime.
            let _ = child.kill();
            child.wait().map_err(failed)?;
            return Err(match too_much {
                true => CommandError::TooMuch(name.clone()),
                false => CommandError::TimedOut(name.clone(), self.timeout),
            });
        };
        let error = || CommandError::Failed { program: name.clone(), status: status.to_string() };
        printed.filter(|_| status.success()).ok_or_else(error)
    }
}

/// A program that has printed everything ends soon; `None`: it did not.
fn wait(child: &mut Child, until: Instant) -> std::io::Result<Option<ExitStatus>> {
    const POLL: Duration = Duration::from_millis(2);
    loop {
        let status = child.try_wait()?;
        if status.is_some() || Instant::now() >= until {
            return Ok(status);
        }
        std::thread::park_timeout(POLL);
    }
}

/// Writes and reads in threads of their own, so that neither side waits for the other for ever. They end
/// with the program.
fn converse(child: &mut Child, input: Vec<u8>) -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    if let Some(mut stdin) = child.stdin.take() {
        // A program that reads nothing closes its end: whether it signed shows in what it prints.
        std::thread::spawn(move || stdin.write_all(&input));
    }
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            let mut printed = Vec::new();
            if stdout.take(MAX_OUTPUT + 1).read_to_end(&mut printed).is_ok() {
                // Nobody waits any more if it took too long.
                let _ = sender.send(printed);
            }
        });
    }
    receiver
}
