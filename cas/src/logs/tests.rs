//! Logs of one process.

use bytes::Bytes;
use futures_util::StreamExt;

use super::log::{CUT_NOTE, PIECE};
use super::*;

#[tokio::test]
async fn a_reader_sees_what_comes_later_and_then_the_end() {
    let logs = LogStreams::default();
    logs.create("a/b");
    logs.append("a/b", 0, &Bytes::from_static(b"one "));
    let mut reader = logs.read("a/b", 2).await.unwrap().expect("the stream exists");
    assert_eq!(reader.next().await.unwrap().unwrap(), "e ");
    logs.append("a/b", 0, &Bytes::from_static(b"one two"));
    logs.finish("a/b");
    assert_eq!(reader.next().await.unwrap().unwrap(), "two");
    assert!(reader.next().await.is_none());
}

#[tokio::test]
async fn output_beyond_the_limit_is_cut_with_a_note() {
    let logs = LogStreams::default();
    logs.create("x");
    logs.append("x", 0, &Bytes::from(vec![b'.'; MAX_LOG_BYTES + 1]));
    logs.finish("x");
    let all: Vec<_> = logs.read("x", 0).await.unwrap().unwrap().collect().await;
    let size: usize = all.iter().map(|chunk| chunk.as_ref().unwrap().len()).sum();
    assert_eq!(size, MAX_LOG_BYTES + CUT_NOTE.len());
}

#[tokio::test]
async fn all_logs_together_stay_within_their_budget_and_finished_ones_go_first() {
    let logs = LogStreams::default();
    let full = Bytes::from(vec![b'.'; MAX_LOG_BYTES]);
    let fit = (MAX_ALL_LOGS_BYTES / MAX_LOG_BYTES as u64) as usize;
    logs.create("running");
    logs.append("running", 0, &Bytes::from_static(b"live"));
    for number in 0..2 * fit {
        let name = number.to_string();
        logs.create(&name);
        logs.append(&name, 0, &full);
        logs.finish(&name);
        assert!(logs.local.held().1 <= MAX_ALL_LOGS_BYTES);
    }
    assert_eq!(logs.status("running"), Some((4, false)), "it is the oldest, and runs");
    assert!(logs.status("0").is_none());
    assert!(logs.status(&(2 * fit - 1).to_string()).is_some());
    // A running log is also spared where there are too many logs.
    for number in 0..MAX_LOGS {
        let name = format!("n{number}");
        logs.create(&name);
        logs.finish(&name);
    }
    assert_eq!(logs.status("running"), Some((4, false)));
    assert!(logs.local.held().0 <= MAX_LOGS);
}

#[tokio::test]
async fn many_small_messages_take_the_room_of_their_bytes() {
    let logs = LogStreams::default();
    logs.create("x");
    let message = Bytes::from(vec![b'y'; 1 << 20]);
    for offset in 0..200_000 {
        logs.append("x", offset, &message.slice(..1));
    }
    logs.finish("x");
    drop(message.try_into_mut().expect("the log holds on to no message"));
    let chunks: Vec<_> =
        logs.read("x", 7).await.unwrap().unwrap().map(Result::unwrap).collect().await;
    assert!(chunks.len() <= 200_000 / PIECE + 1);
    assert_eq!(chunks.concat(), vec![b'y'; 200_000 - 7]);
}
