//! One pipeline to one node, and what its answers mean for each call in it.

use std::sync::Arc;

use ::redis::{ServerError, Value};
use tokio::time::timeout_at;

use super::address::Address;
use super::error::RedisError;
use super::link::Link;
use super::node::Node;
use super::pipeline::{Fate, Load, Step};
use super::script::{Call, UNKNOWN_SCRIPT, is_unknown};
use super::terms::Terms;

/// A call that has no answer yet.
pub(super) struct Pending {
    /// Its place among the calls that were made together.
    pub(super) index: usize,
    pub(super) call: Call,
    pub(super) route: Route,
    /// Why it was not answered before.
    pub(super) error: Option<RedisError>,
}

pub(super) enum Route {
    /// To the master of its slot.
    Slot,
    /// There, as a node said.
    Moved(Address),
    /// There this time only: the slot is being moved.
    Ask(Address),
}

pub(super) enum Verdict {
    Done(Result<Value, RedisError>),
    Again { error: RedisError, route: Route, after: After },
}

/// What has to happen before the next round.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum After {
    Nothing,
    /// Loading the script, which the next pipeline does.
    Load,
    /// Learning the slots of the cluster again.
    Refresh,
    /// Learning the slots again, and a pause.
    Pause,
}

impl Verdict {
    fn pause(error: RedisError) -> Self {
        Self::Again { error, route: Route::Slot, after: After::Pause }
    }
}

/// Sends the calls as one pipeline and judges each.
pub(super) async fn flush(
    node: Arc<Node>,
    calls: Vec<Pending>,
    terms: Terms,
) -> Vec<(Pending, Verdict)> {
    let all = |calls: Vec<Pending>, verdict: &dyn Fn(&Pending) -> Verdict| {
        calls
            .into_iter()
            .map(|call| {
                let judged = verdict(&call);
                (call, judged)
            })
            .collect()
    };
    let link = match timeout_at(terms.deadline, node.link()).await {
        Ok(Ok(link)) => link,
        Ok(Err(error)) if error.is_transient() => {
            return all(calls, &|_| Verdict::pause(error.clone()));
        }
        Ok(Err(error)) => return all(calls, &|_| Verdict::Done(Err(error.clone()))),
        Err(_) => {
            let error = node.last_failure().unwrap_or_else(|| {
                RedisError::unavailable(&node.address, "no connection was made in time")
            });
            return all(calls, &|_| Verdict::Done(Err(error.clone())));
        }
    };
    let (load, wanted) = load(&calls);
    let lost = match node.pipeline.send(&link, load, &terms).await {
        Fate::Answered(answers) => {
            let mut answers = answers.into_iter().enumerate();
            let mut answer = |index| answers.find(|(at, _)| *at == index).map(|(_, value)| value);
            let answers = wanted.into_iter().map_while(&mut answer).collect();
            return judge_all(&node, &link, calls, answers);
        }
        Fate::Unsent => {
            let error = node.last_failure().unwrap_or_else(|| {
                RedisError::unavailable(&node.address, "earlier calls were not answered in time")
            });
            return all(calls, &|_| Verdict::pause(error.clone()));
        }
        Fate::Lost(error) => error,
    };
    all(calls, &|pending| match pending.call.idempotent {
        true => Verdict::pause(lost.clone()),
        false => Verdict::Done(Err(lost.clone())),
    })
}

/// The commands of all calls with what comes before some of them, and which of the answers are
/// those to the calls.
fn load(calls: &[Pending]) -> (Load, Vec<usize>) {
    let mut commands = Vec::with_capacity(calls.len());
    let mut wanted = Vec::with_capacity(calls.len());
    for pending in calls {
        if matches!(pending.route, Route::Ask(_)) {
            commands.push(Step { command: ::redis::cmd("ASKING"), script: None });
        }
        wanted.push(commands.len());
        let (command, script) = (pending.call.command.clone(), pending.call.script.clone());
        commands.push(Step { command, script });
    }
    let name = calls.first().map_or("", |first| first.call.name);
    (Load { name, calls: calls.len(), commands }, wanted)
}

fn judge_all(
    node: &Node,
    link: &Link,
    calls: Vec<Pending>,
    answers: Vec<Value>,
) -> Vec<(Pending, Verdict)> {
    let short = RedisError::sent(&node.address, "fewer answers than calls");
    let mut answers = answers.into_iter();
    let judged = calls.into_iter().map(|pending| {
        let verdict = match answers.next() {
            Some(Value::ServerError(error)) => refused(node, link, &pending, &error),
            Some(value) => Verdict::Done(Ok(value)),
            None => Verdict::Done(Err(short.clone())),
        };
        (pending, verdict)
    });
    judged.collect()
}

/// The server ran nothing, or a script failed before its first write.
fn refused(node: &Node, link: &Link, pending: &Pending, error: &ServerError) -> Verdict {
    let code = code(error);
    let message = match error.details() {
        Some(details) => format!("{} {details}", error.code()),
        None => error.code().to_owned(),
    };
    let redirect = || Address::parse(error.details()?.split(' ').nth(1)?);
    let error = RedisError::answered(&node.address, pending.call.name, Some(code), message);
    let again = |error, route, after| Verdict::Again { error, route, after };
    match code {
        UNKNOWN_SCRIPT => again(error, Route::Slot, After::Load),
        "MOVED" => match redirect() {
            Some(there) => again(error, Route::Moved(there), After::Refresh),
            None => Verdict::pause(error),
        },
        "ASK" => match redirect() {
            Some(there) => again(error, Route::Ask(there), After::Nothing),
            None => Verdict::pause(error),
        },
        "READONLY" => {
            // Perhaps the address leads to another server by now.
            link.discard();
            Verdict::pause(error)
        }
        _ if error.is_transient() => Verdict::pause(error),
        _ => Verdict::Done(Err(error)),
    }
}

/// The code of an error. An unknown function has the code of an unknown script; and an error inside a script,
/// which servers before version 7 wrap in one of their own, has the inner code.
fn code(error: &ServerError) -> &str {
    const WRAPPED: [&str; 4] = ["READONLY", "OOM", "MISCONF", "NOREPLICAS"];
    if is_unknown(error) {
        return UNKNOWN_SCRIPT;
    }
    if error.code() == "ERR"
        && let Some(details) = error.details()
        && details.starts_with("Error running script")
        && let Some((_, inner)) = details.split_once(": -")
        && let Some(code) = WRAPPED.into_iter().find(|code| inner.starts_with(code))
    {
        return code;
    }
    error.code()
}
