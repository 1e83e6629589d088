//! `kiln queue list`, `show` and `explain`.

use clap::{Args, ValueHint};
use kiln_ci::model::Time;
use kiln_ci::queue::serving::Shown;
use kiln_ci::queue::{Branch, Change, ChangeId, Ended, Held, Lane, Phase, Run, Standing};
use kiln_ci::services::Clock;
use serde_json::json;

use super::at_server;
use super::state::{QueueDirectory, System, branch, told};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Table};
use kiln_web::format::{self, counted};

/// Characters of a column that people read.
const SHOWN: usize = 80;

/// What waits, in the order in which it is tested, what runs, and what has left.
#[derive(Debug, Args)]
pub struct List {
    #[command(flatten)]
    state: QueueDirectory,
    /// Changes that have left
    #[arg(long, value_name = "N", default_value_t = 20)]
    ended: usize,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// What is known of one branch.
#[derive(Debug, Args)]
pub struct Show {
    #[command(flatten)]
    state: QueueDirectory,
    /// The branch, without refs/heads/
    #[arg(long, value_name = "BRANCH", value_parser = branch, value_hint = ValueHint::Other)]
    branch: Branch,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Why a branch has not landed yet: what is before it, what it is tested with, and what speaks against it.
#[derive(Debug, Args)]
pub struct Explain {
    #[command(flatten)]
    state: QueueDirectory,
    /// The branch, without refs/heads/
    #[arg(long, value_name = "BRANCH", value_parser = branch, value_hint = ValueHint::Other)]
    branch: Branch,
    /// For programs
    #[arg(long)]
    json: bool,
}

fn utc(at: Time) -> String {
    format::utc(i64::try_from(at.0.saturating_mul(1_000_000)).unwrap_or(i64::MAX))
}

fn standing(it: &Change) -> String {
    match &it.standing {
        Standing::Waiting => "waits".to_owned(),
        Standing::Screened => "passed elsewhere, waits for its landing".to_owned(),
        Standing::Held(Held::RedBase(base)) => {
            format!("held: the target fails by itself at {}", base.short())
        }
        Standing::Held(Held::Refused(why)) => format!("held: the push was refused: {why}"),
        Standing::Held(Held::Unfetched(why)) => format!("held: its head cannot be fetched: {why}"),
    }
}

fn is_in(run: &Run, id: ChangeId) -> bool {
    run.members.iter().any(|it| it.id == id)
}

fn doing(run: &Run) -> &'static str {
    match run.phase {
        Phase::Checking => "is checked",
        Phase::Passed | Phase::Comparing => "has passed",
        Phase::Proving => "has passed, and is compared with the target, which has moved",
        Phase::Landing => "lands",
    }
}

impl List {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        if !self.state.is_here(named) {
            return at_server::list(&target()?, &self.state, self.ended, self.json).await;
        }
        let lane = self.state.lane().await?;
        let ended = self.state.desk()?.ended(self.ended).await.map_err(told)?;
        let order = in_order(&lane);
        match self.json {
            true => text::print_json(&json!({
                "target": lane.target, "base": lane.base, "paused": lane.paused, "mode": lane.options.mode,
                "changes": order, "runs": lane.runs.values().collect::<Vec<_>>(), "ended": ended,
            }))?,
            false => text::print(&listed(&lane, &order, &ended))?,
        }
        Ok(Exit::Done)
    }
}

/// Changes in the order in which they will land; those that are held come last.
fn in_order(lane: &Lane) -> Vec<&Change> {
    let order = lane.order(System.now());
    let held = lane.changes.keys().filter(|it| !order.contains(it));
    order.iter().chain(held).filter_map(|it| lane.changes.get(it)).collect()
}

fn listed(lane: &Lane, order: &[&Change], ended: &[Ended]) -> String {
    let base = lane.base.as_ref().map_or("unknown", |it| it.commit.short());
    let mut out = format!("{} at {base}, {} queued\n", lane.target, order.len());
    if let Some(why) = &lane.paused {
        out.push_str(&format!("paused: {why}\n"));
    }
    if lane.base.as_ref().is_some_and(|it| it.red) {
        out.push_str("the target fails by itself: nobody is rejected until it is mended\n");
    }
    if !order.is_empty() {
        let mut table = Table::new(&["branch", "head", "priority", "since", "state"], &[2]);
        for it in order {
            let run = lane.runs.values().find(|run| is_in(run, it.id));
            let state = run.map_or_else(|| standing(it), |run| doing(run).to_owned());
            table.row([
                it.branch.to_string(),
                it.head.short().to_owned(),
                it.priority.to_string(),
                utc(it.added),
                format::short(&state, SHOWN),
            ]);
        }
        out.push_str(&table.text("  "));
    }
    if !ended.is_empty() {
        let mut table = Table::new(&["left", "branch", "how"], &[]);
        for it in ended {
            table.row([
                utc(it.at),
                it.branch.to_string(),
                format::short(&it.end.to_string(), SHOWN),
            ]);
        }
        out.push_str(&table.text("  "));
    }
    out
}

impl Show {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        if !self.state.is_here(named) {
            return at_server::change(&target()?, &self.state, &self.branch, self.json).await;
        }
        self.here().await
    }

    async fn here(self) -> Result<Exit, CliError> {
        let shown = self.state.desk()?.show(&self.branch).await.map_err(told)?;
        if self.json {
            text::print_json(&shown)?;
            return Ok(Exit::Done);
        }
        let line = match &shown {
            Shown::Asked => "asked for, and not taken in yet: does the queue run?".to_owned(),
            Shown::Queued(it) => {
                format!(
                    "{}, priority {}, since {}: {}",
                    it.head.short(),
                    it.priority,
                    utc(it.added),
                    standing(it)
                )
            }
            Shown::Ended(it) => format!("{} at {}", it.end, utc(it.at)),
        };
        text::print(&format!("{}: {line}\n", self.branch))?;
        Ok(Exit::Done)
    }
}

impl Explain {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        if !self.state.is_here(named) {
            return at_server::change(&target()?, &self.state, &self.branch, self.json).await;
        }
        let shown = self.state.desk()?.show(&self.branch).await.map_err(told)?;
        let Shown::Queued(change) = shown else {
            let show = Show { state: self.state, branch: self.branch, json: self.json };
            return show.here().await;
        };
        let lane = self.state.lane().await?;
        let order = lane.order(System.now());
        let before = order.iter().position(|it| *it == change.id);
        let runs: Vec<_> = lane.runs.values().filter(|it| is_in(it, change.id)).collect();
        let against: Vec<_> =
            lane.failures.iter().filter(|it| it.suspects.contains(&change.id)).collect();
        let bad = 1.0 - lane.innocent(change.id);
        if self.json {
            text::print_json(&json!({
                "change": change, "before": before, "runs": runs, "failures": against, "bad": bad,
                "paused": lane.paused,
            }))?;
            return Ok(Exit::Done);
        }
        let mut out = format!("{}: {}\n", change.branch, standing(&change));
        if let Some(why) = &lane.paused {
            out.push_str(&format!("  the queue is paused: {why}\n"));
        }
        if let Some(before) = before {
            out.push_str(&format!("  before it: {}\n", counted(before as u64, "change")));
        }
        if let Some(why) =
            change.why_passed_over().filter(|_| runs.is_empty() && against.is_empty())
        {
            out.push_str(&format!("  {why}\n"));
        }
        for run in runs {
            let others = counted(run.members.len().saturating_sub(1) as u64, "other");
            out.push_str(&format!("  it {} with {others} in run {}\n", doing(run), run.id.0));
        }
        for it in &against {
            let named =
                if it.targets.is_empty() { "something".to_owned() } else { it.targets.join(", ") };
            out.push_str(&format!(
                "  {named} failed with it and {}\n",
                counted(it.suspects.len().saturating_sub(1) as u64, "other")
            ));
        }
        out.push_str(&format!("  it is bad with a probability of {:.1} %\n", bad * 100.0));
        text::print(&out)?;
        Ok(Exit::Done)
    }
}
