//! The pipeline to one server: calls that come while earlier ones are on their way go out together as soon
//! as those are answered. With nothing on its way, a call goes out at once.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use ::redis::{Arg, Cmd, Value};
use tokio::time::{Instant, timeout_at};

use super::address::Address;
use super::error::RedisError;
pub(super) use super::exchange::Step;
use super::exchange::run;
use super::link::Link;
use super::observe::{Counts, Flush};
use super::terms::Terms;
use crate::batch::{Batcher, Limits, Rules};
use crate::error::Reason;

/// Bytes of arguments that go out together, one flight at a time. Callers bound what waits: each
/// waits until its answer is there, or its time is over.
const LIMITS: Limits = Limits { batch: 1 << 20, waiting: None, flights: 1 };
/// What a command weighs beside its arguments: some 1,000 short ones go out together.
const COMMAND: usize = 1 << 10;

/// Commands of one caller, which stay together and in order.
pub(super) struct Load {
    /// Name of the first script or command.
    pub(super) name: &'static str,
    pub(super) calls: usize,
    pub(super) commands: Vec<Step>,
}

impl Load {
    fn weight(&self) -> usize {
        self.commands.iter().map(|step| COMMAND + bytes(&step.command)).sum()
    }
}

fn bytes(command: &Cmd) -> usize {
    let argument = |argument: Arg<&[u8]>| match argument {
        Arg::Simple(bytes) => bytes.len(),
        _ => 0,
    };
    command.args_iter().map(argument).sum()
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

/// Sends loads to one server, and discards connections that turn out to be of no use.
pub(super) struct Pipeline {
    batcher: Batcher<Waiting, Fate>,
    address: Address,
}

struct Waiting {
    load: Load,
    link: Link,
    terms: Terms,
    departure: Arc<Departure>,
}

/// Whether a load was sent or withdrawn. The first of the two calls decides for good.
#[derive(Default)]
struct Departure(AtomicU8);

impl Departure {
    const SENT: u8 = 1;
    const WITHDRAWN: u8 = 2;

    fn decide(&self, what: u8) -> bool {
        self.0.compare_exchange(0, what, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }
}

impl Pipeline {
    /// Must be called within a tokio runtime, which has to outlive the pipeline: its tasks run there.
    pub(super) fn new(address: Address, counts: Arc<Counts>) -> Self {
        let rules = Rules::from(LIMITS).alike(|one: &Waiting, other| one.link.is(&other.link));
        let server = address.clone();
        let batcher = Batcher::new(rules, move |batch: Vec<Waiting>| {
            let (server, counts) = (server.clone(), counts.clone());
            Box::pin(async move { depart(&server, &counts, batch).await })
        });
        Self { batcher, address }
    }

    /// Sends the load over the link as soon as nothing else is on its way. Ends at the deadline.
    pub(super) async fn send(&self, link: &Link, load: Load, terms: &Terms) -> Fate {
        let departure = Arc::<Departure>::default();
        let weight = load.weight();
        let (link, terms) = (link.clone(), terms.clone());
        let waiting = Waiting {
            load,
            link: link.clone(),
            terms: terms.clone(),
            departure: departure.clone(),
        };
        let began = Instant::now();
        match timeout_at(terms.deadline, self.batcher.call(waiting, weight)).await {
            Ok(Ok(fate)) => fate,
            Ok(Err(_)) | Err(_) if departure.decide(Departure::WITHDRAWN) => Fate::Unsent,
            Ok(Err(_)) | Err(_) => {
                discard_if_silent(&link, began, &terms);
                Fate::Lost(RedisError::sent(&self.address, "no answer in time"))
            }
        }
    }
}

/// The network may have dropped the connection without a word.
fn discard_if_silent(link: &Link, began: Instant, terms: &Terms) {
    if began.elapsed() >= terms.patience {
        link.discard();
    }
}

/// Sends what was not withdrawn, all over the same link, and says what became of each.
async fn depart(address: &Address, counts: &Counts, batch: Vec<Waiting>) -> Vec<Fate> {
    let Some(first) = batch.first() else { return Vec::new() };
    let (link, terms, name) = (first.link.clone(), first.terms.clone(), first.load.name);
    let deadline = batch.iter().map(|waiting| waiting.terms.deadline).max();
    let (mut calls, mut steps) = (0, Vec::new());
    // How many commands of each went out; `None`: it stays here.
    let mut sent = Vec::with_capacity(batch.len());
    for waiting in batch {
        let goes = !link.is_closed() && waiting.departure.decide(Departure::SENT);
        sent.push(goes.then_some(waiting.load.commands.len()));
        if goes {
            calls += waiting.load.calls;
            steps.extend(waiting.load.commands);
        }
    }
    if steps.is_empty() {
        return sent.into_iter().map(|_| Fate::Unsent).collect();
    }
    let began = Instant::now();
    counts.round_trips.fetch_add(1, Ordering::Relaxed);
    let answers = timeout_at(deadline.unwrap_or(terms.deadline), run(&link, steps)).await;
    if let Some(observer) = &terms.observer {
        let failed = !matches!(answers, Ok(Ok(_)));
        observer.flushed(&Flush { name, calls, elapsed: began.elapsed(), failed });
    }
    let error = match answers {
        Ok(Ok(answers)) => return hand_out(sent, answers),
        Ok(Err(error)) => {
            link.discard();
            RedisError::sent(address, Reason::of(error))
        }
        Err(_) => {
            discard_if_silent(&link, began, &terms);
            RedisError::sent(address, "no answer in time")
        }
    };
    let lost = |sent: Option<usize>| sent.map_or(Fate::Unsent, |_| Fate::Lost(error.clone()));
    sent.into_iter().map(lost).collect()
}

fn hand_out(sent: Vec<Option<usize>>, answers: Vec<Value>) -> Vec<Fate> {
    let mut answers = answers.into_iter();
    let mut fate = |sent| match sent {
        Some(count) => Fate::Answered(answers.by_ref().take(count).collect()),
        None => Fate::Unsent,
    };
    sent.into_iter().map(&mut fate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_sent_or_withdrawn_and_never_both() {
        let departure = Departure::default();
        assert!(departure.decide(Departure::SENT) && !departure.decide(Departure::WITHDRAWN));
        let departure = Departure::default();
        assert!(departure.decide(Departure::WITHDRAWN) && !departure.decide(Departure::SENT));
    }

    #[test]
    fn each_caller_gets_the_answers_to_its_own_commands() {
        let answers = (0..3).map(Value::Int).collect();
        let fates = hand_out(vec![Some(1), None, Some(2), Some(0)], answers);
        let counts: Vec<_> = fates
            .iter()
            .map(|fate| match fate {
                Fate::Answered(answers) => answers.clone(),
                Fate::Unsent => vec![Value::Nil],
                Fate::Lost(_) => Vec::new(),
            })
            .collect();
        let expected =
            [vec![Value::Int(0)], vec![Value::Nil], vec![Value::Int(1), Value::Int(2)], Vec::new()];
        assert_eq!(counts, expected);
    }
}
