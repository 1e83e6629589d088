//! Several journals on one real Redis, each in a runtime of its own that can be stopped.

use std::collections::BTreeSet;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use kiln_cas::redis::RedisConfig;
use kiln_cas::stores::RedisRecords;
use kiln_protos::events::Execution;
use kiln_test_servers::redis::RedisServer;
use prost::Message;
use tokio::runtime::{Builder, Runtime};

use super::author::Author;
use super::stream::Kind;
use super::*;
use crate::job::DurationEstimator;
use crate::journal::tests::{begun, execution, hit, ids, keys_of};
use crate::journal::{MAX_PAGE, Page, Query};

const WITHIN: Duration = Duration::from_secs(60);
const BUILD: &str = "the build";

async fn connect(server: &RedisServer) -> Redis {
    let config = RedisConfig::from_url(&server.url()).expect("a URL");
    Redis::connect(config).await.expect("Redis answers")
}

fn records_in(redis: &Redis) -> SharedRecords {
    Arc::new(RedisRecords::new(redis.clone()))
}

struct Frontend {
    name: &'static str,
    runtime: Runtime,
    journal: Journal,
    events: Events,
    redis: Redis,
    /// Executions published so far.
    published: usize,
}

impl Frontend {
    fn start(server: &RedisServer, name: &'static str, config: JournalConfig) -> Self {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("a runtime");
        let events = Events::new();
        let (journal, redis) = runtime.block_on(async {
            let redis = connect(server).await;
            let journal = Journal::join(records_in(&redis), redis.clone(), &events, config).await;
            (journal.expect("the journal can be read"), redis)
        });
        Self { name, runtime, journal, events, redis, published: 0 }
    }

    fn new(server: &RedisServer, name: &'static str) -> Self {
        Self::start(server, name, JournalConfig::default())
    }

    /// Runs and hits of one build, in turn.
    fn publish(&mut self, count: usize) {
        for _ in 0..count {
            let number = self.published;
            let id = format!("{}-{number}", self.name);
            let target = format!("//{}:{}", self.name, number % 10);
            self.events.publish(match number % 2 {
                0 => execution(&id, &target, BUILD, &id),
                _ => hit(&id, &target, BUILD),
            });
            self.published += 1;
        }
    }

    fn ids(&self) -> Vec<String> {
        self.runtime.block_on(ids(&self.journal, &Query::Recent))
    }

    /// Stops all work of this frontend until the guard is dropped.
    fn pause(&self) -> mpsc::Sender<()> {
        let (resume, resumed) = mpsc::channel::<()>();
        let (stopped, stops) = mpsc::channel();
        self.runtime.spawn(async move {
            stopped.send(()).expect("somebody waits");
            let _ = resumed.recv();
        });
        stops.recv().expect("the only thread stops");
        resume
    }

    /// Ends this frontend as `kill -9` would.
    fn kill(self) {
        self.runtime.shutdown_background();
    }
}

fn wait_for(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + WITHIN;
    while !condition() {
        assert!(Instant::now() < deadline, "{what} did not come");
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// All that was published is there once: seen by `frontend`, and counted.
fn expect_all(server: &RedisServer, frontend: &Frontend, published: &[(&str, usize)]) {
    let total: usize = published.iter().map(|(_, count)| count).sum();
    wait_for(&format!("{published:?} at {}", frontend.name), || frontend.ids().len() >= total);
    let name = |name: &str, count: usize| (0..count).map(move |i| format!("{name}-{i}")).collect();
    let expected: BTreeSet<String> = published
        .iter()
        .flat_map(|(frontend, count)| -> Vec<String> { name(frontend, *count) })
        .collect();
    let seen = frontend.ids();
    assert_eq!(seen.len(), total, "each once");
    assert_eq!(seen.into_iter().collect::<BTreeSet<_>>(), expected);
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let build = frontend.journal.build(BUILD).await.expect("readable").expect("it is there");
        let runs: usize = published.iter().map(|(_, count)| count.div_ceil(2)).sum();
        assert_eq!((build.counts.executed, build.counts.total()), (runs as u64, total as u64));
        let records = records_in(&connect(server).await);
        let meta = Store::open(records.clone()).await.expect("readable").meta;
        assert_eq!((meta.executions, meta.builds), (total as u64, 1));
        for prefix in ["x/", "id/", "action/", "target/", "invocation/"] {
            let keys = keys_of(&records, &format!("journal/{prefix}")).await;
            assert_eq!(keys.len(), total, "{prefix}");
        }
    });
}

#[test]
fn what_finished_at_any_frontend_is_seen_at_all_and_idle_ones_ask_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let mut one = Frontend::new(&server, "one");
    let mut two = Frontend::new(&server, "two");
    const { assert!(MAX_PAGE > 800) };
    for _ in 0..4 {
        one.publish(100);
        two.publish(100);
        one.runtime.block_on(one.journal.flush());
    }
    for frontend in [&one, &two] {
        expect_all(&server, frontend, &[("one", 400), ("two", 400)]);
        // 5 ms is what the runs take; what was learned is known without asking.
        assert_eq!(frontend.journal.expected_ms("//one:0", "CppCompile"), Some(5));
        assert_eq!(frontend.journal.expected_ms("//two:0", "CppCompile"), Some(5));
        wait_for("the counts", || frontend.journal.stats().executions == 800);
        // Each frontend counts only its own requests, because Prometheus adds up the frontends.
        assert_eq!(frontend.journal.stats().counts.total(), 400);
        assert_eq!(frontend.journal.recent_runs().len(), 400);
        assert_eq!(frontend.journal.stats().pending, 0);
    }
    let calls = || one.redis.round_trips() + two.redis.round_trips();
    let before = calls();
    one.runtime.block_on(async { tokio::time::sleep(follower::TAKE_OVER * 2).await });
    assert_eq!(calls(), before);
    // What the frontends learned is still known after all of them have ended.
    one.runtime.block_on(one.journal.shutdown());
    two.runtime.block_on(two.journal.shutdown());
    let three = Frontend::new(&server, "three");
    assert_eq!(three.journal.expected_ms("//two:8", "CppCompile"), Some(5));
    assert_eq!(three.journal.recent_runs().len(), 400);
}

/// `one` is the writer and has written 10; then it is paused, and `two` has sent 60.
fn stopped_writer(server: &RedisServer) -> (Frontend, Frontend, mpsc::Sender<()>) {
    let mut one = Frontend::new(server, "one");
    one.publish(10);
    expect_all(server, &one, &[("one", 10)]);
    let mut two = Frontend::new(server, "two");
    one.publish(200);
    let resume = one.pause();
    two.publish(60);
    two.runtime.block_on(two.journal.flush());
    (one, two, resume)
}

#[test]
fn another_frontend_goes_on_where_a_killed_writer_was() {
    let Some(server) = RedisServer::start() else { return };
    let (mut one, two, resume) = stopped_writer(&server);
    drop(resume);
    one.runtime.block_on(one.journal.flush());
    expect_all(&server, &two, &[("one", 210), ("two", 60)]);
    // This frontend is killed in the middle of its work, whatever that is at the moment.
    one.publish(300);
    one.runtime.block_on(one.journal.flush());
    one.kill();
    let mut two = two;
    two.publish(40);
    expect_all(&server, &two, &[("one", 510), ("two", 100)]);
}

#[test]
fn what_a_killed_writer_left_in_the_stream_is_written_by_another() {
    let Some(server) = RedisServer::start() else { return };
    let mut one = Frontend::new(&server, "one");
    one.publish(10);
    expect_all(&server, &one, &[("one", 10)]);
    let mut two = Frontend::new(&server, "two");
    let resume = one.pause();
    two.publish(60);
    two.runtime.block_on(two.journal.flush());
    one.kill();
    expect_all(&server, &two, &[("one", 10), ("two", 60)]);
    drop(resume);
}

#[test]
fn a_paused_writer_that_goes_on_does_no_harm() {
    let Some(server) = RedisServer::start() else { return };
    let (mut one, mut two, resume) = stopped_writer(&server);
    // Written by `two` in the end: nobody else runs.
    let sent = server.command(&["XLEN", "{kiln:journal}:stream"]);
    wait_for("the other writer", || two.ids().len().to_string() == sent);
    drop(resume);
    for _ in 0..5 {
        one.publish(30);
        two.publish(20);
    }
    expect_all(&server, &two, &[("one", 360), ("two", 160)]);
    expect_all(&server, &one, &[("one", 360), ("two", 160)]);
}

#[test]
fn a_restart_of_redis_loses_and_repeats_nothing() {
    let Some(mut server) = RedisServer::start() else { return };
    let mut one = Frontend::new(&server, "one");
    let mut two = Frontend::new(&server, "two");
    one.publish(50);
    two.publish(50);
    wait_for("the first of them", || !one.ids().is_empty());
    one.publish(50);
    server.kill();
    two.publish(50);
    server.restart();
    one.publish(10);
    expect_all(&server, &one, &[("one", 110), ("two", 100)]);
    expect_all(&server, &two, &[("one", 110), ("two", 100)]);
}

#[test]
fn all_know_a_build_from_its_first_request_and_what_of_it_is_open() {
    let Some(server) = RedisServer::start() else { return };
    let mut one = Frontend::new(&server, "one");
    let two = Frontend::new(&server, "two");
    let open = |frontend: &Frontend| {
        let build = frontend.runtime.block_on(frontend.journal.build(BUILD)).expect("readable");
        build.map(|build| frontend.journal.lost_and_open(&build))
    };
    for _ in 0..3 {
        one.events.begin(begun(BUILD));
    }
    for frontend in [&one, &two] {
        wait_for("the build", || open(frontend) == Some((0, 3)));
        let builds = frontend.runtime.block_on(frontend.journal.builds(Page::first(10)));
        assert_eq!(builds.expect("readable")[0].invocation_id, BUILD);
    }
    // Of the next two executions one is a hit, which was never open.
    one.publish(2);
    two.events.begin(begun(BUILD));
    wait_for("the end of one", || open(&two) == Some((0, 3)));
    // Redis knows the queue: what one frontend began goes on without it.
    one.kill();
    let three = Frontend::new(&server, "three");
    assert_eq!(open(&three), Some((0, 3)));
}

#[test]
fn the_oldest_go_from_all() {
    let Some(server) = RedisServer::start() else { return };
    let config = JournalConfig { max_executions: 70, ..JournalConfig::default() };
    let mut one = Frontend::start(&server, "one", config.clone());
    let two = Frontend::start(&server, "two", config);
    one.publish(500);
    wait_for("the last one", || two.ids().first().is_some_and(|id| id == "one-499"));
    wait_for("the limit", || two.journal.stats().executions == 70);
    assert_eq!(two.ids().len(), 70);
}

#[tokio::test]
async fn of_two_authors_only_the_one_that_wrote_last_may_go_on() {
    let Some(server) = RedisServer::start() else { return };
    let redis = connect(&server).await;
    let stream = Stream::new(redis.clone(), 1);
    let encoded =
        |id: &str| (Kind::Finished, Bytes::from(execution(id, "//a", BUILD, id).encode_to_vec()));
    let add = async |number, ids: &[&str]| {
        let batch: Vec<_> = ids.iter().map(|id| encoded(id)).collect();
        stream.add(number, batch.iter()).await.expect("added");
    };
    add(1, &["1", "2"]).await;
    // An answer that was lost: the batch comes again.
    add(1, &["1", "2"]).await;
    let records = records_in(&redis);
    let config = JournalConfig::default();
    let mut slow = Author::open(records.clone(), &config).await.expect("readable");
    let mut quick = Author::open(records.clone(), &config).await.expect("readable");
    let page = stream.read(0).await.expect("readable");
    assert_eq!(page.executions.len(), 2);
    quick.write(&page, &[]).await.expect("nobody else wrote");
    let refused = slow.write(&page, &[]).await;
    assert!(matches!(refused, Err(RecordsError::Conflict { .. })), "{refused:?}");
    add(2, &["3"]).await;
    let rest = stream.read(quick.meta().last_seq).await.expect("readable");
    quick.write(&rest, &[]).await.expect("still the writer");
    let meta = Store::open(records.clone()).await.expect("readable").meta;
    assert_eq!((meta.executions, meta.builds), (3, 1));
    assert_eq!(meta.last_seq, rest.last.expect("one more"));
    // An author that begins now goes on with the counts of the one before.
    let mut next = Author::open(records.clone(), &config).await.expect("readable");
    add(3, &["4"]).await;
    let page = stream.read(next.meta().last_seq).await.expect("readable");
    next.write(&page, &[]).await.expect("it knows all that was written");
    let build = records.get(&crate::journal::keys::build(BUILD)).await.expect("readable");
    let build = crate::journal::BuildSummary::decode(build.expect("it is there").value);
    assert_eq!(build.expect("a build").counts.executed, 4);
    assert!(matches!(quick.prune(&limit()).await, Err(RecordsError::Conflict { .. })));
}

fn limit() -> JournalConfig {
    JournalConfig { max_executions: 1, ..JournalConfig::default() }
}

#[tokio::test]
async fn what_is_foreign_in_the_stream_is_passed_over() {
    let Some(server) = RedisServer::start() else { return };
    let stream = Stream::new(connect(&server).await, 1);
    server.command(&["XADD", "{kiln:journal}:stream", "*", "x", "no execution"]);
    let encoded = Bytes::from(Execution::default().encode_to_vec());
    stream.add(1, [(Kind::Finished, encoded)].iter()).await.expect("added");
    let page = stream.read(0).await.expect("readable");
    assert_eq!((page.executions.len(), page.full), (1, false));
    assert_eq!(page.last, page.executions.first().map(|(place, _)| *place));
}
