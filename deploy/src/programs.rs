//! Programs that the operator names, and that are asked something: a document goes to their standard input, what they
//! print is the answer. They run as the server's user, without what is in its environment, and no longer than
//! they may.

use std::time::Duration;

use kiln_net::process::{self, Keep, ProcessError};

use crate::toml::{Field, Fields, TableError};

/// Arguments of a program.
const MAX_ARGUMENTS: usize = 100;
/// Bytes that a program's answer may have.
pub const MAX_ANSWER: usize = 8 << 20;
/// Characters of what a failed program said that are repeated.
const MAX_SAID: usize = 1_000;
const TIMEOUT: u64 = 30;
const MAX_TIMEOUT: u64 = 600;

/// A program with its arguments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Program {
    argv: Vec<String>,
    timeout: Duration,
}

impl Program {
    /// `None`: no program is named.
    pub fn new(argv: Vec<String>, timeout: Duration) -> Option<Self> {
        let named = argv.first().is_some_and(|program| !program.is_empty());
        // Both would end an argument before its end.
        let whole = argv.iter().all(|argument| !argument.contains('\0'));
        (named && whole).then_some(Self { argv, timeout })
    }

    /// Runs the program with this input, and answers with what it printed; `Err` where it did not end well.
    pub async fn ask(&self, input: &[u8]) -> Result<Vec<u8>, ProcessError> {
        let command = process::bare(&self.argv, &[]);
        let ran = process::run(command, Some(input), self.timeout, Keep::All(MAX_ANSWER)).await?;
        match ran.status.success() {
            true => Ok(ran.stdout),
            false => {
                // Those that check a configuration say what is wrong with it to either of them.
                let said = [ran.stderr, ran.stdout].concat();
                let said = process::words(&said, MAX_SAID).replace('\n', " ");
                let program = self.argv.first().cloned().unwrap_or_default();
                Err(ProcessError::Failed { program, status: ran.status, said })
            }
        }
    }
}

/// The program of a key, as a list of texts; `timeout` of the same table is its limit.
pub fn program(field: &Field<'_>, table: &Fields<'_>) -> Result<Program, TableError> {
    let timeout = timeout(table)?;
    let argv = field.texts(MAX_ARGUMENTS)?;
    let wrong = "expected a program with its arguments, as [\"/usr/bin/program\", \"argument\"]";
    Program::new(argv, timeout).ok_or_else(|| field.error(wrong))
}

/// `timeout` in seconds (30).
pub fn timeout(table: &Fields<'_>) -> Result<Duration, TableError> {
    let seconds = table.get("timeout_s").map(|field| field.number(1..=MAX_TIMEOUT)).transpose()?;
    Ok(Duration::from_secs(seconds.unwrap_or(TIMEOUT)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, timeout: u64) -> Program {
        let argv = ["sh", "-c", script].map(str::to_owned).to_vec();
        Program::new(argv, Duration::from_millis(timeout)).unwrap()
    }

    #[tokio::test]
    async fn what_a_program_prints_is_its_answer() {
        assert_eq!(shell("cat; echo $KILN_TOKEN$USER", 30_000).ask(b"in").await.unwrap(), b"in\n");
        let error = shell("echo why >&2; exit 3", 30_000).ask(b"").await.unwrap_err();
        assert!(matches!(&error, ProcessError::Failed { said, .. } if said == "why"), "{error}");
    }

    #[tokio::test]
    async fn a_program_ends_in_time_with_what_it_started() {
        let start = std::time::Instant::now();
        let error = shell("sleep 600 & sleep 600", 100).ask(b"").await.unwrap_err();
        assert!(matches!(error, ProcessError::Slow { .. }), "{error}");
        let loud = shell("yes", 30_000).ask(b"").await.unwrap_err();
        assert!(matches!(loud, ProcessError::Loud { .. }), "{loud}");
        assert!(start.elapsed() < Duration::from_secs(20));
    }

    #[test]
    fn no_program_is_none() {
        for bad in [vec![], vec![String::new()], vec!["a\0b".to_owned()]] {
            assert_eq!(Program::new(bad, Duration::from_secs(1)), None);
        }
    }
}
