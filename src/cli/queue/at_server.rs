//! Queues at a server: what they are asked for, and what is printed of them.

use std::time::Duration;

use kiln_ci::queue::Branch;
use kiln_ci::queue::serving::Request;

use super::state::QueueDirectory;
use crate::cli::api::{self, Api, read};
use crate::cli::error::{CliError, Exit};
use crate::cli::target::Target;
use crate::cli::text::{self, Table};
use kiln_web::format::{counted, encode, short};
use kiln_web::json::{
    MergeChange, MergeChangeShown, MergeQueueShown, MergeRemoval, MergeRequest, MergeSaid, MergeSay,
};

/// Characters of a column that people read, and of a commit.
const SHOWN: usize = 90;
const COMMIT: usize = 12;
/// How long it is waited for what becomes of a request, and how often that is looked at.
const PATIENCE: Duration = Duration::from_secs(6);
const LOOK: Duration = Duration::from_millis(200);

fn address(state: &QueueDirectory) -> Result<String, CliError> {
    Ok(format!("/merge-queues/{}", encode(state.name()?.as_str(), false)))
}

fn said(queue: &str, request: &Request) -> Result<MergeSay, CliError> {
    let queue = queue.to_owned();
    let plain = |what| MergeSay { queue, what, branch: None, priority: None, reason: None };
    Ok(match request {
        Request::Add { branch, priority } => MergeSay {
            branch: Some(branch.to_string()),
            priority: Some(*priority),
            ..plain(MergeSaid::Add)
        },
        Request::Remove { branch } => {
            MergeSay { branch: Some(branch.to_string()), ..plain(MergeSaid::Remove) }
        }
        Request::Pause { why } => MergeSay { reason: Some(why.clone()), ..plain(MergeSaid::Pause) },
        Request::Resume => plain(MergeSaid::Resume),
        Request::Mode(_) => {
            return Err(CliError::usage("how a queue tests is its runner's to say")
                .hint("start the runner with other options: kiln queue run --help"));
        }
    })
}

/// Leaves a request, and waits a little for what becomes of it.
pub async fn ask(
    target: &Target,
    state: &QueueDirectory,
    request: &Request,
    json: bool,
) -> Result<Exit, CliError> {
    let api = Api::new(target)?;
    let path = address(state)?;
    let mut answer = api.post("/merge-queues/say", &said(&state.queue, request)?).await?;
    let mut known: MergeRequest = read(answer.clone())?;
    let until = tokio::time::Instant::now() + PATIENCE;
    while known.state == "waiting" && tokio::time::Instant::now() < until {
        tokio::time::sleep(LOOK).await;
        answer = api.get(&format!("{path}/requests/{}", known.id)).await?;
        known = read(answer.clone())?;
    }
    api::print(answer, json, outcome)?;
    Ok(if known.state == "refused" { Exit::Negative } else { Exit::Done })
}

fn outcome(it: &MergeRequest) -> String {
    let subject = it.branch.clone().unwrap_or_else(|| format!("the queue {}", it.queue));
    match (it.state.as_str(), it.what.as_str()) {
        ("done", "add") => format!("{subject} is queued\n"),
        ("done", "remove") => format!("{subject} is taken out\n"),
        ("done", "pause") => format!("{subject} is paused\n"),
        ("done", _) => format!("{subject} goes on\n"),
        ("refused", what) => {
            format!("{what} was refused: {}\n", it.why.as_deref().unwrap_or_default())
        }
        (_, what) => {
            format!(
                "{subject}: {what} is left as request {}, and no runner has taken it in yet\n",
                it.id
            )
        }
    }
}

pub async fn forget(
    target: &Target,
    queue: String,
    reason: String,
    json: bool,
) -> Result<Exit, CliError> {
    let asked = MergeRemoval { queue, reason };
    let answer = Api::new(target)?.post("/merge-queues/forget", &asked).await?;
    api::print(answer, json, |it: &MergeRemoval| format!("the queue {} is forgotten\n", it.queue))?;
    Ok(Exit::Done)
}

pub async fn list(
    target: &Target,
    state: &QueueDirectory,
    ended: usize,
    json: bool,
) -> Result<Exit, CliError> {
    let path = format!("{}?ended={ended}", address(state)?);
    let answer = Api::new(target)?.get(&path).await?;
    api::print(answer, json, listed)?;
    Ok(Exit::Done)
}

fn commit(name: &str) -> String {
    name.get(..COMMIT).unwrap_or(name).to_owned()
}

fn listed(it: &MergeQueueShown) -> String {
    let one = &it.queue;
    let base = one.base.as_deref().map_or("unknown".to_owned(), commit);
    let mut out =
        format!("{} lands on {} at {base}, {} queued\n", one.name, one.target, it.changes.len());
    match one.runner.connected {
        true => out.push_str(&format!("runner: {}\n", one.runner.name)),
        false => out.push_str(&format!("no runner since {}\n", one.runner.seen)),
    }
    if let Some(why) = &one.paused {
        out.push_str(&format!("paused: {why}\n"));
    }
    if it.base_state == "fails" {
        out.push_str("the target fails by itself: nobody is rejected until it is mended\n");
    }
    if !it.requests.is_empty() {
        let requests = counted(it.requests.len() as u64, "request");
        out.push_str(&format!("{requests} that no runner has taken in yet\n"));
    }
    if !it.changes.is_empty() {
        let mut table = Table::new(&["branch", "head", "priority", "since", "state"], &[2]);
        for change in &it.changes {
            table.row([
                change.branch.clone(),
                commit(&change.head),
                change.priority.to_string(),
                change.added.clone(),
                short(&change.why, SHOWN),
            ]);
        }
        out.push_str(&table.text("  "));
    }
    if !it.ended.is_empty() {
        let mut table = Table::new(&["left", "branch", "how"], &[]);
        for left in &it.ended {
            table.row([left.ended.clone(), left.branch.clone(), short(&left.why, SHOWN)]);
        }
        out.push_str(&table.text("  "));
    }
    out
}

pub async fn change(
    target: &Target,
    state: &QueueDirectory,
    branch: &Branch,
    json: bool,
) -> Result<Exit, CliError> {
    let branch = encode(branch.as_str(), false);
    let path = format!("{}/change?branch={branch}", address(state)?);
    let answer = Api::new(target)?.get(&path).await?;
    let base = target.url.trim_end_matches('/').to_owned();
    match json {
        true => text::print(&format!("{answer:#}\n"))?,
        false => text::print(&explained(&read(answer)?, &base))?,
    }
    Ok(Exit::Done)
}

fn explained(it: &MergeChangeShown, base: &str) -> String {
    let mut out = String::new();
    if let Some(change) = &it.change {
        out.push_str(&waits(change));
    }
    if it.asked.is_some() {
        out.push_str(&format!("{}: asked for, and not taken in yet\n", it.branch));
    }
    if let (None, Some(left)) = (&it.change, &it.ended) {
        out.push_str(&format!("{}: {} at {}\n", it.branch, left.why, left.ended));
        if let Some(run) = left.run {
            out.push_str(&format!("  log: {base}/merge-queues/{}/runs/{run}\n", it.queue));
        }
    }
    if !it.connected {
        out.push_str("  no runner has the queue\n");
    }
    out
}

fn waits(it: &MergeChange) -> String {
    let mut out = format!("{} ({}): {}\n", it.branch, commit(&it.head), it.why);
    out.push_str(&format!("  priority {}, since {}\n", it.priority, it.added));
    if let Some(before) = it.before {
        out.push_str(&format!("  before it: {}\n", counted(before as u64, "change")));
    }
    if let Some(left) = it.expected_s {
        out.push_str(&format!("  it lands in about {left:.0} s, if all goes well\n"));
    }
    out.push_str(&format!("  it is bad with a probability of {:.1} %\n", it.bad * 100.0));
    out
}
