//! `kiln queue run`.

use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueEnum, ValueHint};
use kiln_ci::queue::git::{Check, Method};
use kiln_ci::queue::serving::{Ledger, Parts, QueueError, Runner, Settings};
use kiln_ci::queue::{Branch, Mode, Options};
use tokio_util::sync::CancellationToken;

use super::remote::{self, Remote, Servers};
use super::state::{QueueDirectory, System, branch, told};
use crate::cli::error::{CliError, Exit};
use crate::cli::process::settings;
use crate::cli::signals::Signals;
use crate::cli::target::Target;
use crate::config::{log_options, parse_time};
use crate::telemetry;

/// How long the queue's work that goes on may take to end when the runner is told to end.
const ENDS: Duration = Duration::from_secs(5);

/// Run the queue of one target branch, until SIGTERM or SIGINT.
///
/// It may be killed at any moment: the next one goes on where this one was. With --server it is the runner of a queue
/// that the server keeps (several of a fleet may be named): one at a time, others stand by and take over within
/// seconds. Needs git 2.40 or newer; how hosts are
/// reached (ssh and its keys, .netrc, proxies) is git's own, all other configuration is left aside.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln queue run --state queue --repo git@git.example:app.git --check 'bazel test //...'
  kiln queue run --state queue --repo /srv/app.git --check ./ci.sh --workers 8 --latency
  kiln queue run --state queue --repo /srv/app.git --check 'kiln ci run -- bazel test //...' --flakes-ruled-out
  kiln queue run --state queue --repo /srv/app.git --check ./ci.sh \\
      --impact 'kiln impact --base \"$KILN_QUEUE_BASE\" --targets-to \"$KILN_QUEUE_IMPACT\"'
  kiln queue run --server https://kiln.example:8980 --token-file runner.token --queue app --state queue \\
      --repo git@git.example:app.git --check 'bazel test //...'

The check runs in a clean tree of the candidate commit, by sh -c. It sees KILN_QUEUE_BASE, KILN_QUEUE_COMMIT and
KILN_QUEUE_BRANCHES, and may write the names of what failed to the file KILN_QUEUE_FAILED, one a line. A run that looks
for the culprit finds them in the file KILN_QUEUE_FIRST, and may end where they fail again. Exit code 0 passes, 75 says
that it could not run, 6 that it failed for a reason that nobody has decided, any other fails. --impact runs likewise
for each change of a batch that failed, and writes what the change affects to the file KILN_QUEUE_IMPACT; with
--independent also for what passed before the target moved. --cost runs likewise for each change that waits, and writes
one whole number to the file KILN_QUEUE_COST.")]
pub struct Run {
    #[command(flatten)]
    state: QueueDirectory,

    /// The repository: a URL or a path
    #[arg(long = "repo", value_name = "URL", value_hint = ValueHint::Other)]
    remote: String,

    /// The branch that changes land on
    #[arg(long, value_name = "BRANCH", default_value = "main", value_parser = branch, value_hint = ValueHint::Other)]
    target: Branch,

    /// What has to succeed before a commit lands
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::Other)]
    check: String,

    /// A check that takes longer is ended, and has failed
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = ValueParser::from(parse_time))]
    check_timeout: Duration,

    /// A variable that checks see, beside PATH, HOME and the like
    #[arg(long = "env", value_name = "NAME", value_hint = ValueHint::Other)]
    env: Vec<String>,

    /// Says which targets a change affects: only those are suspects who affect what the check named as failed
    #[arg(long, value_name = "COMMAND", value_hint = ValueHint::Other)]
    impact: Option<String>,

    /// Says what the check of a change alone is expected to cost (seconds, tests: only ratios count). What costs much more
    /// than what waits beside it lets that go first, a few times
    #[arg(long, value_name = "COMMAND", conflicts_with_all = ["independent", "latency"], value_hint = ValueHint::Other)]
    cost: Option<String>,

    /// The check rules flakes out by itself: one failure is enough, unless it calls it undecided (exit code 6) or hangs
    #[arg(long)]
    flakes_ruled_out: bool,

    /// What passed counts on a target that has moved where --impact finds each target as it passed: changes that affect
    /// nothing in common do not wait for each other. The check must depend on these targets alone
    #[arg(long, requires = "impact", conflicts_with = "latency")]
    independent: bool,

    /// Checks at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=64))]
    workers: u16,

    /// Land each change as soon as can be, rather than with as few checks as can be
    #[arg(long)]
    latency: bool,

    /// How long a batch that is not full waits for more. Not with --independent or --latency: these wait for nobody
    #[arg(long, value_name = "TIME", default_value = "0s", conflicts_with_all = ["independent", "latency"], value_parser = ValueParser::from(parse_time))]
    patience: Duration,

    /// How a branch becomes commits of the target
    #[arg(long, value_enum, default_value_t = How::Merge)]
    method: How,

    /// A branch whose head takes longer to fetch is tried once more, and then held; others go on meanwhile
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = ValueParser::from(parse_time))]
    fetch_timeout: Duration,

    /// How often the repository is asked where its branches are
    #[arg(long, value_name = "TIME", default_value = "15s", value_parser = ValueParser::from(parse_time))]
    poll: Duration,

    /// End when nothing is left that could go on by itself
    #[arg(long)]
    until_idle: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum How {
    /// A merge commit for each
    Merge,
    /// One commit for each
    Squash,
    /// The commits of each, on top
    Rebase,
}

impl Run {
    /// `server`: the one that keeps the queue; `None`: it is kept here.
    pub async fn run(self, server: Option<Target>) -> Result<Exit, CliError> {
        telemetry::start(log_options(&settings(None, Vec::new())?)?);
        let mut signals = Signals::listen()?;
        let (name, directory) = (self.state.name()?, self.state.directory()?);
        std::fs::create_dir_all(directory)
            .map_err(|error| CliError::machine(format!("{}: {error}", directory.display())))?;
        let _lock = lock(directory, name.as_str())?;
        let stop = CancellationToken::new();
        let work = async {
            match &server {
                Some(target) => self.for_server(target, &stop).await,
                None => self.once(self.state.ledger()?, directory, &stop).await.map_err(told),
            }
        };
        tokio::pin!(work);
        tokio::select! {
            done = &mut work => return done.map(|()| Exit::Done),
            () = signals.next() => stop.cancel(),
        }
        work.await.map(|()| Exit::Done)
    }

    async fn once(
        &self,
        ledger: Arc<dyn Ledger>,
        directory: &Path,
        stop: &CancellationToken,
    ) -> Result<(), QueueError> {
        let directory = directory.join(&self.state.queue);
        let parts = Parts { ledger, clock: Arc::new(System), directory };
        let runs = Box::pin(async {
            let runner = Runner::begin(self.settings(), parts).await?;
            runner.run(stop.clone(), self.until_idle).await
        });
        // Git may wait for its host for minutes. All of it may be cut off.
        let late = async {
            stop.cancelled().await;
            tokio::time::sleep(ENDS).await;
        };
        tokio::select! {
            ended = runs => ended,
            () = late => Ok(()),
        }
    }

    /// Runs the queue of a server whenever nobody else does.
    async fn for_server(&self, target: &Target, stop: &CancellationToken) -> Result<(), CliError> {
        let servers = Arc::new(Servers::new(target)?);
        loop {
            let asked = remote::take(&self.state.name()?, &self.remote, &self.target, &self.check);
            let Some(ledger) = Remote::take(servers.clone(), asked, stop).await? else {
                return Ok(());
            };
            let ledger = Arc::new(ledger);
            match self.once(ledger.clone(), self.state.directory()?, stop).await {
                Err(QueueError::Lost(queue)) => {
                    tracing::warn!(
                        queue,
                        "another runner has taken the queue over: this one stands by"
                    );
                }
                ended => {
                    ledger.leave().await;
                    return match ended {
                        Err(QueueError::Stopped) => Ok(()),
                        ended => ended.map_err(told),
                    };
                }
            }
        }
    }

    fn settings(&self) -> Settings {
        let mode = if self.latency { Mode::Latency } else { Mode::Throughput };
        let asked = |command: &String| Check {
            command: command.clone(),
            limit_s: self.check_timeout.as_secs().max(1),
            env: self.env.clone(),
            proven: false,
        };
        Settings {
            lane: self.state.queue.clone(),
            remote: self.remote.clone(),
            target: self.target.clone(),
            method: match self.method {
                How::Merge => Method::Merge,
                How::Squash => Method::Squash,
                How::Rebase => Method::Rebase,
            },
            check: Check {
                command: self.check.clone(),
                limit_s: self.check_timeout.as_secs().max(1),
                env: self.env.clone(),
                proven: self.flakes_ruled_out,
            },
            impact: self.impact.as_ref().map(asked),
            cost: self.cost.as_ref().map(asked),
            options: Options {
                mode,
                workers: usize::from(self.workers),
                exact: self.flakes_ruled_out,
                patience_ms: u64::try_from(self.patience.as_millis()).unwrap_or(u64::MAX),
                independent: self.independent,
            },
            fetch_limit: self.fetch_timeout.max(Duration::from_secs(1)),
            poll: self.poll.max(Duration::from_millis(100)),
        }
    }
}

/// Locks the queue's file, so that only one process at a time runs a queue. The lock lasts as long
/// as the returned file is open.
fn lock(directory: &Path, name: &str) -> Result<File, CliError> {
    let path = directory.join(format!("{name}.running"));
    let failed = |error: std::io::Error| CliError::machine(format!("{}: {error}", path.display()));
    let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(failed)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::Error(error)) => Err(failed(error)),
        Err(TryLockError::WouldBlock) => {
            let message =
                format!("another process runs the queue {name} in {}", directory.display());
            Err(CliError::machine(message).hint("end that one, or name another queue with --queue"))
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::error::ErrorKind;
    use clap::{ArgMatches, Command};

    use super::*;

    fn parse(more: &[&str]) -> Result<ArgMatches, clap::Error> {
        let own = ["run", "--state", "queue", "--repo", "app.git", "--check", "true"];
        let arguments = own.into_iter().chain(more.iter().copied());
        Run::augment_args(Command::new("run")).try_get_matches_from(arguments)
    }

    #[test]
    fn what_waits_for_nobody_takes_no_patience() {
        assert!(parse(&["--patience", "3m"]).is_ok());
        for alone in [&["--latency"][..], &["--independent", "--impact", "true"]] {
            assert!(parse(alone).is_ok(), "{alone:?}");
            let error = parse(&[alone, &["--patience", "3m"]].concat()).expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
            assert!(error.to_string().contains("--patience"), "{error}");
        }
    }

    #[test]
    fn costs_are_asked_for_where_batches_are_sized_by_them() {
        assert!(parse(&["--cost", "true"]).is_ok());
        for other in [&["--latency"][..], &["--independent", "--impact", "true"]] {
            let error = parse(&[other, &["--cost", "true"]].concat()).expect_err("it is refused");
            assert_eq!(error.kind(), ErrorKind::ArgumentConflict);
        }
    }
}
