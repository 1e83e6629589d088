//! Logs of several frontends on one real Redis.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use kiln_protos::logs::Piece;
use kiln_test_servers::redis::RedisServer;
use proptest::prelude::*;

use super::relay::{Taken, take};
use super::{LogNames, LogStreams};
use crate::blob::BlobStream;
use crate::redis::{Redis, RedisConfig};

const WITHIN: Duration = Duration::from_secs(30);

async fn frontend(server: &RedisServer) -> (LogStreams, Redis) {
    let config = RedisConfig::from_url(&server.url()).expect("a URL");
    let redis = Redis::connect(config).await.expect("Redis answers");
    (LogStreams::join(redis.clone()).await.expect("joined"), redis)
}

fn names() -> LogNames {
    Arc::new(["i/logstreams/a/stdout".to_owned(), "i/logstreams/a/stderr".to_owned()])
}

async fn read(logs: &LogStreams, name: &str, offset: u64) -> BlobStream {
    logs.read(name, offset).await.expect("Redis answers").expect("somebody has it")
}

/// What comes until `size` bytes are there, or to the end.
async fn bytes(stream: &mut BlobStream, size: usize) -> Vec<u8> {
    let mut all = Vec::new();
    let gather = async {
        while all.len() < size {
            let Some(chunk) = stream.next().await else { return };
            all.extend_from_slice(&chunk.expect("readable"));
        }
    };
    tokio::time::timeout(WITHIN, gather).await.expect("it comes soon");
    all
}

#[tokio::test]
async fn a_log_is_read_at_another_frontend_while_it_grows() {
    let Some(server) = RedisServer::start() else { return };
    let (here, _) = frontend(&server).await;
    let (there, _) = frontend(&server).await;
    let names = names();
    let open = here.open(names.clone());
    open.append(false, 0, &Bytes::from_static(b"one "));
    let mut first = read(&there, &names[0], 0).await;
    let mut second = read(&there, &names[0], 2).await;
    assert_eq!(bytes(&mut first, 4).await, b"one ");
    assert_eq!(bytes(&mut second, 2).await, b"e ");
    open.append(false, 4, &Bytes::from_static(b"two"));
    assert_eq!(bytes(&mut first, 3).await, b"two");
    let large = Bytes::from(vec![b'x'; 1 << 20]);
    open.append(false, 7, &large);
    here.finish(&names[0]);
    assert_eq!(bytes(&mut first, usize::MAX).await, large);
    assert_eq!(bytes(&mut second, usize::MAX).await[3..], large);
    // The end is also seen by who comes late, the other log by who waits from its beginning.
    let mut late = read(&there, &names[0], 7 + large.len() as u64).await;
    assert!(bytes(&mut late, 1).await.is_empty());
    let mut errors = read(&there, &names[1], 0).await;
    open.append(true, 0, &Bytes::from_static(b"warning"));
    assert_eq!(bytes(&mut errors, 7).await, b"warning");
}

#[tokio::test]
async fn nobody_has_an_unknown_log_and_nobody_reads_for_nothing() {
    let Some(server) = RedisServer::start() else { return };
    let (here, redis) = frontend(&server).await;
    let (there, _) = frontend(&server).await;
    assert!(there.read("i/logstreams/x", 0).await.expect("Redis answers").is_none());
    let before = redis.round_trips();
    let open = here.open(names());
    open.append(false, 0, &Bytes::from_static(b"nobody reads this"));
    here.finish(&names()[0]);
    assert_eq!(redis.round_trips(), before);
}

#[tokio::test]
async fn a_reader_follows_a_run_to_another_frontend() {
    let Some(server) = RedisServer::start() else { return };
    let (old, _) = frontend(&server).await;
    let (new, _) = frontend(&server).await;
    let (third, _) = frontend(&server).await;
    let names = names();
    let open = old.open(names.clone());
    open.append(false, 0, &Bytes::from_static(b"before"));
    let mut at_old = read(&old, &names[0], 0).await;
    let mut at_third = read(&third, &names[0], 0).await;
    assert_eq!(bytes(&mut at_old, 6).await, b"before");
    assert_eq!(bytes(&mut at_third, 6).await, b"before");
    // The worker's session goes to another frontend; the worker says everything again there.
    drop(open);
    let open = new.open(names.clone());
    open.append(false, 0, &Bytes::from_static(b"before and after"));
    new.finish(&names[0]);
    assert_eq!(bytes(&mut at_old, usize::MAX).await, b" and after");
    assert_eq!(bytes(&mut at_third, usize::MAX).await, b" and after");
}

#[tokio::test]
async fn a_reader_outlives_a_restart_of_redis() {
    let Some(mut server) = RedisServer::start() else { return };
    let (here, _) = frontend(&server).await;
    let (there, _) = frontend(&server).await;
    let names = names();
    let open = here.open(names.clone());
    let mut reader = read(&there, &names[0], 0).await;
    server.kill();
    open.append(false, 0, &Bytes::from_static(b"while it was away"));
    server.restart();
    assert_eq!(bytes(&mut reader, 17).await, b"while it was away");
}

#[test]
fn a_run_without_other_frontends_goes_on_after_its_session() {
    let logs = LogStreams::default();
    let open = logs.open(names());
    open.append(true, 0, &Bytes::from_static(b"x"));
    drop(open);
    assert_eq!(logs.status(&names()[1]), Some((1, false)));
    // Its worker comes back, and the run ends.
    let again = logs.open(names());
    again.append(true, 1, &Bytes::from_static(b"y"));
    again.finish();
    drop(again);
    assert_eq!(logs.status(&names()[1]), Some((2, true)));
}

proptest! {
    /// Pieces of a log, in any order and repeated: what is taken is the log from the start.
    #[test]
    fn pieces_in_any_order_never_bring_wrong_bytes(
        log in prop::collection::vec(any::<u8>(), 0..200),
        cuts in prop::collection::vec((0usize..200, 0usize..60), 0..60),
    ) {
        let mut seen = Vec::new();
        for (from, length) in cuts {
            let from = from.min(log.len());
            let to = (from + length).min(log.len());
            let piece = Piece {
                offset: from as u64,
                data: Bytes::copy_from_slice(&log[from..to]),
                finished: to == log.len(),
                moved: false,
            };
            match take(seen.len() as u64, piece) {
                Taken::Data(data) => seen.extend_from_slice(&data),
                Taken::End => prop_assert_eq!(seen.len(), log.len()),
                Taken::Gap => prop_assert!(from > seen.len()),
                Taken::Nothing => prop_assert!(to <= seen.len()),
            }
            prop_assert_eq!(&seen[..], &log[..seen.len()]);
        }
    }
}
