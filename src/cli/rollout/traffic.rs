//! `kiln rollout traffic`.

use clap::Args;
use kiln_deploy::rollouts::machine::Generation;
use kiln_deploy::rollouts::parts::{Applied, PartError, Pool, Side, Split};
use kiln_deploy::traffic;
use kiln_net::causes;
use serde_json::{Value, json};

use super::parts::{PartsFile, Versions, part};
use crate::cli::error::{CliError, Exit};
use crate::cli::process::block_on;
use crate::cli::text::{self, Table};

/// Show how a balancer splits requests, or have it split them.
///
/// Reads how the balancer is declared in the operator's file. Without --share it shows the split that is in force, read
/// back from the balancer. With it the split is set as a rollout would, which also makes the balancer's first file; what
/// a rollout has set since is newer, and stays.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln rollout traffic parts.toml --balancer edge --service api --environment production
  kiln rollout traffic parts.toml --balancer edge --service api --environment production --share 0 \\
      --baseline api-1=10.0.0.1:80 --baseline api-2=10.0.0.2:80

Exit codes:
  0  it is so
  1  nothing is set yet, or something newer is
  2  the file cannot be read
  5  the balancer refused, or cannot be asked")]
pub struct TrafficCommand {
    #[command(flatten)]
    parts: PartsFile,

    /// The balancer, as the file calls it: [traffic.NAME]
    #[arg(long, value_name = "NAME")]
    balancer: String,

    #[command(flatten)]
    versions: Versions,

    /// Percent of the requests for the new version
    #[arg(long, value_name = "PERCENT")]
    share: Option<f64>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

impl TrafficCommand {
    pub fn run(self) -> Result<Exit, CliError> {
        let balancer = part(&self.parts.file, "traffic", &self.balancer, traffic::read)?;
        let place = self.versions.place();
        let failed = |error: PartError| CliError::machine(causes::chain(&*error));
        block_on(async {
            if let Some(share) = self.share
                && let Applied::Stale(newer) =
                    balancer.set(&place, &self.split(share)).await.map_err(failed)?
            {
                let Generation { fence, change } = newer;
                match self.json {
                    true => text::print_json(&json!({"newer": newer}))?,
                    false => text::print(&format!(
                        "a rollout has set something newer: {fence}.{change}\n"
                    ))?,
                }
                return Ok(Exit::Negative);
            }
            let Some(split) = balancer.observe(&place).await.map_err(failed)? else {
                match self.json {
                    true => text::print_json(&Value::Null)?,
                    false => text::print(&format!("nothing is set for {place}\n"))?,
                }
                return Ok(Exit::Negative);
            };
            match self.json {
                true => text::print_json(&split)?,
                false => text::print(&written(&split))?,
            }
            Ok(Exit::Done)
        })
    }

    /// Older than whatever a controller sets.
    fn split(&self, share: f64) -> Split {
        Split {
            generation: Generation::default(),
            pools: vec![
                Pool {
                    side: Side::Baseline,
                    share: 100.0 - share,
                    members: self.versions.baseline(),
                },
                Pool { side: Side::Canary, share, members: self.versions.canary() },
            ],
        }
    }
}

fn side(pool: &Pool) -> &'static str {
    match pool.side {
        Side::Baseline => "baseline",
        Side::Canary => "canary",
    }
}

fn written(split: &Split) -> String {
    let mut table = Table::new(&["version", "share", "target", "address"], &[1]);
    for pool in &split.pools {
        for member in &pool.members {
            let share = format!("{} %", pool.share);
            table.row([side(pool).to_owned(), share, member.name.clone(), member.address.clone()]);
        }
    }
    table.text("")
}
