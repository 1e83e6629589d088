//! The line to one server: one pipeline at a time. What is called while that is on its way goes
//! out together with the next one; nobody waits for company.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use ::redis::{Arg, Cmd, Pipeline, ServerError, Value};
use tokio::runtime::Handle;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::error::RedisError;
use super::node::{Link, Node};
use super::observe::Flush;
use super::round::Terms;
use super::script::Script;

/// Most commands and bytes of arguments that go out together; a single load may be heavier.
const COMMANDS: usize = 1000;
const BYTES: usize = 1 << 20;
/// Code of the answer to a script that the server does not know.
pub(super) const UNKNOWN_SCRIPT: &str = "NOSCRIPT";

/// Commands of one caller, which stay together and in order.
pub(super) struct Load {
    /// Of the first script or command.
    pub(super) name: &'static str,
    pub(super) calls: usize,
    pub(super) commands: Vec<Step>,
}

/// One command of a load.
pub(super) struct Step {
    pub(super) command: Cmd,
    /// What the server has to know before.
    pub(super) script: Option<Script>,
}

/// What became of a load.
pub(super) enum Fate {
    /// An answer for each command, in order.
    Answered(Vec<Value>),
    /// The server never saw it.
    Unsent,
    /// The server may have run it.
    Lost(RedisError),
}

pub(super) struct Line {
    queue: Mutex<Queue>,
    /// Flights must not end with whoever happened to call first.
    runtime: Handle,
}

/// Bounded by the callers: each waits here until its answer is there, or its time is over.
#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    flying: bool,
}

struct Waiting {
    load: Load,
    link: Link,
    terms: Terms,
    bytes: usize,
    /// Closed: the caller went away.
    fate: oneshot::Sender<Fate>,
    /// Tells the caller that it was sent; set under the lock of the queue.
    sent: Arc<AtomicBool>,
}

impl Line {
    /// Call within the runtime that lives as long as the server is spoken to.
    pub(super) fn new() -> Self {
        Self { queue: Mutex::default(), runtime: Handle::current() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends the load over the link as soon as nothing else is on its way.
    pub(super) async fn send(node: &Arc<Node>, link: &Link, load: Load, terms: &Terms) -> Fate {
        let (fate, mut answered) = oneshot::channel();
        let sent = Arc::new(AtomicBool::new(false));
        let bytes = load.commands.iter().map(|step| bytes(&step.command)).sum();
        let (link, flag) = (link.clone(), sent.clone());
        let waiting = Waiting { load, link, terms: terms.clone(), bytes, fate, sent: flag };
        let begin = {
            let mut queue = node.line.queue();
            queue.waiting.push_back(waiting);
            !std::mem::replace(&mut queue.flying, true)
        };
        if begin {
            node.line.runtime.spawn(fly(node.clone()));
        }
        let lost = || Fate::Lost(RedisError::sent(&node.address, "no answer in time"));
        let is_sent = || sent.load(Ordering::Acquire);
        match timeout_at(terms.deadline, &mut answered).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(_)) if is_sent() => lost(),
            Ok(Err(_)) => Fate::Unsent,
            Err(_) => {
                // Under the lock: from here on it is not taken any more.
                let _queue = node.line.queue();
                answered.close();
                if is_sent() { lost() } else { Fate::Unsent }
            }
        }
    }

    /// What goes out next, over one link; `None`: nothing waits, and the flight is over.
    fn next(&self) -> Option<Vec<Waiting>> {
        let mut queue = self.queue();
        let (mut batch, mut commands, mut bytes) = (Vec::<Waiting>::new(), 0, 0);
        while let Some(next) = queue.waiting.pop_front() {
            if next.fate.is_closed() {
                continue;
            }
            commands += next.load.commands.len();
            bytes += next.bytes;
            let fits = commands <= COMMANDS && bytes <= BYTES;
            if let Some(first) = batch.first()
                && !(fits && first.link.is(&next.link))
            {
                queue.waiting.push_front(next);
                break;
            }
            next.sent.store(true, Ordering::Release);
            batch.push(next);
        }
        queue.flying = !batch.is_empty();
        (!batch.is_empty()).then_some(batch)
    }
}

/// The line is free again however its flight ends; what waits then is tried anew by its callers.
struct Flight {
    node: Arc<Node>,
    over: bool,
}

impl Drop for Flight {
    fn drop(&mut self) {
        if !self.over {
            let mut queue = self.node.line.queue();
            queue.flying = false;
            queue.waiting.clear();
        }
    }
}

async fn fly(node: Arc<Node>) {
    let mut flight = Flight { node, over: false };
    while let Some(batch) = flight.node.line.next() {
        carry(&flight.node, batch).await;
    }
    flight.over = true;
}

fn bytes(command: &Cmd) -> usize {
    let argument = |argument: Arg<&[u8]>| match argument {
        Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    };
    command.args_iter().map(argument).sum()
}

async fn carry(node: &Node, batch: Vec<Waiting>) {
    let Some(first) = batch.first() else { return };
    let (link, terms, name) = (first.link.clone(), first.terms.clone(), first.load.name);
    if link.is_closed() {
        batch.into_iter().for_each(|waiting| drop(waiting.fate.send(Fate::Unsent)));
        return;
    }
    let calls = batch.iter().map(|waiting| waiting.load.calls).sum();
    let deadlines = batch.iter().map(|waiting| waiting.terms.deadline);
    let deadline = deadlines.max().unwrap_or(terms.deadline);
    let mut steps = Vec::new();
    let mut callers = Vec::with_capacity(batch.len());
    for waiting in batch {
        callers.push((waiting.load.commands.len(), waiting.fate));
        steps.extend(waiting.load.commands);
    }
    let started = Instant::now();
    node.count();
    let answers = timeout_at(deadline, run(&link, steps)).await;
    if let Some(observer) = &terms.observer {
        let failed = !matches!(answers, Ok(Ok(_)));
        observer.flushed(&Flush { name, calls, elapsed: started.elapsed(), failed });
    }
    let error = match answers {
        Ok(Ok(answers)) => return hand_out(callers, answers),
        Ok(Err(error)) => {
            node.discard(&link);
            RedisError::sent(&node.address, error)
        }
        Err(_) => {
            // The network may have dropped the connection without a word.
            if started.elapsed() >= terms.patience {
                node.discard(&link);
            }
            RedisError::sent(&node.address, "no answer in time")
        }
    };
    for (_, fate) in callers {
        let _ = fate.send(Fate::Lost(error.clone()));
    }
}

/// Runs the steps, after loading each script that this connection has not loaded yet. Answers
/// are those of the steps; one whose script could not be loaded answers with the reason.
async fn run(link: &Link, steps: Vec<Step>) -> Result<Vec<Value>, ::redis::RedisError> {
    let mut absent: Vec<Script> = Vec::new();
    {
        let known = link.scripts();
        for script in steps.iter().filter_map(|step| step.script.as_ref()) {
            let is_new = absent.iter().all(|other| other.sha1() != script.sha1());
            if is_new && !known.contains(script.sha1()) {
                absent.push(script.clone());
            }
        }
    }
    let mut commands: Vec<Cmd> = absent.iter().map(Script::load).collect();
    let (scripts, called): (Vec<_>, Vec<_>) =
        steps.into_iter().map(|step| (step.script, step.command)).unzip();
    commands.extend(called);
    let mut answers = exchange(link, commands).await?.into_iter();
    let mut known = link.scripts();
    let mut failed: HashMap<&str, ServerError> = HashMap::new();
    for (script, answer) in absent.iter().zip(answers.by_ref()) {
        match answer {
            Value::ServerError(error) => drop(failed.insert(script.sha1(), error)),
            _ => drop(known.insert(script.sha1().to_owned())),
        }
    }
    let judged = scripts.into_iter().zip(answers).map(|(script, answer)| {
        let (Some(script), Value::ServerError(error)) = (&script, &answer) else { return answer };
        if error.code() != UNKNOWN_SCRIPT {
            return answer;
        }
        // It was forgotten in between: the next who calls it loads it again.
        known.remove(script.sha1());
        failed.get(script.sha1()).cloned().map_or(answer, Value::ServerError)
    });
    Ok(judged.collect())
}

async fn exchange(link: &Link, mut commands: Vec<Cmd>) -> Result<Vec<Value>, ::redis::RedisError> {
    let mut connection = link.connection.clone();
    if commands.len() == 1
        && let Some(only) = commands.pop()
    {
        return Ok(vec![connection.send_packed_command(&only).await?]);
    }
    let mut pipeline = Pipeline::with_capacity(commands.len());
    for command in commands {
        pipeline.add_command(command);
    }
    connection.send_packed_commands(&pipeline, 0, pipeline.len()).await
}

fn hand_out(callers: Vec<(usize, oneshot::Sender<Fate>)>, answers: Vec<Value>) {
    let mut answers = answers.into_iter();
    for (count, fate) in callers {
        let _ = fate.send(Fate::Answered(answers.by_ref().take(count).collect()));
    }
}
