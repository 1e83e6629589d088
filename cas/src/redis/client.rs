use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use ::redis::{FromRedisValue, Value};
use futures_util::future::join_all;
use kiln_net::causes::chain;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::address::Address;
use super::config::RedisConfig;
use super::error::RedisError;
use super::node::{Node, pause};
use super::observe::{Counts, RedisStats};
use super::round::{After, Pending, Route, Verdict, flush};
use super::script::Call;
use super::subscription::{PING, Subscription};
use super::terms::Terms;
use super::topology::Topology;
use crate::error::Reason;

/// Times that a call goes out at most, to the first node and to those that it names.
const MAX_ROUNDS: u32 = 32;

/// A Redis server or cluster. Clones share its connections.
#[derive(Clone)]
pub struct Redis {
    inner: Arc<RedisInner>,
}

struct RedisInner {
    config: RedisConfig,
    topology: Arc<Topology>,
    counts: Arc<Counts>,
}

impl Redis {
    /// Connects, learns whether it is a cluster, and refuses a server that would lose data.
    /// While nobody answers it tries again for [`RedisConfig::wait`].
    pub async fn connect(config: RedisConfig) -> Result<Self, RedisError> {
        config.validate()?;
        let deadline = Instant::now() + config.wait;
        let counts = Arc::<Counts>::default();
        let topology = Arc::new(Topology::new(config.clone(), counts.clone())?);
        let mut failures = 0;
        let warnings = loop {
            match topology.discover().await {
                Ok(warnings) => break warnings,
                Err(error) if error.is_transient() && Instant::now() < deadline => {
                    tracing::info!(error = %chain(&error), "waiting for Redis");
                    failures += 1;
                    sleep_until(deadline.min(Instant::now() + pause(failures))).await;
                }
                Err(error) => return Err(hint(error, config.tls.is_some())),
            }
        };
        for warning in warnings {
            tracing::warn!(redis = topology.names(), "{warning}");
        }
        Ok(Self { inner: Arc::new(RedisInner { config, topology, counts }) })
    }

    /// The key `rest` among those that a script may use together: all with the same `tag` are
    /// in one slot of a cluster.
    pub fn key(&self, tag: &str, rest: impl AsRef<[u8]>) -> Vec<u8> {
        let mut key = format!("{{{}:{tag}}}:", self.inner.config.prefix).into_bytes();
        key.extend_from_slice(rest.as_ref());
        key
    }

    /// A key of its own, for calls with a single key.
    pub fn lone_key(&self, rest: impl AsRef<[u8]>) -> Vec<u8> {
        let mut key = format!("{}:", self.inner.config.prefix).into_bytes();
        key.extend_from_slice(rest.as_ref());
        key
    }

    /// A channel's full name.
    pub fn channel(&self, name: &str) -> String {
        format!("{}:{name}", self.inner.config.prefix)
    }

    /// Pipelines that were sent since the start, each a round trip to one server.
    pub fn round_trips(&self) -> u64 {
        self.stats().round_trips
    }

    pub fn stats(&self) -> RedisStats {
        self.inner.counts.snapshot()
    }

    pub async fn run(&self, call: Call) -> Result<Value, RedisError> {
        let answer = self.run_many(vec![call]).await.pop();
        answer.unwrap_or_else(|| Err(unanswered(&self.inner.topology)))
    }

    /// Runs a call whose answer is a `T`.
    pub async fn query<T: FromRedisValue>(&self, call: Call) -> Result<T, RedisError> {
        let name = call.name;
        decode(name, self.run(call).await?)
    }

    /// Runs all, in any order: those for one server as one pipeline, the servers at once.
    /// Answers are in the order of the calls.
    pub async fn run_many(&self, calls: Vec<Call>) -> Vec<Result<Value, RedisError>> {
        let config = &self.inner.config;
        let mut deadline = Instant::now() + config.timeout;
        // A call that began late in its time must not tear down a connection that works.
        let patience = config.timeout / 2;
        let mut terms = Terms { deadline, patience, observer: config.observer.clone() };
        let mut batch = Batch::new(calls);
        let mut is_extended = false;
        for round in 0..MAX_ROUNDS {
            let age = self.inner.topology.age();
            let Some(after) = batch.round(&self.inner.topology, &terms).await else { break };
            if batch.lacks_script && !std::mem::replace(&mut is_extended, true) {
                // A busy server took the time to find out that it lacks a script: the calls begin
                // anew, with the script.
                deadline = Instant::now() + config.timeout;
                terms.deadline = deadline;
            }
            let resume = Instant::now() + pause(round);
            if Instant::now() >= deadline || (after == After::Pause && resume >= deadline) {
                break;
            }
            if after >= After::Refresh {
                // When it takes too long, the calls end with what they know.
                let _ = timeout_at(deadline, self.inner.topology.refresh(age)).await;
            }
            if after == After::Pause {
                sleep_until(resume).await;
            }
        }
        batch.finish(|| unanswered(&self.inner.topology))
    }

    /// Runs all as [`Redis::run_many`] does; the first error is the error of all.
    pub async fn query_many<T: FromRedisValue>(
        &self,
        calls: Vec<Call>,
    ) -> Result<Vec<T>, RedisError> {
        let names: Vec<_> = calls.iter().map(|call| call.name).collect();
        let answers = self.run_many(calls).await;
        names.into_iter().zip(answers).map(|(name, answer)| decode(name, answer?)).collect()
    }

    /// Sends `payload` to all who subscribed to the channel (its full name) at this moment.
    pub async fn publish(&self, channel: &str, payload: &[u8]) -> Result<(), RedisError> {
        let publish = Call::anywhere("PUBLISH").arg(channel).arg(payload);
        self.run(publish).await.map(drop)
    }

    /// Messages to these channels (full names) from now on.
    pub async fn subscribe(&self, channels: Vec<String>) -> Result<Subscription, RedisError> {
        self.subscribe_patiently(channels, PING).await
    }

    /// Subscribes as [`Redis::subscribe`] does, for those whom late news harm little: only after a silence
    /// of `ping` is the server asked whether it is still there.
    pub async fn subscribe_patiently(
        &self,
        channels: Vec<String>,
        ping: Duration,
    ) -> Result<Subscription, RedisError> {
        let RedisInner { config, topology, .. } = &*self.inner;
        Subscription::start(topology.clone(), config.timeout, channels, ping).await
    }
}

/// An answer as a `T`. Errors: `Script`, when it is none.
fn decode<T: FromRedisValue>(name: &'static str, value: Value) -> Result<T, RedisError> {
    ::redis::from_redis_value(value).map_err(|error| {
        let message = format!("the answer is not understood: {error}");
        RedisError::Script { name, reason: Reason::caused(message, error) }
    })
}

fn unanswered(topology: &Topology) -> RedisError {
    RedisError::Unavailable {
        address: topology.names(),
        reason: "no answer in time".into(),
        sent: false,
    }
}

/// Says what to do about a server that is not there at the start, or not as the URL (`tls`) has it.
fn hint(error: RedisError, tls: bool) -> RedisError {
    match error {
        RedisError::Unavailable { address, reason, sent } => {
            let message = reason.to_string();
            let hint = match tls {
                true if message.contains("UnknownIssuer") => {
                    "set redis.ca to a PEM file with the authority of its certificate"
                }
                true if message.contains("invalid peer certificate") => {
                    "renew its certificate, or write the URL with a name that is in it"
                }
                true => "start it, or correct the Redis URL (redis:// where it does not speak TLS)",
                false => "start it, or correct the Redis URL (rediss:// where it speaks TLS)",
            };
            let reason = Reason::caused(format!("{message}; {hint}"), reason);
            RedisError::Unavailable { address, reason, sent }
        }
        other => other,
    }
}

/// Calls that were made together.
struct Batch {
    pending: Vec<Pending>,
    answers: Vec<Option<Result<Value, RedisError>>>,
    /// A server did not know a script in the latest round: it ran nothing, and is sent it next.
    lacks_script: bool,
}

impl Batch {
    fn new(calls: Vec<Call>) -> Self {
        let mut answers: Vec<_> = calls.iter().map(|_| None).collect();
        let mut pending = Vec::with_capacity(calls.len());
        for (index, call) in calls.into_iter().enumerate() {
            if call.scattered {
                let reason = "its keys are in different slots".into();
                answers[index] = Some(Err(RedisError::Script { name: call.name, reason }));
                continue;
            }
            pending.push(Pending { index, call, route: Route::Slot, error: None });
        }
        Self { pending, answers, lacks_script: false }
    }

    /// Sends what is pending. `None`: nothing is pending any more.
    async fn round(&mut self, topology: &Topology, terms: &Terms) -> Option<After> {
        self.lacks_script = false;
        let groups = self.group(topology);
        let flushes = groups.into_iter().map(|(node, calls)| flush(node, calls, terms.clone()));
        let mut flushes: Vec<_> = flushes.collect();
        let judged = match flushes.len() {
            1 => match flushes.pop() {
                Some(only) => vec![only.await],
                None => Vec::new(),
            },
            _ => join_all(flushes).await,
        };
        let mut after = if self.pending.is_empty() { None } else { Some(After::Pause) };
        for (mut call, verdict) in judged.into_iter().flatten() {
            match verdict {
                Verdict::Done(answer) => self.answers[call.index] = Some(answer),
                Verdict::Again { error, route, after: next } => {
                    self.lacks_script |= next == After::Load;
                    (call.error, call.route) = (Some(error), route);
                    after = after.max(Some(next));
                    self.pending.push(call);
                }
            }
        }
        after
    }

    /// Takes what is pending, by node; what has no node for now stays.
    fn group(&mut self, topology: &Topology) -> Vec<(Arc<Node>, Vec<Pending>)> {
        let mut groups: HashMap<Address, (Arc<Node>, Vec<Pending>)> = HashMap::new();
        for mut call in std::mem::take(&mut self.pending) {
            let node = match &call.route {
                Route::Slot => topology.master(call.call.slot),
                Route::Moved(there) | Route::Ask(there) => topology.node(there),
            };
            match node {
                Ok(node) => {
                    let group = groups.entry(node.address.clone());
                    group.or_insert_with(|| (node, Vec::new())).1.push(call);
                }
                Err(error) => {
                    call.error = Some(error);
                    call.route = Route::Slot;
                    self.pending.push(call);
                }
            }
        }
        groups.into_values().collect()
    }

    fn finish(self, unanswered: impl Fn() -> RedisError) -> Vec<Result<Value, RedisError>> {
        let Self { pending, mut answers, .. } = self;
        for call in pending {
            answers[call.index] = call.error.map(Err);
        }
        answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unanswered()))).collect()
    }
}
