//! Action results: one key each.

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::seconds;
use crate::action_cache::{ActionCache, ActionKey};
use crate::error::StoreError;
use crate::redis::{Call, Redis};

/// Largest result that is kept.
const MAX_RESULT: u64 = 64 << 20;

#[derive(Debug, Clone)]
pub struct RedisActionCacheOptions {
    /// A result that was not used for so long is forgotten.
    pub keep: Duration,
}

impl Default for RedisActionCacheOptions {
    fn default() -> Self {
        Self { keep: Duration::from_secs(30 * 24 * 3600) }
    }
}

/// An action cache in Redis. Each call is one round trip.
pub struct RedisActionCache {
    redis: Redis,
    keep: u64,
}

impl RedisActionCache {
    pub fn new(redis: Redis, options: RedisActionCacheOptions) -> Self {
        Self { redis, keep: seconds(options.keep).max(1) }
    }

    /// The instance name comes last: it may hold anything.
    fn key(&self, key: &ActionKey) -> Vec<u8> {
        let mut rest = Vec::with_capacity(44 + key.instance.len());
        rest.extend_from_slice(b"ac:");
        rest.push(key.action.function as u8);
        rest.extend_from_slice(&key.action.hash);
        rest.extend_from_slice(&key.action.size.to_be_bytes());
        rest.extend_from_slice(key.instance.as_bytes());
        self.redis.lone_key(rest)
    }
}

#[async_trait]
impl ActionCache for RedisActionCache {
    async fn get(&self, key: &ActionKey) -> Result<Option<Bytes>, StoreError> {
        let get = Call::command("GETEX", self.key(key)).arg("EX").arg(self.keep);
        let result: Option<Vec<u8>> = self.redis.query(get.idempotent()).await?;
        Ok(result.map(Bytes::from))
    }

    async fn put(&self, key: &ActionKey, result: Bytes) -> Result<(), StoreError> {
        if result.len() as u64 > MAX_RESULT {
            return Err(StoreError::TooLarge { size: result.len() as u64, limit: MAX_RESULT });
        }
        let set = Call::command("SET", self.key(key)).arg(&result[..]).arg("EX").arg(self.keep);
        self.redis.run(set.idempotent()).await?;
        Ok(())
    }

    fn failures(&self) -> u64 {
        self.redis.stats().changes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::redis::tests::{alone, cluster};
    use crate::stores::contract::actions::{key, suite};

    #[tokio::test]
    async fn a_server_keeps_the_contract() {
        let Some((_server, redis)) = alone().await else { return };
        suite(&RedisActionCache::new(redis, RedisActionCacheOptions::default())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_cluster_keeps_the_contract() {
        let Some((_cluster, redis)) = cluster().await else { return };
        suite(&RedisActionCache::new(redis, RedisActionCacheOptions::default())).await;
    }

    #[tokio::test]
    async fn each_call_is_one_round_trip_and_use_prolongs_the_life() {
        let Some((server, redis)) = alone().await else { return };
        let cache = |seconds| {
            let keep = Duration::from_secs(seconds);
            RedisActionCache::new(redis.clone(), RedisActionCacheOptions { keep })
        };
        let key = key("", "a");
        let before = redis.round_trips();
        cache(50).put(&key, Bytes::from_static(b"result")).await.unwrap();
        assert_eq!(redis.round_trips() - before, 1);
        let left = || -> u64 {
            let script = "return redis.call('TTL', redis.call('RANDOMKEY'))";
            server.command(&["EVAL", script, "0"]).parse().unwrap()
        };
        assert!((40..=50).contains(&left()), "{}", left());
        let before = redis.round_trips();
        assert!(cache(5000).get(&key).await.unwrap().is_some());
        assert_eq!(redis.round_trips() - before, 1);
        assert!((4900..=5000).contains(&left()), "{}", left());
    }

    #[tokio::test]
    async fn results_survive_a_restart() {
        let Some((mut server, redis)) = alone().await else { return };
        let cache = RedisActionCache::new(redis, RedisActionCacheOptions::default());
        let result = Bytes::from_static(b"result");
        cache.put(&key("", "a"), result.clone()).await.unwrap();
        let failures = cache.failures();
        server.kill();
        server.restart();
        assert_eq!(cache.get(&key("", "a")).await.unwrap(), Some(result));
        assert_eq!(cache.failures(), failures + 1);
        server.kill();
        let down = cache.get(&key("", "a")).await;
        assert!(matches!(down, Err(StoreError::Unavailable(_))), "{down:?}");
    }
}
