//! The check of a tree: a command of the operator's, run in it.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::process::Command;

use super::repository::GitError;
use super::slots::Slot;
use crate::queue::{Commit, Outcome};
use kiln_net::counts::duration;
use kiln_net::process::{Keep, ProcessError, run, words};

/// What is kept of a check's output: its end.
const KEPT: usize = 64 << 10;
/// Variables that a check sees of this process; it is told about others by name.
const PASSED_ON: [&str; 16] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "XDG_CACHE_HOME",
    "http_proxy",
    "https_proxy",
    "no_proxy",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "NO_PROXY",
];
/// What is said in the log of a command that failed.
const SHOWN: usize = 2_000;
/// What the check may end with to say that it could not run (sysexits.h).
const TEMPFAIL: i32 = 75;
/// What the check may end with to say that nobody knows yet whether it failed by chance: as the gate of tests does.
const UNDECIDED: i32 = 6;
/// Most bytes that are read of the names of failed targets, of what a change affects, of what it costs, and most
/// characters of a name.
const MAX_FAILED: u64 = 256 << 10;
const MAX_IMPACT: u64 = 32 << 20;
const MAX_COST: u64 = 1 << 10;
const MAX_NAME: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// The command of the check, for `sh -c`.
    pub command: String,
    /// Seconds after which the check is ended, which counts as a failure.
    pub limit_s: u64,
    /// Further variables of the environment that the check sees.
    pub env: Vec<String>,
    /// Whether the check rules flakes out by itself, so that each failure counts that it does not call undecided.
    pub proven: bool,
}

#[derive(Debug)]
pub struct Checked {
    pub outcome: Outcome,
    /// The end of what the check printed.
    pub log: String,
}

impl Check {
    /// The command in a slot whose tree is `commit`.
    fn in_slot(&self, slot: &Slot, base: &Commit, commit: &Commit) -> Result<Command, GitError> {
        let mut command = Command::new("sh");
        // One stream, so that its parts stay in order.
        command
            .args(["-c", "exec 2>&1\neval \"$KILN_QUEUE_CHECK\""])
            .current_dir(&slot.tree)
            .env_clear();
        let own = PASSED_ON.iter().copied().chain(self.env.iter().map(String::as_str));
        for (name, value) in own.filter_map(|name| Some((name, std::env::var_os(name)?))) {
            command.env(name, value);
        }
        command.env("KILN_QUEUE_CHECK", &self.command);
        command.env("KILN_QUEUE_BASE", base.as_str()).env("KILN_QUEUE_COMMIT", commit.as_str());
        let stdin =
            slot.stdin().map_err(|source| GitError::Path { path: slot.tree.clone(), source })?;
        command.stdin(Stdio::from(stdin));
        Ok(command)
    }

    /// What `commit`, whose tree the slot is, affects beyond `base`, as the command names it in a file. Nothing where it
    /// cannot say that.
    pub async fn affected(
        &self,
        slot: &Slot,
        base: &Commit,
        commit: &Commit,
    ) -> Result<Option<BTreeSet<String>>, GitError> {
        let named = slot.tree.with_extension("impact");
        let command = self.in_slot(slot, base, commit)?;
        let file = ("KILN_QUEUE_IMPACT", named.as_path());
        if !self.writes(command, file, commit, "what a change affects").await? {
            return Ok(None);
        }
        // A part of it would acquit whom the rest names.
        Ok(lines(&named, MAX_IMPACT).filter(|(_, whole)| *whole).map(|(all, _)| all))
    }

    /// What the check of `commit`, whose tree the slot is, is expected to cost where `base` is known: a whole number that
    /// the command writes to a file, in a unit of its own. Nothing where it writes none.
    pub async fn cost(
        &self,
        slot: &Slot,
        base: &Commit,
        commit: &Commit,
    ) -> Result<Option<u64>, GitError> {
        let named = slot.tree.with_extension("cost");
        let command = self.in_slot(slot, base, commit)?;
        let file = ("KILN_QUEUE_COST", named.as_path());
        if !self.writes(command, file, commit, "what the check of a change costs").await? {
            return Ok(None);
        }
        let cost = lines(&named, MAX_COST).and_then(|(all, _)| number(&all));
        if cost.is_none() {
            tracing::warn!(
                commit = commit.short(),
                "the command says no number: it is not known what the check of a change costs"
            );
        }
        Ok(cost)
    }

    /// Has a command write to a file, which a variable names. Answers whether it ended well: if not, the log says that
    /// `what` is not known.
    async fn writes(
        &self,
        mut command: Command,
        (variable, file): (&str, &Path),
        commit: &Commit,
        what: &str,
    ) -> Result<bool, GitError> {
        std::fs::remove_file(file).ok();
        command.env(variable, file);
        match run(command, None, Duration::from_secs(self.limit_s), Keep::End(KEPT)).await {
            Ok(ran) if ran.status.success() => Ok(true),
            Ok(ran) => {
                let said = words(&ran.stdout, SHOWN);
                tracing::warn!(commit = commit.short(), said, "it is not known {what}");
                Ok(false)
            }
            Err(ProcessError::Slow { limit, .. }) => {
                tracing::warn!(commit = commit.short(), ?limit, "it takes too long to say {what}");
                Ok(false)
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Runs it in a slot whose tree is `commit`. `branches`: what is in it, for people. `first`: what failed where it is
    /// looked for the culprit.
    pub async fn run(
        &self,
        slot: &Slot,
        base: &Commit,
        commit: &Commit,
        branches: &str,
        first: &BTreeSet<String>,
    ) -> Result<Checked, GitError> {
        let failed = slot.tree.with_extension("failed");
        std::fs::remove_file(&failed).ok();
        let mut command = self.in_slot(slot, base, commit)?;
        command.env("KILN_QUEUE_BRANCHES", branches).env("KILN_QUEUE_FAILED", &failed);
        if let Some(file) = tell_first(&slot.tree.with_extension("first"), first) {
            command.env("KILN_QUEUE_FIRST", file);
        }
        let limit = Duration::from_secs(self.limit_s);
        let ran = match run(command, None, limit, Keep::End(KEPT)).await {
            Ok(ran) => ran,
            Err(ProcessError::Slow { limit, printed, .. }) => {
                let printed = words(&printed, KEPT);
                let limit = duration(limit);
                let log = format!("{printed}\nit took longer than {limit}, and was ended\n");
                let (targets, affecting) = (BTreeSet::new(), None);
                let outcome = Outcome::Failed { targets, proven: false, affecting };
                return Ok(Checked { outcome, log });
            }
            Err(error) => return Err(error.into()),
        };
        let log = words(&ran.stdout, KEPT);
        let outcome = match (ran.status.code(), ran.status.signal()) {
            (Some(0), _) => Outcome::Passed,
            (Some(TEMPFAIL), _) => Outcome::Unable(format!("the check ended with {TEMPFAIL}")),
            (None, signal) => {
                Outcome::Unable(format!("signal {} ended the check", signal.unwrap_or(0)))
            }
            _ => {
                let targets = targets(&failed);
                let proven = self.proven && ran.status.code() != Some(UNDECIDED);
                Outcome::Failed { targets, proven, affecting: None }
            }
        };
        Ok(Checked { outcome, log })
    }
}

/// Writes what is to be tested first, one a line. Nothing where there is no such thing or it cannot be written: then the
/// check tests all of it in whatever order.
fn tell_first<'a>(file: &'a Path, first: &BTreeSet<String>) -> Option<&'a Path> {
    // Whatever an earlier check has left there, be it a link, is not written to.
    std::fs::remove_file(file).ok();
    if first.is_empty() {
        return None;
    }
    let names: String = first.iter().flat_map(|it| [it.as_str(), "\n"]).collect();
    let written = OpenOptions::new().write(true).create_new(true).open(file);
    match written.and_then(|mut file| file.write_all(names.as_bytes())) {
        Ok(()) => Some(file),
        Err(error) => {
            tracing::warn!(%error, file = %file.display(), "a check is not told what to test first");
            None
        }
    }
}

/// What the check named as failed, one a line, as far as that is read.
fn targets(file: &Path) -> BTreeSet<String> {
    lines(file, MAX_FAILED).map(|(all, _)| all).unwrap_or_default()
}

/// The number that is the only line.
fn number(lines: &BTreeSet<String>) -> Option<u64> {
    let only = lines.first().filter(|_| lines.len() == 1)?;
    only.parse().ok()
}

/// The first bytes of a file, line by line, and whether that is all of it. Nothing where there is no such file: whatever
/// else a check has left there (a pipe) is not opened.
fn lines(file: &Path, most: u64) -> Option<(BTreeSet<String>, bool)> {
    let size = file.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?.len();
    let mut text = Vec::new();
    std::fs::File::open(file).ok()?.take(most).read_to_end(&mut text).ok()?;
    let text = String::from_utf8_lossy(&text);
    let lines = text.lines().map(str::trim).filter(|it| !it.is_empty());
    Some((lines.map(|it| it.chars().take(MAX_NAME).collect()).collect(), size <= most))
}
