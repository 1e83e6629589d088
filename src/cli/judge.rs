//! `kiln judge`.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use kiln_deploy::judge::{self, Class, Judgement, MetricResult, Verdict};
use kiln_net::causes;

use crate::cli::error::{CliError, Exit};
use crate::cli::text::{self, Look, Table, look};

/// Exit code of a canary about which nothing can be decided yet.
const HELD: u8 = 6;

/// Judge a canary by what was measured of it.
///
/// Reads metrics of a canary and of its baseline from a file, and says whether the canary may be promoted, has to
/// be rolled back, or neither can be said yet. Asks no server. docs/judge.md has the format and the rules.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln judge canary.json
  kiln judge canary.json --json | jq -r .verdict
  metrics-of-canary | kiln judge - && promote
  kiln judge canary.json --compat kayenta

A case, with a value for each interval (null or \"NaN\" where there is none):
  {\"metrics\": [{\"name\": \"latency\", \"direction\": \"increase\",
                \"experiment\": [101.2, 98.7, ...], \"control\": [99.8, 100.4, ...]}]}

Exit codes:
  0  promote
  1  roll back
  2  the case cannot be read
  6  hold: not decided")]
pub struct JudgeCommand {
    /// The case; `-`: standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    /// Judge as another judge would, weaknesses and all
    #[arg(long, value_name = "JUDGE")]
    compat: Option<Compat>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compat {
    /// Spinnaker's NetflixACAJudge
    Kayenta,
}

impl JudgeCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        let shown = if self.file == Path::new("-") {
            "standard input".to_owned()
        } else {
            self.file.display().to_string()
        };
        let data = read(&self.file, &shown)?;
        let case = judge::read(&data).map_err(|error| {
            CliError::usage(format!("{shown}: {}", causes::chain(&error)))
                .hint("docs/judge.md says how a case is written")
        })?;
        let judgement = match self.compat {
            None => judge::judge(&case),
            Some(Compat::Kayenta) => judge::judge_as_kayenta(&case),
        };
        match self.json {
            true => text::print_json(&judgement)?,
            false => text::print(&written(&judgement))?,
        }
        Ok(match judgement.verdict {
            Verdict::Promote => Exit::Done,
            Verdict::Rollback => Exit::Negative,
            Verdict::Hold => Exit::Code(HELD),
        })
    }
}

/// Reads a case. It reads one byte more than a case may have, so that a longer one is refused as
/// too long.
fn read(path: &Path, shown: &str) -> Result<Vec<u8>, CliError> {
    let failed = |error| CliError::usage(format!("cannot read {shown}: {error}"));
    let limit = judge::MAX_BYTES as u64 + 1;
    let mut data = Vec::new();
    if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut data).map_err(failed)?;
    } else {
        File::open(path).map_err(failed)?.take(limit).read_to_end(&mut data).map_err(failed)?;
    }
    Ok(data)
}

fn written(judgement: &Judgement) -> String {
    let verdict = match judgement.verdict {
        Verdict::Promote => look(Look::Good, "promote"),
        Verdict::Hold => look(Look::Busy, "hold"),
        Verdict::Rollback => look(Look::Bad, "roll back"),
    };
    let reasons: String = judgement.reasons.iter().map(|reason| format!("  {reason}\n")).collect();
    let mut table = Table::new(
        &["metric", "canary is", "canary", "baseline", "effect", "interval", "p"],
        &[2, 3, 4, 6],
    );
    judgement.metrics.iter().for_each(|metric| table.row(row(metric)));
    format!("{verdict}, score {}\n{reasons}\n{}", judgement.score, table.text("  "))
}

fn row(metric: &MetricResult) -> [String; 7] {
    let class = match (metric.classification, metric.muted) {
        (_, true) => look(Look::Dim, "muted"),
        (Class::Pass, _) => "like it".to_owned(),
        (Class::High, _) => look(Look::Bad, "higher"),
        (Class::Low, _) => look(Look::Bad, "lower"),
        (Class::Nodata | Class::NodataFailMetric, _) => look(Look::Busy, "without data"),
        (Class::Error, _) => look(Look::Busy, "not known"),
        (Class::Inconclusive, _) => look(Look::Busy, "undecided"),
    };
    let number = |value: f64| if value.is_nan() { "-".to_owned() } else { format!("{value:.4}") };
    let optional = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), number);
    let interval = metric.interval.map_or_else(
        || "-".to_owned(),
        |it| format!("{} to {}", number(it.lower), number(it.upper)),
    );
    [
        metric.name.clone(),
        class,
        number(metric.experiment.mean),
        number(metric.control.mean),
        optional(metric.effect),
        interval,
        optional(metric.adjusted.or(metric.p)),
    ]
}
