//! Programs that are asked: their output, and what they say when they fail.

use std::ffi::{OsStr, OsString};
use std::fs::{File, canonicalize};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

pub use kiln_net::process::ProcessError;
use kiln_net::process::{Keep, run, words};
use tokio::process::Command;

/// Most bytes of a program's words that are shown.
const SHOWN: usize = 2000;
/// Most bytes of an answer: Bazel says a few hundred of each target.
const MAX_ANSWER: usize = 8 << 30;
/// Variables by which git tells its hooks which repository, work tree and index are meant.
const OF_A_HOOK: [&str; 5] =
    ["GIT_DIR", "GIT_COMMON_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_SHALLOW_FILE"];
/// Variables by which git tells a hook that may still refuse a push where the objects of that push are: in a quarantine, a
/// directory of their own beside the repository's objects.
const OF_A_PUSH: [&str; 3] =
    ["GIT_OBJECT_DIRECTORY", "GIT_ALTERNATE_OBJECT_DIRECTORIES", QUARANTINE];
const QUARANTINE: &str = "GIT_QUARANTINE_PATH";
/// What git and ssh say where they would have asked somebody at a terminal, and who has to answer instead.
const UNASKED: [(&str, &str); 3] = [
    ("terminal prompts disabled", PASSWORD),
    ("Permission denied (publickey", PASSWORD),
    (
        "Host key verification failed",
        "nobody is asked here whether to trust a host: its key has to be in ssh's known_hosts",
    ),
];
const PASSWORD: &str =
    "nobody is asked for a password here: an ssh agent or a credential helper of git has to answer";

/// Runs a program in `directory` and returns what it prints to stdout. It is ended after `limit`, and all that it has started
/// with it; what has left its process group (a build tool's server) stays.
///
/// Objects of a push that a hook may still refuse are read by git alone, and in the repository alone that they were pushed to.
/// Any other repository would look for its own objects among them, and find none.
pub async fn ask(
    program: &Path,
    arguments: &[OsString],
    directory: &Path,
    limit: Duration,
) -> Result<Vec<u8>, ProcessError> {
    let mut command = prepared(program, arguments, directory, Stdio::null());
    let quarantine = std::env::var_os(QUARANTINE).filter(|_| program == Path::new("git"));
    let is_pushed_to = match quarantine {
        Some(quarantine) => is_of(Path::new(&quarantine), directory, limit).await,
        None => false,
    };
    if !is_pushed_to {
        take_away(&mut command, &OF_A_PUSH);
    }
    said(program, command, limit).await
}

/// Runs a program and returns its stdout, with `held` as its stdin: a lock on that file lasts until
/// the program has ended, also where this process was killed.
///
/// Such a program writes, and therefore never sees objects of a push: what it wrote would name objects that are gone once the
/// push is refused, and what it stored would be gone with them.
pub async fn ask_holding(
    program: &Path,
    arguments: &[OsString],
    directory: &Path,
    limit: Duration,
    held: File,
) -> Result<Vec<u8>, ProcessError> {
    let mut command = prepared(program, arguments, directory, Stdio::from(held));
    take_away(&mut command, &OF_A_PUSH);
    said(program, command, limit).await
}

/// Whether a quarantine lies among the objects of the repository that `directory` is in.
async fn is_of(quarantine: &Path, directory: &Path, limit: Duration) -> bool {
    let question = ["rev-parse", "--git-path", "objects"].map(OsString::from);
    let mut command = prepared(Path::new("git"), &question, directory, Stdio::null());
    take_away(&mut command, &OF_A_PUSH);
    let Ok(objects) = said(Path::new("git"), command, limit).await else { return false };
    let objects = canonicalize(directory.join(OsStr::from_bytes(objects.trim_ascii_end())));
    let around = quarantine.parent().map(canonicalize);
    matches!((objects, around), (Ok(objects), Some(Ok(around))) if objects == around)
}

fn take_away(command: &mut Command, names: &[&str]) {
    for name in names {
        command.env_remove(name);
    }
}

fn prepared(program: &Path, arguments: &[OsString], directory: &Path, stdin: Stdio) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(directory).stdin(stdin);
    // Java finds no file names beyond ASCII without a locale.
    if std::env::var_os("LC_ALL").is_none() && std::env::var_os("LANG").is_none() {
        command.env("LC_ALL", "C.UTF-8");
    }
    // It has no terminal: whoever asked for a password there would wait until its end.
    command.env("GIT_TERMINAL_PROMPT", "0").env("SSH_ASKPASS_REQUIRE", "force");
    if std::env::var_os("SSH_ASKPASS").is_none() {
        command.env("SSH_ASKPASS", "false");
    }
    // Git may be ended at any moment: whoever only looks leaves no lock in a user's repository then.
    command.env("GIT_OPTIONAL_LOCKS", "0");
    // The repository is that of `directory`: in a work tree beside the user's, git would write the user's index and HEAD.
    take_away(&mut command, &OF_A_HOOK);
    command
}

async fn said(program: &Path, command: Command, limit: Duration) -> Result<Vec<u8>, ProcessError> {
    let output = run(command, None, limit, Keep::All(MAX_ANSWER)).await?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let (program, status) = (program.display().to_string(), output.status);
    let mut said = end_of(&output.stderr);
    if let Some((_, who)) = UNASKED.iter().find(|(words, _)| said.contains(words)) {
        said = format!("{said}; {who}");
    }
    Err(ProcessError::Failed { program, status, said })
}

/// The last of what a program said, without the lines of its progress.
fn end_of(stderr: &[u8]) -> String {
    let text = String::from_utf8_lossy(stderr);
    let progress = |line: &&str| line.starts_with("Loading:") || line.trim().is_empty();
    let lines: Vec<_> = text.lines().map(str::trim_end).filter(|line| !progress(line)).collect();
    words(lines.join("\n").as_bytes(), SHOWN)
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

    #[tokio::test]
    async fn where_somebody_would_have_been_asked_the_error_says_who_has_to_answer() {
        let minute = Duration::from_secs(60);
        let fails = |words: &str| format!("echo '{words}' >&2; exit 128");
        let wanted = "fatal: could not read Username for ...: terminal prompts disabled";
        let error = shell(&fails(wanted), minute).await.unwrap_err().to_string();
        assert!(error.contains(wanted) && error.contains("credential helper"), "{error}");
        let untrusted = shell(&fails("Host key verification failed."), minute).await;
        let error = untrusted.unwrap_err().to_string();
        assert!(error.contains("known_hosts") && !error.contains("password"), "{error}");
        let error = shell(&fails("fatal: no such branch"), minute).await.unwrap_err().to_string();
        assert!(!error.contains("credential helper"), "{error}");
    }

    /// As git names it to a hook of a repository.
    #[tokio::test]
    async fn what_is_pushed_is_read_in_its_own_repository_alone() {
        let minute = Duration::from_secs(60);
        let directory = tempfile::tempdir().unwrap();
        let at = |path: &str| directory.path().join(path);
        for name in ["own", "other"] {
            let begins = ["init", "--quiet", name].map(OsString::from);
            ask(Path::new("git"), &begins, directory.path(), minute).await.unwrap();
        }
        std::fs::create_dir(at("own/below")).unwrap();
        let quarantine = at("own/.git/./objects/tmp_objdir-incoming-1");
        std::fs::create_dir(&quarantine).unwrap();
        for (asked, is_its_own) in
            [("own", true), ("own/below", true), ("other", false), ("", false)]
        {
            assert_eq!(is_of(&quarantine, &at(asked), minute).await, is_its_own, "{asked}");
        }
    }

    #[tokio::test]
    async fn what_it_has_started_ends_with_it() {
        let mut limit = Duration::from_millis(50);
        let process = loop {
            let ended = shell("sleep 600 >/dev/null 2>&1 & echo $!; wait", limit).await;
            let Err(ProcessError::Slow { printed, .. }) = &ended else { panic!("{ended:?}") };
            // The process may not have printed anything yet.
            if !printed.is_empty() {
                break String::from_utf8(printed.clone()).unwrap();
            }
            limit *= 2;
        };
        let stat = format!("/proc/{}/stat", process.trim());
        let lives = || {
            let stat = std::fs::read_to_string(&stat).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let ends = async {
            while lives() {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), ends).await.expect("it is ended");
    }

    #[test]
    fn of_long_words_the_end_is_shown() {
        let long = "µ".repeat(SHOWN) + "end";
        let shown = end_of(long.as_bytes());
        assert!(shown.ends_with("µend") && shown.len() <= SHOWN);
    }
}
