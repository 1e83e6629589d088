//! Programs that are asked: their output, and what they say when they fail.

use std::ffi::OsString;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use thiserror::Error;
use tokio::process::Command;

/// Most bytes of a program's words that are shown.
const SHOWN: usize = 2000;

#[derive(Debug, Error)]
pub enum ProcessError {
    #[error("{program} cannot be started")]
    Start {
        program: String,
        #[source]
        source: std::io::Error,
    },
    #[error("{program} took longer than {limit:?}")]
    Slow { program: String, limit: Duration },
    #[error("{program} ended with {status}: {said}")]
    Failed { program: String, status: std::process::ExitStatus, said: String },
}

/// Runs a program in `directory` and returns what it prints to stdout. It is killed after `limit`.
pub async fn ask(
    program: &Path,
    arguments: &[OsString],
    directory: &Path,
    limit: Duration,
) -> Result<Vec<u8>, ProcessError> {
    let name = || program.display().to_string();
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(Stdio::null()).kill_on_drop(true);
    // Java finds no file names beyond ASCII without a locale.
    if std::env::var_os("LC_ALL").is_none() && std::env::var_os("LANG").is_none() {
        command.env("LC_ALL", "C.UTF-8");
    }
    let output = tokio::time::timeout(limit, command.output()).await;
    let output = output
        .map_err(|_| ProcessError::Slow { program: name(), limit })?
        .map_err(|source| ProcessError::Start { program: name(), source })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    Err(ProcessError::Failed {
        program: name(),
        status: output.status,
        said: end_of(&output.stderr),
    })
}

/// The last of what a program said, without the lines of its progress.
fn end_of(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let progress = |line: &&str| line.starts_with("Loading:") || line.trim().is_empty();
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !progress(line)).collect();
    let text = lines.join("\n");
    let from = text.len().saturating_sub(SHOWN);
    let from = (from..text.len()).find(|place| text.is_char_boundary(*place)).unwrap_or(from);
    text[from..].to_owned()
}

#[cfg(test)]
mod tests {
    use kiln_net::causes::chain;

    use super::*;

    async fn shell(script: &str, limit: Duration) -> Result<Vec<u8>, ProcessError> {
        ask(Path::new("sh"), &["-c".into(), script.into()], Path::new("/"), limit).await
    }

    #[tokio::test]
    async fn a_program_answers_fails_with_its_words_or_is_ended() {
        let minute = Duration::from_secs(60);
        assert_eq!(shell("echo yes", minute).await.unwrap(), b"yes\n");
        let error = shell("echo Loading: 1 >&2; echo broken package >&2; exit 7", minute).await;
        let error = error.unwrap_err().to_string();
        assert!(error.contains("exit status: 7: broken package"), "{error}");
        let error = shell("exec sleep 60", Duration::from_millis(10)).await.unwrap_err();
        assert!(matches!(error, ProcessError::Slow { .. }), "{error}");
        let none = ask(Path::new("/no/such"), &[], Path::new("/"), minute).await.unwrap_err();
        assert!(chain(&none).contains("No such file"), "{}", chain(&none));
    }

    #[test]
    fn of_long_words_the_end_is_shown() {
        let long = "µ".repeat(SHOWN) + "end";
        let shown = end_of(long.as_bytes());
        assert!(shown.ends_with("µend") && shown.len() <= SHOWN);
    }
}
