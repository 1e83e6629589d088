//! Scripts that are functions of libraries, where the server has these.

use kiln_test_servers::redis::RedisServer;

use super::super::Redis;
use super::{add_and_count, alone, cluster, connect};

/// The sum, and how many calls the script knows of.
type SumAndCalls = (u64, u64);

async fn call(redis: &Redis, name: &str, number: u64) -> SumAndCalls {
    let key = redis.key("test", "counter");
    redis.query(add_and_count(name).call(&[&key]).arg(number)).await.unwrap()
}

#[tokio::test]
async fn a_function_is_set_up_once_and_loaded_again_when_the_server_forgot_it() {
    let Some((server, redis)) = alone().await else { return };
    assert_eq!([call(&redis, "one", 1).await, call(&redis, "one", 1).await], [(1, 1), (2, 2)]);
    let before = redis.round_trips();
    assert_eq!(call(&redis, "one", 1).await, (3, 3));
    assert_eq!(redis.round_trips() - before, 1);
    // The function is a part of Redis's data and is lost with them.
    assert_eq!(server.command(&["FUNCTION", "FLUSH"]), "OK");
    assert_eq!(call(&redis, "one", 1).await, (4, 1));
}

#[tokio::test]
async fn whoever_comes_second_finds_the_function_there() {
    let Some((server, redis)) = alone().await else { return };
    let other = connect(&server.url()).await;
    assert_eq!(call(&redis, "one", 1).await, (1, 1));
    let before = other.round_trips();
    assert_eq!(call(&other, "one", 1).await, (2, 2));
    assert_eq!(other.round_trips() - before, 1);
}

#[tokio::test]
async fn functions_of_two_versions_live_side_by_side() {
    let Some((server, redis)) = alone().await else { return };
    for round in 1..3 {
        assert_eq!(call(&redis, "old", 1).await, (2 * round - 1, round));
        assert_eq!(call(&redis, "new", 1).await, (2 * round, round));
    }
    let memory = server.command(&["INFO", "memory"]);
    assert!(memory.contains("number_of_libraries:2\r"), "{memory}");
}

#[tokio::test]
async fn a_server_without_functions_runs_scripts() {
    let arguments = ["--rename-command", "FUNCTION", "NONE"];
    let Some(server) = RedisServer::start_with(&arguments) else { return };
    let redis = connect(&server.url()).await;
    for round in 1..4 {
        assert_eq!(call(&redis, "one", 1).await, (round, 1), "set up anew for each call");
    }
    let before = redis.round_trips();
    assert_eq!(call(&redis, "other", 1).await, (4, 1));
    assert_eq!(redis.round_trips() - before, 1, "that is known of the connection");
}

#[tokio::test]
async fn a_user_who_may_load_none_runs_scripts() {
    let Some(server) = RedisServer::start() else { return };
    let rules = "ACL SETUSER kiln on nopass ~* &* +@all -function";
    assert_eq!(server.command(&rules.split(' ').collect::<Vec<_>>()), "OK");
    let redis = connect(&server.url().replace("redis://", "redis://kiln:any@")).await;
    assert_eq!([call(&redis, "one", 1).await, call(&redis, "one", 1).await], [(1, 1), (2, 1)]);
}

#[tokio::test]
async fn each_node_of_a_cluster_has_the_function() {
    let Some((_cluster, redis)) = cluster().await else { return };
    let calls = (0..200_u64).map(|number| {
        let key = redis.key(&format!("t{number}"), "counter");
        add_and_count("one").call(&[&key]).arg(number)
    });
    let answers: Vec<SumAndCalls> = redis.query_many(calls.collect()).await.unwrap();
    assert_eq!(
        answers.iter().map(|(sum, _)| *sum).collect::<Vec<_>>(),
        (0..200).collect::<Vec<_>>()
    );
}
