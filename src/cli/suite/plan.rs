//! `kiln tests plan`, and plans that are put on a server.

use std::time::Duration;

use clap::builder::ValueParser;
use clap::{Args, ValueHint};
use kiln_ci::shards::Plan;

use crate::cli::api::{self, Api};
use crate::cli::error::{CliError, Exit};
use crate::cli::say::say;
use crate::cli::target::Target;
use crate::cli::text::{Look, Table, look};
use crate::config::parse_time;
use kiln_web::format::{counted, encode, short, utc};
use kiln_web::json::{NewPlan, PlanPiece, PlanStanding};

/// The longest that a plan is kept.
const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);

/// How far a plan is whose pieces runners take
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  kiln tests plan \"$RUN_ID\"
  kiln tests plan \"$RUN_ID\" --complete     # the last job of a pipeline: did every piece run to its end?

Exit codes:
  0  as asked
  1  there is no such plan; with --complete also: a piece is not done")]
pub struct ShowPlan {
    /// The id under which the plan was put there
    #[arg(value_name = "ID", value_hint = ValueHint::Other)]
    plan: String,
    /// Exit code 1 unless every piece is done
    #[arg(long)]
    complete: bool,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl ShowPlan {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        let (plan, instance) = (encode(&self.plan, false), encode(&target.instance, false));
        let path = format!("/tests/plans?plan={plan}&instance={instance}");
        let answer = Api::new(target)?.get(&path).await?;
        let standing: PlanStanding = api::read(answer.clone())?;
        api::print(answer, self.json, shown)?;
        let is_complete = standing.open + standing.taken == 0;
        Ok(if self.complete && !is_complete { Exit::Negative } else { Exit::Done })
    }
}

fn shown(it: &PlanStanding) -> String {
    let all = it.open + it.taken + it.done;
    let mut text = format!(
        "{}\n  {} in {}: {} done, {} going on, {} open; kept until {}\n",
        look(Look::Bold, &format!("plan {}", short(&it.plan, 200))),
        counted(it.tests as u64, "test"),
        counted(all as u64, "piece"),
        it.done,
        it.taken,
        it.open,
        utc(it.expires),
    );
    if let Some(seconds) = it.again_after_s {
        text += &format!("  what a runner does not finish in {seconds} s is given out again\n");
    }
    let mut table = Table::new(&["runner", "attempt", "pieces", "which"], &[2]);
    for runner in &it.runners {
        let which: Vec<_> = runner.pieces.iter().map(u32::to_string).collect();
        table.row([
            short(&runner.runner, 60),
            short(&runner.attempt, 40),
            runner.pieces.len().to_string(),
            short(&which.join(" "), 100),
        ]);
    }
    if !it.runners.is_empty() {
        text += &table.text("  ");
    }
    text
}

/// Where `kiln tests shards` puts its plan.
#[derive(Debug, Args)]
pub struct Keep {
    /// Put the plan on the server under this name, for `kiln tests next`; one that is there stays as it is
    #[arg(long, value_name = "ID", value_hint = ValueHint::Other, conflicts_with = "only")]
    keep: Option<String>,
    /// With --keep: give the piece of a runner that was not heard of for so long to another one [default: never]
    #[arg(long, value_name = "TIME", requires = "keep", value_parser = ValueParser::from(parse_time))]
    again_after: Option<Duration>,
    /// With --keep: how long the plan is kept, a week at most [default: 24h]
    #[arg(long, value_name = "TIME", requires = "keep", value_parser = ValueParser::from(parse_time))]
    keep_for: Option<Duration>,
}

impl Keep {
    pub fn is_wanted(&self) -> bool {
        self.keep.is_some()
    }

    /// Puts the plan on the server, and says on stderr what became of it.
    pub async fn put(&self, plan: &Plan, target: &Target) -> Result<(), CliError> {
        let Some(id) = &self.keep else { return Ok(()) };
        if self.keep_for.is_some_and(|it| it.is_zero() || it > WEEK) {
            return Err(CliError::usage("--keep-for is a second at least, and a week at most"));
        }
        let piece = |it: &kiln_ci::shards::Shard| PlanPiece {
            tests: it.tests.clone(),
            expected_s: it.expected_s,
        };
        let new = NewPlan {
            instance: target.instance.clone(),
            plan: id.clone(),
            pieces: plan.shards.iter().map(piece).collect(),
            again_after_s: self.again_after.map(|it| it.as_secs()),
            keep_s: self.keep_for.map(|it| it.as_secs()),
        };
        let standing: PlanStanding =
            api::read(Api::new(target)?.post("/tests/plans", &new).await?)?;
        let all = standing.open + standing.taken + standing.done;
        let all = counted(all as u64, "piece");
        say(&match standing.was_there {
            true => format!("plan {id} is there already, of the same tests, in {all}"),
            false => format!("plan {id} is kept until {}, in {all}", utc(standing.expires)),
        });
        Ok(())
    }
}
