//! What holds on a cluster, also while its slots move.

use kiln_test_servers::redis::{RedisCluster, RedisServer};

use super::super::slots::slot;
use super::super::{Call, Event, Redis, RedisConfig, RedisError, Secret, TlsFiles};
use super::{add, cluster, config, connect};

fn calls(redis: &Redis, count: usize) -> Vec<Call> {
    let add = add();
    let key = |number: usize| redis.key(&number.to_string(), "sum");
    (0..count).map(|number| add.call(&[key(number)]).arg(number)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_calls_are_one_round_trip_for_each_node() {
    let Some((cluster, redis)) = cluster().await else { return };
    redis.query_many::<usize>(calls(&redis, 300)).await.unwrap();
    let before = redis.round_trips();
    let sums: Vec<usize> = redis.query_many(calls(&redis, 300)).await.unwrap();
    assert_eq!(redis.round_trips() - before, RedisCluster::MASTERS as u64);
    assert_eq!(sums, (0..300).map(|number| 2 * number).collect::<Vec<_>>());
    for master in &cluster.masters {
        let keys: usize = master.command(&["DBSIZE"]).parse().unwrap();
        assert!(keys > 50, "{keys} of 300 keys on one of three nodes");
    }
    // The address of one node is enough, and the URL need not say that the node is one of a cluster.
    let found = connect(&cluster.masters[1].url()).await;
    let sums: Vec<usize> = found.query_many(calls(&found, 300)).await.unwrap();
    assert_eq!(sums, (0..300).map(|number| 3 * number).collect::<Vec<_>>());
    let database = config(&format!("{}/1", cluster.masters[1].url()));
    let refused = Redis::connect(database).await.err().unwrap();
    assert!(matches!(refused, RedisError::WrongServer { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_is_spoken_to_with_tls_and_the_password() {
    let Some(cluster) = RedisCluster::start_secured() else { return };
    let tls = cluster.masters[0].tls().unwrap();
    let secured = RedisConfig {
        password: Some(Secret::new(&tls.password)),
        tls: Some(TlsFiles {
            ca: Some(tls.ca.clone()),
            client: Some((tls.client_certificate.clone(), tls.client_key.clone())),
        }),
        // The other nodes are learned from it.
        ..config(&cluster.masters[1].url())
    };
    let redis = Redis::connect(secured.clone()).await.unwrap();
    let sums: Vec<usize> = redis.query_many(calls(&redis, 300)).await.unwrap();
    assert_eq!(sums, (0..300).collect::<Vec<_>>());
    for master in &cluster.masters {
        let keys: usize = master.command(&["DBSIZE"]).parse().unwrap();
        assert!(keys > 50, "{keys} of 300 keys on one of three nodes");
        // A client that is connected by TLS must have learned only the nodes' ports with TLS.
        let clients = master.command(&["CLIENT", "LIST", "TYPE", "NORMAL"]);
        let laddr = format!("laddr=127.0.0.1:{} ", master.port());
        assert!(clients.contains(&laddr), "{clients}");
    }
    let mut subscription = redis.subscribe(vec!["c".to_owned()]).await.unwrap();
    redis.publish("c", b"message").await.unwrap();
    assert!(matches!(subscription.next().await, Some(Event::Message { .. })));
    let named = Redis::connect(RedisConfig {
        addresses: config(&cluster.url()).addresses,
        ..secured.clone()
    });
    assert_eq!(
        named.await.unwrap().query_many::<usize>(calls(&redis, 3)).await.unwrap(),
        [0, 2, 4]
    );
    let unknown = RedisConfig { password: None, ..secured };
    let refused = Redis::connect(unknown).await.err().unwrap();
    assert!(matches!(refused, RedisError::Auth { .. }), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_reach_subscribers_at_any_node() {
    let Some((cluster, redis)) = cluster().await else { return };
    for master in &cluster.masters {
        let other = connect(&master.url()).await;
        let mut subscription = other.subscribe(vec!["c".to_owned()]).await.unwrap();
        redis.publish("c", b"message").await.unwrap();
        let event = subscription.next().await;
        assert!(matches!(event, Some(Event::Message { .. })), "{event:?}");
    }
}

fn id(node: &RedisServer) -> String {
    node.command(&["CLUSTER", "MYID"])
}

/// Whether a node that answers so to `CLUSTER NODES` knows that this slot is at the node of this id.
fn has_slot(nodes: &str, id: &str, slot: u16) -> bool {
    let holder = nodes.lines().find(|line| line.starts_with(id)).unwrap_or_default();
    holder.split_whitespace().skip(8).any(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let bounds = (first.parse::<u16>(), last.parse::<u16>());
        matches!(bounds, (Ok(first), Ok(last)) if (first..=last).contains(&slot))
    })
}

/// A slot moves while calls go on: before the move, during it (when some keys are at each node), and after
/// it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_follow_a_slot_that_moves() {
    let Some((cluster, redis)) = cluster().await else { return };
    let (here, there) = (redis.key("t", "here"), redis.key("t", "there"));
    let slot_of = slot(&here);
    let number = slot_of.to_string();
    let owner = usize::from(slot_of) * 3 / 16384;
    let (from, to) = (&cluster.masters[owner], &cluster.masters[(owner + 1) % 3]);
    let sum = async |key: &[u8]| -> u32 {
        redis.query(add().call(&[key.to_vec()]).arg(1)).await.unwrap()
    };
    assert_eq!(sum(&here).await, 1);
    let set_slot = |node: &RedisServer, words: &[&str]| {
        assert_eq!(node.command(&[&["CLUSTER", "SETSLOT", &number], words].concat()), "OK");
    };
    set_slot(to, &["IMPORTING", &id(from)]);
    set_slot(from, &["MIGRATING", &id(to)]);
    // One key is still at the old node. The other does not exist there, so the call makes it at the new node.
    for round in 2..4 {
        assert_eq!(sum(&here).await, round);
        assert_eq!(sum(&there).await, round - 1);
    }
    assert_eq!(from.command(&["DBSIZE"]), "1");
    assert_eq!(to.command(&["DBSIZE"]), "1");
    let port = to.port().to_string();
    let here_text = String::from_utf8(here.clone()).unwrap();
    assert_eq!(from.command(&["MIGRATE", "127.0.0.1", &port, &here_text, "0", "5000"]), "OK");
    for node in [to, from] {
        set_slot(node, &["NODE", &id(to)]);
    }
    // The third node hears of it from the others. Until then whoever asks that one where slots are is sent on again.
    for node in &cluster.masters {
        node.wait_until(&["CLUSTER", "NODES"], |nodes| has_slot(nodes, &id(to), slot_of));
    }
    assert_eq!(sum(&here).await, 4);
    assert_eq!(sum(&there).await, 3);
    let before = redis.round_trips();
    assert_eq!(sum(&here).await, 5);
    assert_eq!(redis.round_trips() - before, 1, "the new place is known");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_go_on_after_a_master_failed() {
    let Some(mut cluster) = RedisCluster::start_with(3) else { return };
    let redis = connect(&cluster.url()).await;
    redis.query_many::<usize>(calls(&redis, 60)).await.unwrap();
    let mut subscription = redis.subscribe(vec!["c".to_owned()]).await.unwrap();
    for (master, replica) in cluster.masters.iter().zip(&cluster.replicas) {
        let keys = master.command(&["DBSIZE"]);
        replica.wait_until(&["DBSIZE"], |size| size == keys);
    }
    // This is the master to which the subscription is connected.
    cluster.fail_over(0);
    let sums: Vec<usize> = redis.query_many(calls(&redis, 60)).await.unwrap();
    assert_eq!(sums, (0..60).map(|number| 2 * number).collect::<Vec<_>>());
    assert_eq!(subscription.next().await, Some(Event::Reconnected));
    redis.publish("c", b"after").await.unwrap();
    assert!(matches!(subscription.next().await, Some(Event::Message { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_replica_that_was_spoken_to_and_takes_over_counts_as_a_change() {
    let Some(mut cluster) = RedisCluster::start_with(1) else { return };
    // A replica lists the slots as any other node does.
    let redis = connect(&cluster.replicas[0].url()).await;
    redis.query_many::<usize>(calls(&redis, 60)).await.unwrap();
    let keys = cluster.masters[0].command(&["DBSIZE"]);
    cluster.replicas[0].wait_until(&["DBSIZE"], |size| size == keys);
    let before = redis.stats().changes;
    redis.query_many::<usize>(calls(&redis, 60)).await.unwrap();
    assert_eq!(redis.stats().changes, before);
    cluster.fail_over(0);
    redis.query_many::<usize>(calls(&redis, 60)).await.unwrap();
    assert!(redis.stats().changes > before, "its last writes may be lost, and nobody is told");
}
