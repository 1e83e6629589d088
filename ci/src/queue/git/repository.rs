//! A bare clone that is the queue's alone.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use tokio::process::Command;

use crate::queue::{Branch, Commit, NameError};
use kiln_net::process::{Keep, ProcessError, ProcessOutput, run, run_brief, words};

/// How long one of git's commands may take; fetching and checking out a large repository are the longest.
pub(super) const LIMIT: Duration = Duration::from_secs(600);
/// How long the repository may take to say where branches are. Whoever asks has little else to do meanwhile, and asks again.
const ANSWERS: Duration = Duration::from_secs(60);
/// Commands that speak with another machine or write trees. They may take long, and end with this process however that ends.
const LONG: [&str; 6] = ["fetch", "ls-remote", "push", "checkout", "clean", "worktree"];
/// Most bytes that one of them may answer.
const MAX_OUTPUT: usize = 16 << 20;
/// Most bytes of git's words that are shown.
const SHOWN: usize = 1_000;
/// Where heads of the remote repository are kept, each under one flat name: an old `a` must not stand in the way of a
/// new `a/b`.
const KEPT: &str = "refs/kiln/heads/";
const OLDEST: (u32, u32) = (2, 40);
/// How variables of git begin that say how hosts are reached: by which ssh, and whose certificates are believed or shown.
const REACHES: [&str; 3] = ["GIT_SSH", "GIT_SSL_", "GIT_PROXY_SSL_"];

#[derive(Debug, thiserror::Error)]
pub enum GitError {
    #[error(transparent)]
    Process(#[from] ProcessError),
    #[error("git {what} failed: {said}")]
    Failed { what: String, code: Option<i32>, said: String },
    #[error("git answered {0:?}, which is not understood")]
    Odd(String),
    #[error(transparent)]
    Name(#[from] NameError),
    #[error("{path} cannot be used")]
    Path {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("branch {0} was pushed while it was fetched")]
    Overtaken(String),
    #[error("git {0} is too old: the merge queue needs 2.40 or newer")]
    Old(String),
    #[error("{0:?} is no address of a repository: it begins with `-`")]
    Address(String),
}

/// Heads of branches by their names.
pub type Heads = BTreeMap<Branch, Commit>;

/// Clones share the same directory.
#[derive(Clone, Debug)]
pub struct Repository {
    directory: PathBuf,
    /// A URL or a path.
    remote: String,
}

impl Repository {
    /// `directory` is made where it is not there yet.
    pub async fn open(directory: &Path, remote: &str) -> Result<Self, GitError> {
        if remote.is_empty() || remote.starts_with('-') || remote.contains('\0') {
            return Err(GitError::Address(remote.to_owned()));
        }
        let path = |path: &Path| {
            std::path::absolute(path)
                .map_err(|source| GitError::Path { path: path.to_owned(), source })
        };
        let local = Path::new(remote);
        let remote = match local.exists() {
            true => path(local)?.to_string_lossy().into_owned(),
            false => remote.to_owned(),
        };
        let it = Self { directory: path(directory)?, remote };
        it.check_version().await?;
        std::fs::create_dir_all(&it.directory).map_err(|source| it.path(directory, source))?;
        // One that was cut off while it was made is made again; there is nothing in it yet.
        let made = |name: &&str| it.directory.join(name).exists();
        if !["HEAD", "config", "objects", "refs"].iter().all(made) {
            it.unlock_all().await?;
            let arguments = ["init", "--bare", "--quiet", "--template=", "."];
            it.git_in(Some(&it.directory), &arguments).await?;
        }
        it.remove_parts();
        it.note_origin().await;
        Ok(it)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }

    pub(super) fn remote(&self) -> &str {
        &self.remote
    }

    pub(super) fn path(&self, path: &Path, source: std::io::Error) -> GitError {
        GitError::Path { path: path.to_owned(), source }
    }

    async fn check_version(&self) -> Result<(), GitError> {
        let mut command = Command::new("git");
        command.stdin(Stdio::null());
        let ran = finish(command, &["version"], LIMIT).await?;
        let text = words(&ran.stdout, SHOWN);
        let version = text.split_whitespace().nth(2).unwrap_or_default().to_owned();
        let mut parts = version.split('.').map(|it| it.parse::<u32>().unwrap_or(0));
        let known = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        if known < OLDEST { Err(GitError::Old(version)) } else { Ok(()) }
    }

    /// Git in this repository, or in `tree`. What it must not look at is taken away.
    pub(super) fn command(&self, tree: Option<&Path>) -> Result<Command, GitError> {
        let mut command = Command::new("git");
        let odd = |name: &OsString| is_taken_away(&name.to_string_lossy());
        for (name, _) in std::env::vars_os().filter(|(name, _)| odd(name)) {
            command.env_remove(name);
        }
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_CONFIG_NOSYSTEM", "1");
        command
            .env("GIT_TERMINAL_PROMPT", "0")
            .env("GIT_ASKPASS", "true")
            .env("SSH_ASKPASS", "true");
        command.env("GIT_ALLOW_PROTOCOL", "file:git:http:https:ssh").env("LC_ALL", "C.UTF-8");
        command.env("GIT_OPTIONAL_LOCKS", "0").env("GIT_NO_REPLACE_OBJECTS", "1");
        if std::env::var_os("GIT_SSH_COMMAND").is_none() && std::env::var_os("GIT_SSH").is_none() {
            command.env("GIT_SSH_COMMAND", "ssh -oBatchMode=yes");
        }
        for name in ["author", "committer"] {
            let name = name.to_uppercase();
            command.env(format!("GIT_{name}_NAME"), "Kiln merge queue");
            command.env(format!("GIT_{name}_EMAIL"), "queue@kiln.invalid");
        }
        for setting in [
            "core.hooksPath=/dev/null",
            "core.fsmonitor=false",
            "core.attributesFile=/dev/null",
            "core.excludesFile=/dev/null",
            "gc.auto=0",
            "maintenance.auto=false",
            "commit.gpgSign=false",
            "push.gpgSign=false",
            "submodule.recurse=false",
            "core.symlinks=true",
        ] {
            command.args(["-c", setting]);
        }
        match tree {
            Some(tree) => command.current_dir(tree),
            None => command.arg("--git-dir=.").current_dir(&self.directory),
        };
        command.stdin(Stdio::from(self.hold()?));
        Ok(command)
    }

    /// Runs a command of git, which has to succeed.
    pub(super) async fn git<const N: usize>(
        &self,
        arguments: [&str; N],
    ) -> Result<Vec<u8>, GitError> {
        self.git_in(None, &arguments).await
    }

    pub(super) async fn git_in(
        &self,
        tree: Option<&Path>,
        arguments: &[&str],
    ) -> Result<Vec<u8>, GitError> {
        self.git_within(tree, arguments, LIMIT).await
    }

    async fn git_within(
        &self,
        tree: Option<&Path>,
        arguments: &[&str],
        limit: Duration,
    ) -> Result<Vec<u8>, GitError> {
        let ran = finish(self.command(tree)?, arguments, limit).await?;
        succeeded(arguments.first().copied().unwrap_or_default(), ran)
    }

    /// The exit code, of a command that answers by it; and what it printed.
    pub(super) async fn ask(&self, arguments: &[&str]) -> Result<(i32, ProcessOutput), GitError> {
        let ran = finish(self.command(None)?, arguments, LIMIT).await?;
        Ok((ran.status.code().unwrap_or(-1), ran))
    }

    /// Where these branches are in the remote repository. Those that are not there are left out.
    pub async fn heads(&self, branches: &[Branch]) -> Result<Heads, GitError> {
        let mut arguments = vec!["ls-remote", "--refs", "--", &self.remote];
        let full: Vec<_> = branches.iter().map(Branch::full).collect();
        arguments.extend(full.iter().map(String::as_str));
        let output = self.git_within(None, &arguments, ANSWERS).await?;
        let wanted: BTreeMap<&str, &Branch> =
            full.iter().map(String::as_str).zip(branches).collect();
        let mut heads = Heads::new();
        for line in String::from_utf8_lossy(&output).lines() {
            let Some((commit, name)) = line.split_once('\t') else { continue };
            // Git takes names for patterns of their ends.
            let Some(branch) = wanted.get(name) else { continue };
            heads.insert((*branch).clone(), Commit::new(commit)?);
        }
        Ok(heads)
    }

    /// Brings the commits of branches here. An error where a branch has another head by now: it is to be asked again.
    pub async fn fetch(&self, heads: &Heads) -> Result<(), GitError> {
        self.fetch_within(heads, LIMIT).await
    }

    /// The same, and an error where it takes longer.
    pub async fn fetch_within(&self, heads: &Heads, limit: Duration) -> Result<(), GitError> {
        let missing = self.missing(heads).await?;
        if missing.is_empty() {
            return Ok(());
        }
        let changes: Vec<_> =
            missing.iter().map(|it| format!("+{}:{}", it.full(), kept(it))).collect();
        let mut arguments = vec!["fetch", "--quiet", "--no-tags", "--no-write-fetch-head"];
        arguments.extend(["--no-recurse-submodules", "--force", "--", &self.remote]);
        arguments.extend(changes.iter().map(String::as_str));
        if let Err(error) = self.git_within(None, &arguments, limit).await {
            self.remove_parts();
            // A git that was killed since may have left the lock of a head.
            if !self.unlock_heads().await? {
                return Err(error);
            }
            self.git_within(None, &arguments, limit).await?;
        }
        match self.missing(heads).await?.first() {
            Some(branch) => Err(GitError::Overtaken(branch.to_string())),
            None => Ok(()),
        }
    }

    /// Branches whose heads are not known to be here. Git writes the name of a head when all of it is here; a commit
    /// may be there without its files, where a fetch was cut off.
    pub async fn missing<'a>(&self, heads: &'a Heads) -> Result<Vec<&'a Branch>, GitError> {
        let text = self.kept(heads, &["--format=%(objectname) %(refname)"]).await?;
        let here: BTreeSet<&str> = text.lines().collect();
        let is_missing = |(branch, commit): &(&Branch, &Commit)| {
            !here.contains(format!("{commit} {}", kept(branch)).as_str())
        };
        Ok(heads.iter().filter(is_missing).map(|(branch, _)| branch).collect())
    }

    /// Of branches that were fetched those whose heads are in a commit.
    pub async fn merged_into(
        &self,
        commit: &Commit,
        heads: &Heads,
    ) -> Result<BTreeSet<Branch>, GitError> {
        let merged = format!("--merged={commit}");
        let text = self.kept(heads, &[&merged, "--format=%(refname)"]).await?;
        let names: BTreeSet<&str> = text.lines().collect();
        let is_merged = |it: &&Branch| names.contains(kept(it).as_str());
        Ok(heads.keys().filter(is_merged).cloned().collect())
    }

    /// What git says of these branches as they are kept here, a line each.
    async fn kept(&self, heads: &Heads, options: &[&str]) -> Result<String, GitError> {
        // Without names git would list all there are.
        if heads.is_empty() {
            return Ok(String::new());
        }
        let names: Vec<_> = heads.keys().map(kept).collect();
        let mut arguments = vec!["for-each-ref"];
        arguments.extend(options);
        arguments.extend(names.iter().map(String::as_str));
        let output = self.git_in(None, &arguments).await?;
        Ok(String::from_utf8_lossy(&output).into_owned())
    }

    /// Whether all of `one` is in `other`.
    pub async fn is_in(&self, one: &Commit, other: &Commit) -> Result<bool, GitError> {
        let arguments = ["merge-base", "--is-ancestor", one.as_str(), other.as_str()];
        match self.ask(&arguments).await? {
            (0, _) => Ok(true),
            (1, _) => Ok(false),
            (code, ran) => Err(failed("merge-base", Some(code), &ran)),
        }
    }
}

/// Whether git must not see a variable: all of its own but those by which hosts are reached.
fn is_taken_away(name: &str) -> bool {
    name.starts_with("GIT_") && !REACHES.iter().any(|it| name.starts_with(it))
}

/// Names of branches have no `@`.
fn kept(branch: &Branch) -> String {
    format!("{KEPT}{}", branch.as_str().replace('/', "@"))
}

/// Runs a command of git to its end, or to the end of its time.
pub(super) async fn finish(
    mut command: Command,
    arguments: &[&str],
    limit: Duration,
) -> Result<ProcessOutput, GitError> {
    command.args(arguments);
    let keep = Keep::All(MAX_OUTPUT);
    let ran = match arguments.first().is_some_and(|it| LONG.contains(it)) {
        true => run(command, None, limit, keep).await,
        false => run_brief(command, None, limit, keep).await,
    };
    Ok(ran?)
}

pub(super) fn succeeded(what: &str, ran: ProcessOutput) -> Result<Vec<u8>, GitError> {
    match ran.status.success() {
        true => Ok(ran.stdout),
        false => Err(failed(what, ran.status.code(), &ran)),
    }
}

pub(super) fn failed(what: &str, code: Option<i32>, ran: &ProcessOutput) -> GitError {
    GitError::Failed { what: what.to_owned(), code, said: words(&ran.stderr, SHOWN) }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;

    /// A host may be vouched for by an authority of the company alone.
    #[test]
    fn of_gits_variables_those_stay_by_which_hosts_are_reached() {
        for stays in ["PATH", "GIT_SSH_COMMAND", "GIT_SSL_CAINFO", "GIT_SSL_CERT", "https_proxy"] {
            assert!(!is_taken_away(stays), "{stays}");
        }
        for goes in ["GIT_DIR", "GIT_CONFIG_COUNT", "GIT_OBJECT_DIRECTORY", "GIT_QUARANTINE_PATH"] {
            assert!(is_taken_away(goes), "{goes}");
        }
    }

    #[tokio::test]
    async fn a_repository_that_does_not_say_where_branches_are_is_not_waited_for_long() {
        // A server that stands for a repository. It takes connections and never says a word.
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let remote = format!("git://{}/app.git", silent.local_addr().unwrap());
        let directory = tempfile::tempdir().unwrap();
        let repository = Repository::open(&directory.path().join("clone"), &remote).await.unwrap();
        // From now on time goes by wherever nothing else does.
        tokio::time::pause();
        let began = Instant::now();
        let asked = repository.heads(&[Branch::new("main").unwrap()]).await;
        let slow = |it: &GitError| matches!(it, GitError::Process(ProcessError::Slow { .. }));
        assert!(asked.as_ref().is_err_and(slow), "{asked:?}");
        assert!(began.elapsed() < 2 * ANSWERS, "{:?}", began.elapsed());
        assert!(2 * ANSWERS < LIMIT);
    }
}
