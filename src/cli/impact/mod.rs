//! `kiln impact`: which targets a change affects. No server is asked.

mod content;
mod git;
mod kept;
mod output;
mod place;
pub mod process;
mod snapshots;
pub mod tool;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::builder::ValueParser;
use clap::{Args, ValueHint};
use kiln_ci::impact::compare;

use crate::cli::error::{CliError, Exit};
use crate::config::parse_time;
use git::Git;
use output::Report;
use snapshots::Snapshots;
use tool::{Kind, Tool};

/// Which targets a change affects, and which tests among them.
///
/// The build tool is asked for the targets of both commits; a target is affected where its rule, an attribute, the
/// code of its rule, a source file or anything that it depends on differs. The working tree is left alone: other
/// commits are checked out beside it. What a commit's targets are made from is kept, so that it is asked for once.
/// Where it cannot be said what a change affects (the base cannot be loaded, .bazelrc or a lock file differs),
/// everything is affected, and stderr says why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln impact --base origin/main
  kiln impact --base origin/main --head HEAD --tests
  kiln impact --base HEAD~1 --json
  kiln impact --base origin/main --tests-to tests.txt &&
    if [ -s tests.txt ]; then bazel test --target_pattern_file=tests.txt; fi")]
pub struct ImpactCommand {
    /// The commit to compare with
    #[arg(long, value_name = "COMMIT", value_hint = ValueHint::Other)]
    base: String,

    /// The commit with the change [default: the working tree as it is]
    #[arg(long, value_name = "COMMIT", value_hint = ValueHint::Other)]
    head: Option<String>,

    /// Print tests only
    #[arg(long)]
    tests: bool,

    /// Print files as well as rules
    #[arg(long, conflicts_with = "tests")]
    files: bool,

    /// For programs: each target with its distance from the change and its cause
    #[arg(long)]
    json: bool,

    /// Also write the labels of affected rules to this file, for --target_pattern_file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    targets_to: Option<PathBuf>,

    /// Also write the labels of affected tests to this file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    tests_to: Option<PathBuf>,

    /// List tests that are tagged manual as well, which Bazel runs where they are named
    #[arg(long)]
    manual: bool,

    /// Targets with this tag are affected by every change
    #[arg(long, value_name = "TAG", default_value = "external")]
    always: Vec<String>,

    /// A file of the workspace that every target depends on, beside .bazelrc, lock files and the like
    #[arg(long, value_name = "PATH")]
    common: Vec<String>,

    /// The targets that are looked at, with all that they depend on
    #[arg(long, value_name = "PATTERN", default_value = "//...", allow_hyphen_values = true)]
    universe: String,

    /// Ask cquery: configurations are resolved, which takes longer and affects less
    #[arg(long)]
    cquery: bool,

    /// The build tool [default: tools/bazel, bazelisk, bazel, or buck2 where the workspace is Buck2's]
    #[arg(long, env = "BAZEL", value_name = "PROGRAM", value_hint = ValueHint::CommandName)]
    bazel: Option<PathBuf>,

    /// How long the build tool may take for the targets of one commit
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = ValueParser::from(parse_time))]
    timeout: Duration,

    /// Where checked-out commits and what is known of them are kept [default: kiln/impact in the git directory, or in
    /// ~/.cache where that directory is within the workspace]
    #[arg(long, value_name = "DIR", value_hint = ValueHint::DirPath)]
    cache_dir: Option<PathBuf>,
}

impl ImpactCommand {
    pub async fn run(self) -> Result<Exit, CliError> {
        let began = Instant::now();
        let here = std::env::current_dir()
            .map_err(|error| CliError::machine(format!("the working directory: {error}")))?;
        let (workspace, kind) = tool::workspace(&here)?;
        let git = Git::open(&workspace).await?;
        // A mistake in a name is the user's; a base that cannot be loaded is not.
        let base = git.commit(&self.base).await?;
        let head = match &self.head {
            Some(name) => Some(git.commit(name).await?),
            None => None,
        };
        let tool = Tool::new(
            kind,
            self.bazel.clone(),
            &workspace,
            self.cquery,
            &self.universe,
            self.timeout,
        );
        let tool = tool.await?;
        let common = self.common.clone();
        let snapshots = Snapshots::open(git, tool, self.cache_dir.as_deref(), common).await?;
        let head = match head {
            Some(commit) => snapshots.of(&commit).await,
            None => snapshots.here().await,
        };
        let head = head.map_err(|error| CliError::machine(error.to_string()).hint(
            "of the change itself the targets have to be known; with a broken package everything should be tested",
        ))?;
        let base = snapshots.of(&base).await;
        let (compared, from_cache) = match &base {
            Ok(base) => (Ok(&base.snapshot), base.kept),
            Err(error) => (Err(error.to_string()), false),
        };
        let impact = compare(compared, &head.snapshot, &self.always);
        let report = Report::new(&impact, &head.snapshot, from_cache, began.elapsed());
        // Buck2 has no such tag: what is called so there runs like everything else.
        self.tell(&report, self.manual || kind == Kind::Buck2)
    }

    /// `manual`: lists of tests name those that are tagged so.
    fn tell(&self, report: &Report<'_>, manual: bool) -> Result<Exit, CliError> {
        if let Some(path) = &self.targets_to {
            output::write(path, &report.labels(|target| target.is_rule()))?;
        }
        if let Some(path) = &self.tests_to {
            output::write(path, &report.labels(|target| target.is_run(manual)))?;
        }
        // JSON has all of them.
        let lists_tests = self.tests_to.is_some() || (self.tests && !self.json);
        if lists_tests && !manual {
            report.say_left_out();
        }
        if self.json {
            report.print_json()?;
        } else {
            report.print(|target| match (self.tests, self.files) {
                (true, _) => target.is_run(manual),
                (false, true) => true,
                (false, false) => target.is_rule(),
            })?;
        }
        Ok(Exit::Done)
    }
}
