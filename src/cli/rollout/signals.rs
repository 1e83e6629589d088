//! `kiln rollout signals`.

use std::time::Duration;

use clap::Args;
use kiln_deploy::judge::{Counts, Points};
use kiln_deploy::oci::ContentDigest;
use kiln_deploy::rollouts::parts::{
    Asked, Cohort, Cohorts, Measured, Member, Query, Target, Window,
};
use kiln_deploy::signals;
use kiln_net::clock::unix_millis;
use serde_json::{Value, json};

use super::parts::{PartsFile, Versions, part};
use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::text::{self, Look, Table, look};

/// Exit code where nothing was measured: a rollout would hold.
const HELD: u8 = 6;

/// Ask a source of signals as a rollout would.
///
/// Reads how the source is declared in the operator's file, asks it about the targets that are named, and prints what it
/// says of both versions. Asks no Kiln server, and changes nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout signals parts.toml --source prom --canary c=10.0.0.3:80 --baseline a=10.0.0.1:80 \\
      --query 'avg(latency{instance=~\"{{addresses}}\"})'
  kiln rollout signals parts.toml --source prom --canary c=10.0.0.3:80 --baseline a=10.0.0.1:80 \\
      --bad 'sum(increase(n{instance=~\"{{addresses}}\",code=\"500\"}[{{window}}]))' \\
      --total 'sum(increase(n{instance=~\"{{addresses}}\"}[{{window}}]))' --last 600 --json
  kiln rollout signals parts.toml --source probe --canary c=10.0.0.3:80 --query /healthz

Exit codes:
  0  it was measured
  2  the file cannot be read
  6  nothing was measured: a rollout would hold")]
pub struct SignalsCommand {
    #[command(flatten)]
    parts: PartsFile,

    /// The source that is asked, as the file calls it: [signals.NAME]
    #[arg(long, value_name = "NAME")]
    source: String,

    /// For a value in each interval
    #[arg(long, conflicts_with_all = ["bad", "total"], required_unless_present = "bad")]
    query: Option<String>,

    /// For bad events
    #[arg(long, value_name = "QUERY", requires = "total")]
    bad: Option<String>,

    /// For all events
    #[arg(long, value_name = "QUERY", requires = "bad")]
    total: Option<String>,

    #[command(flatten)]
    versions: Versions,

    /// Digest of the new version, for {{version}}
    #[arg(long, value_name = "DIGEST")]
    canary_version: Option<ContentDigest>,

    /// Digest of the old version
    #[arg(long, value_name = "DIGEST")]
    baseline_version: Option<ContentDigest>,

    /// How many seconds are looked at, up to now
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400 * 30))]
    last: u64,

    /// Seconds of an interval
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    interval: u64,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl SignalsCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        let source = part(&self.parts.file, "signals", &self.source, signals::read)?;
        block_on(async {
            let measured = source.measure(&self.asked()).await;
            match self.json {
                true => text::print_json(&document(&measured))?,
                false => text::print(&written(&measured))?,
            }
            Ok(match measured {
                Measured::Points { .. } | Measured::Counts { .. } => Exit::Done,
                Measured::Missing(_) | Measured::Failed(_) => Exit::Code(HELD),
            })
        })
    }

    fn asked(&self) -> Asked {
        let query = match (&self.query, &self.bad, &self.total) {
            (None, Some(bad), Some(total)) => {
                Query::Counts { bad: bad.clone(), total: total.clone() }
            }
            (query, ..) => Query::Points(query.clone().unwrap_or_default()),
        };
        let to = unix_millis();
        Asked {
            place: self.versions.place(),
            metric: "tried".to_owned(),
            query,
            cohorts: Cohorts {
                canary: cohort(self.canary_version.clone(), self.versions.canary()),
                baseline: cohort(self.baseline_version.clone(), self.versions.baseline()),
            },
            window: Window {
                from: to.saturating_sub(self.last * 1000),
                to,
                step: Duration::from_secs(self.interval),
            },
        }
    }
}

fn cohort(version: Option<ContentDigest>, members: Vec<Member>) -> Cohort {
    let target = |member: Member| Target {
        name: member.name,
        address: Some(member.address),
        labels: Default::default(),
    };
    Cohort {
        version: version.unwrap_or_else(|| ContentDigest::of(b"")),
        targets: members.into_iter().map(target).collect(),
    }
}

fn document(measured: &Measured) -> Value {
    let counts = |it: &Counts| json!({"bad": it.bad, "total": it.total});
    match measured {
        Measured::Points { canary, baseline } => json!({"canary": canary, "baseline": baseline}),
        Measured::Counts { canary, baseline } => {
            json!({"canary": counts(canary), "baseline": counts(baseline)})
        }
        Measured::Missing(why) => json!({"missing": why}),
        Measured::Failed(why) => json!({"failed": why}),
    }
}

fn written(measured: &Measured) -> String {
    match measured {
        Measured::Points { canary, baseline } => {
            let mut table =
                Table::new(&["", "intervals", "without", "mean", "last"], &[1, 2, 3, 4]);
            table.row(points("canary", canary));
            table.row(points("baseline", baseline));
            table.text("")
        }
        Measured::Counts { canary, baseline } => {
            let mut table = Table::new(&["", "bad", "of", "rate"], &[1, 2, 3]);
            for (side, it) in [("canary", canary), ("baseline", baseline)] {
                let rate = (it.total > 0).then(|| format!("{:.4} %", it.rate() * 100.0));
                let rate = rate.unwrap_or_else(|| "no traffic".to_owned());
                table.row([side.to_owned(), it.bad.to_string(), it.total.to_string(), rate]);
            }
            table.text("")
        }
        Measured::Missing(why) => format!("{}: {why}\n", look(Look::Busy, "missing")),
        Measured::Failed(why) => format!("{}: {why}\n", look(Look::Bad, "failed")),
    }
}

fn points(side: &str, points: &Points) -> [String; 5] {
    let values: Vec<f64> = points.iter().flatten().copied().collect();
    let shown = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |it| format!("{it:.4}"));
    let mean = (!values.is_empty()).then(|| values.iter().sum::<f64>() / values.len() as f64);
    let without = points.len() - values.len();
    [
        side.to_owned(),
        points.len().to_string(),
        without.to_string(),
        shown(mean),
        shown(values.last().copied()),
    ]
}
