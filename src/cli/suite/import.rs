//! `kiln tests import`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args;
use kiln_ci::junit::{self, CaseAttempt, Limits, Totals};
use kiln_ci::model::Outcome;
use serde::Serialize;

use super::files::{open, shown};
use super::refused::said;
use super::send::{Made, send};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text;
use crate::cli::text::{Look, Table, look};
use kiln_web::format::counted;

/// Bring reports of test runners into the history of a server.
///
/// Reads JUnit's XML in the dialects of pytest, surefire, Gradle, cargo-nextest, go-junit-report, jest,
/// googletest, Bazel and others. All reports are read before any is sent: one that is cut short or not
/// well-formed is refused as a whole, with file, line and reason. Each report is one run of a suite; sent again,
/// it counts once.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests import --junit report.xml --commit \"$(git rev-parse HEAD)\" --branch main --suite unit
  kiln tests import --junit target/surefire-reports/*.xml --dry-run
  kiln tests import --junit report.xml --dry-run --json | jq -c 'select(.outcome == \"failed\")'

Storing takes the role execute or write-cache in the instance.")]
pub struct Import {
    /// Reports (`-`: standard input)
    #[arg(long, value_name = "FILE", num_args = 1.., required = true)]
    junit: Vec<PathBuf>,

    #[command(flatten)]
    made: Made,

    /// Only say what was read; nothing is stored, and no server is asked
    #[arg(long)]
    dry_run: bool,

    /// For programs: a line for each report, with `--dry-run` for each attempt
    #[arg(long)]
    json: bool,
}

/// An attempt as other programs read it.
#[derive(Serialize)]
struct Line<'a> {
    file: &'a str,
    suite: &'a str,
    class: &'a str,
    name: &'a str,
    attempt: u32,
    outcome: Outcome,
    duration_s: Option<f64>,
    message: Option<&'a str>,
}

/// Failed attempts that are listed of a report at most.
const LISTED: usize = 20;

impl Import {
    pub async fn run(
        self,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        if self.dry_run {
            return self.show();
        }
        send(&target()?, &self.junit, &self.made, self.json).await
    }

    /// Says what is in the reports.
    fn show(self) -> Result<Exit, CliError> {
        // A report counts whole or not at all, so all are read before anything is printed.
        let mut out = String::new();
        for path in &self.junit {
            let file = shown(path);
            let mut failures = Failures::default();
            let each = |attempt: CaseAttempt| match self.json {
                true => write_line(&mut out, &file, &attempt),
                false => failures.add(&attempt),
            };
            let totals = junit::read(open(path)?, &Limits::default(), each)
                .map_err(|refused| said(&file, &refused))?;
            if !self.json {
                out.push_str(&failures.report(&file, totals));
            }
        }
        match self.json {
            true => text::write_out(out.as_bytes())?,
            false => text::print(&out)?,
        }
        Ok(Exit::Done)
    }
}

fn write_line(out: &mut String, file: &str, attempt: &CaseAttempt) {
    let CaseAttempt { suite, attempt, result } = attempt;
    let line = Line {
        file,
        suite,
        class: &result.case.class,
        name: &result.case.name,
        attempt: *attempt,
        outcome: result.outcome,
        duration_s: result.duration.map(|duration| duration.as_secs_f64()),
        message: result.message.as_deref(),
    };
    // Text and numbers are always JSON.
    if let Ok(line) = serde_json::to_string(&line) {
        _ = writeln!(out, "{line}");
    }
}

/// The first failures of a report, and how many attempts ended how.
#[derive(Default)]
struct Failures {
    listed: Vec<[String; 4]>,
    failed: u64,
    skipped: u64,
    retried: u64,
}

impl Failures {
    fn add(&mut self, CaseAttempt { attempt, result, .. }: &CaseAttempt) {
        self.retried += u64::from(*attempt > 1);
        self.skipped += u64::from(result.outcome == Outcome::Skipped);
        if !matches!(result.outcome, Outcome::Failed | Outcome::TimedOut) {
            return;
        }
        self.failed += 1;
        if self.listed.len() < LISTED {
            let first = result.message.as_deref().and_then(|message| message.lines().next());
            self.listed.push([
                attempt.to_string(),
                result.case.class.clone(),
                result.case.name.clone(),
                first.unwrap_or_default().chars().take(100).collect(),
            ]);
        }
    }

    fn report(self, file: &str, totals: Totals) -> String {
        let cases = counted(totals.cases, "case");
        let attempts = counted(totals.attempts, "attempt");
        let (failed, skipped, retried) = (self.failed, self.skipped, self.retried);
        let mut report = format!(
            "{}: {cases}, {attempts}: {failed} failed, {skipped} skipped, {retried} were retries\n",
            look(Look::Bold, file)
        );
        let more = self.failed as usize - self.listed.len();
        if !self.listed.is_empty() {
            let mut table = Table::new(&["attempt", "class", "name", "message"], &[0]);
            self.listed.into_iter().for_each(|row| table.row(row));
            report.push_str(&table.text("  "));
        }
        if more > 0 {
            report.push_str(&format!("  and {more} more; --json has all\n"));
        }
        report
    }
}
