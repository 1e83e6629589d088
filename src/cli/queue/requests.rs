//! `kiln queue add`, `remove`, `pause` and `resume`: what the queue is asked for.

use clap::{Args, ValueHint};
use kiln_ci::queue::serving::{Request, Shown};
use kiln_ci::queue::{Branch, USUAL_PRIORITY};
use kiln_ci::services::Clock;

use super::at_server;
use super::state::{QueueDirectory, System, WAITS, branch, told};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text;

/// Queue a branch, or queue it again with another priority or after it was held.
///
/// What is tested is the head that it has when the queue takes it in; a push starts it anew.
#[derive(Debug, Args)]
pub struct Add {
    #[command(flatten)]
    state: QueueDirectory,
    /// The branch, without refs/heads/
    #[arg(long, value_name = "BRANCH", value_parser = branch, value_hint = ValueHint::Other)]
    branch: Branch,
    /// More goes first; every half hour of waiting counts as one
    #[arg(long, value_name = "N", default_value_t = USUAL_PRIORITY, value_parser = clap::value_parser!(u8).range(0..=9))]
    priority: u8,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Take a branch out of the queue. What is about to land lands.
#[derive(Debug, Args)]
pub struct Remove {
    #[command(flatten)]
    state: QueueDirectory,
    /// The branch, without refs/heads/
    #[arg(long, value_name = "BRANCH", value_parser = branch, value_hint = ValueHint::Other)]
    branch: Branch,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Begin and land nothing until `resume`. Checks that run go on, and what they say is kept.
#[derive(Debug, Args)]
pub struct Pause {
    #[command(flatten)]
    state: QueueDirectory,
    /// Why, for whoever looks
    #[arg(long, value_name = "TEXT", default_value = "by hand", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Go on after `pause`, or after the queue has paused by itself.
#[derive(Debug, Args)]
pub struct Resume {
    #[command(flatten)]
    state: QueueDirectory,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// Have the server forget a queue that nobody runs any more, with all that it kept of it.
///
/// It takes the role admin, and is noted in the audit log. A runner that comes later begins it anew.
#[derive(Debug, Args)]
pub struct Forget {
    /// The queue
    #[arg(long, value_name = "NAME", value_hint = ValueHint::Other)]
    queue: String,
    /// Why
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    reason: String,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Forget {
    pub async fn run(self, target: &Target) -> Result<Exit, CliError> {
        at_server::forget(target, self.queue, self.reason, self.json).await
    }
}

async fn ask(
    state: &QueueDirectory,
    request: Request,
    json: bool,
    done: &str,
) -> Result<Exit, CliError> {
    state.desk()?.ask(&request, System.now()).await.map_err(told)?;
    match json {
        true => text::print_json(&serde_json::json!({ "asked": request }))?,
        false => text::print(&format!("{done}\n"))?,
    }
    Ok(Exit::Done)
}

impl Add {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        let request = Request::Add { branch: self.branch.clone(), priority: self.priority };
        if !self.state.is_here(named) {
            return at_server::ask(&target()?, &self.state, &request, self.json).await;
        }
        let done = format!("{} is to be queued", self.branch);
        ask(&self.state, request, self.json, &done).await
    }
}

impl Remove {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        let request = Request::Remove { branch: self.branch.clone() };
        if !self.state.is_here(named) {
            return at_server::ask(&target()?, &self.state, &request, self.json).await;
        }
        // Who is not there is said at once.
        let shown = self.state.desk()?.show(&self.branch).await.map_err(told)?;
        if let Shown::Ended(it) = shown {
            let message = format!("{} is not in the queue any more: {}", self.branch, it.end);
            return Err(CliError::not_found(message).hint(WAITS));
        }
        let done = format!("{} is to be taken out", self.branch);
        ask(&self.state, request, self.json, &done).await
    }
}

impl Pause {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        let request = Request::Pause { why: self.reason };
        if !self.state.is_here(named) {
            return at_server::ask(&target()?, &self.state, &request, self.json).await;
        }
        ask(&self.state, request, self.json, "the queue is to pause").await
    }
}

impl Resume {
    pub async fn run(
        self,
        named: bool,
        target: impl FnOnce() -> Result<Target, CliError>,
    ) -> Result<Exit, CliError> {
        if !self.state.is_here(named) {
            return at_server::ask(&target()?, &self.state, &Request::Resume, self.json).await;
        }
        ask(&self.state, Request::Resume, self.json, "the queue is to go on").await
    }
}
