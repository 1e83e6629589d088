//! Against real servers.

mod cluster;
mod faults;
mod functions;
mod single;

use kiln_test_servers::redis::{RedisCluster, RedisServer};

use super::{Redis, RedisConfig, Script};

pub(crate) fn config(url: &str) -> RedisConfig {
    RedisConfig::from_url(url).unwrap()
}

pub(crate) async fn connect(url: &str) -> Redis {
    Redis::connect(config(url)).await.unwrap()
}

/// A server and a connection to it; `None`: no server can be had here.
pub(crate) async fn alone() -> Option<(RedisServer, Redis)> {
    let server = RedisServer::start()?;
    let redis = connect(&server.url()).await;
    Some((server, redis))
}

pub(crate) async fn cluster() -> Option<(RedisCluster, Redis)> {
    let cluster = RedisCluster::start()?;
    let redis = connect(&cluster.url()).await;
    Some((cluster, redis))
}

/// Adds to a counter; must not run twice.
fn add() -> Script {
    Script::new("test.add", "return redis.call('INCRBY', KEYS[1], ARGV[1])")
}

/// The same as a function. It also says how often it was called since it was set up.
fn add_and_count(name: &str) -> Script {
    let definitions = format!(
        "-- {name}\nlocal calls = 0\nlocal function run(keys, arguments) calls = calls + 1 \
         return {{ redis.call('INCRBY', keys[1], arguments[1]), calls }} end\n"
    );
    Script::function("test.add", &definitions, "run")
}

/// Sets a key.
fn set() -> Script {
    Script::idempotent("test.set", "redis.call('SET', KEYS[1], ARGV[1]) return 'set'")
}
