//! Calls of the script, and when it wants to be called again.

use std::time::Duration;

use bytes::Bytes;
use kiln_cas::redis::{Redis, RedisError, Script};
use tokio::time::Instant;

use crate::api::Unavailable;
use crate::queue::Limits;

use super::script::{Arguments, DEFINITIONS, FUNCTION, preamble};
use super::wire::fields::Garbled;
use super::wire::{Parser, Said};

/// Tag of the slot in which everything about the queue lies.
const TAG: &str = "queue";

pub struct Calls {
    redis: Redis,
    once: Script,
    /// The same script, for events that may be told twice.
    again: Script,
    key: Vec<u8>,
    preamble: Arguments,
    limits: Limits,
}

#[derive(Debug, thiserror::Error)]
pub enum CallError {
    #[error(transparent)]
    Redis(#[from] RedisError),
    #[error(transparent)]
    Garbled(#[from] Garbled),
}

impl From<CallError> for Unavailable {
    fn from(error: CallError) -> Self {
        Self(error.to_string())
    }
}

/// What one call of the script brought back.
#[derive(Default)]
pub struct Heard {
    pub said: Said,
    /// When something is due next.
    pub next: Option<Instant>,
}

impl Calls {
    pub fn new(redis: Redis, frontend: &str, limits: &Limits) -> Self {
        let once = Script::function("queue", DEFINITIONS, FUNCTION);
        Self {
            key: key(&redis),
            preamble: preamble(None, frontend, limits),
            again: once.repeatable(),
            once,
            limits: limits.clone(),
            redis,
        }
    }

    pub fn key(&self) -> &[u8] {
        &self.key
    }

    pub fn redis(&self) -> &Redis {
        &self.redis
    }

    /// The channel on which a frontend hears what concerns it.
    pub fn channel(&self, frontend: &str) -> String {
        format!("{}:f:{frontend}", String::from_utf8_lossy(&self.key))
    }

    /// Calls the script with an event that must not be told twice.
    pub async fn once(&self, arguments: Arguments) -> Result<Heard, CallError> {
        self.call(&self.once, arguments).await
    }

    /// Calls the script with an event that may be told twice: it is, when its answer is lost.
    pub async fn again(&self, arguments: Arguments) -> Result<Heard, CallError> {
        self.call(&self.again, arguments).await
    }

    async fn call(&self, script: &Script, arguments: Arguments) -> Result<Heard, CallError> {
        let mut call = script.call(&[self.key.as_slice()]);
        for argument in self.preamble.iter().chain(&arguments) {
            call = call.arg(argument.as_slice());
        }
        let (now, timer, said) = parse_answer(self.redis.query(call).await?)?;
        let wait = |timer: i64| Duration::from_millis(u64::try_from(timer - now).unwrap_or(0));
        let next = timer.map(|timer| Instant::now() + wait(timer));
        Ok(Heard { said: Parser { limits: &self.limits, now }.all(said)?, next })
    }

    /// Reads a message that came over this frontend's channel because another frontend's call
    /// concerned it.
    pub fn parse_message(&self, message: Bytes) -> Result<Said, Garbled> {
        Parser { limits: &self.limits, now: 0 }.all(message)
    }
}

fn key(redis: &Redis) -> Vec<u8> {
    let mut key = redis.key(TAG, "");
    // What the script appends begins with a colon of its own.
    key.pop();
    key
}

fn parse_answer(
    (now, timer, said): (String, String, Vec<u8>),
) -> Result<(i64, Option<i64>, Bytes), Garbled> {
    let now = now.parse().map_err(|_| Garbled(format!("the time {now:?}")))?;
    Ok((now, timer.parse().ok(), said.into()))
}
