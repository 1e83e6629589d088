//! A key that never leaves its keeper: a program signs, such as the client of a key management service.

use std::time::Duration;

use kiln_net::process::{Keep, ProcessError, run_blocking, words};
use tokio::process::Command;

use super::keys::{PublicKey, SignError, Signer};
use crate::encoding::from_base64;

/// Bytes of what a program prints: a signature in base64.
const MAX_OUTPUT: usize = 4096;
/// Bytes of what it says of its failure that are repeated.
const MAX_SAID: usize = 1_000;

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    pub argv: Vec<String>,
    /// The time after which the program is killed, with all that it started.
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
    #[error(transparent)]
    Program(#[from] ProcessError),
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
    /// Runs the program with this process's environment: what it needs to reach the key is there.
    fn run(&self, input: &[u8]) -> Result<Vec<u8>, CommandError> {
        let (name, arguments) = self.argv.split_first().ok_or(CommandError::Nothing)?;
        let mut command = Command::new(name);
        command.args(arguments);
        let ran = run_blocking(command, Some(input), self.timeout, Keep::All(MAX_OUTPUT))?;
        if !ran.status.success() {
            let said = words(&ran.stderr, MAX_SAID);
            Err(ProcessError::Failed { program: name.clone(), status: ran.status, said })?;
        }
        Ok(ran.stdout)
    }
}
