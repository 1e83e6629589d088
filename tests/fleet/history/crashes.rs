//! A server is killed while it receives build events.

use super::publisher::{Stream, connect};
use super::seen::{await_passed, passed};
use crate::support::server::Server;

const EVENTS: i64 = 400;

fn stream(name: &str) -> Stream {
    Stream { instance: String::new(), invocation: name.to_owned(), events: EVENTS }
}

/// After kill -9 nothing is lost that the server acknowledged. Events in between count once, and events that are sent
/// again are acknowledged again.
#[tokio::test(flavor = "multi_thread")]
async fn kill_9_loses_nothing_that_was_acknowledged_and_counts_nothing_twice() {
    let data = tempfile::tempdir().unwrap();
    let arguments = ["--workers", "0"];
    let mut server = Server::start(data.path(), &arguments);
    let stream = stream("crash");
    let mut last = 0;
    for round in 1..=4 {
        let channel = connect(&server.address).await;
        let until = last + 7 * round;
        let ended = stream.send(channel, last + 1, |number| {
            assert_eq!(number, last + 1, "acknowledged in order");
            last = number;
            number < until
        });
        ended.await.unwrap();
        // At this moment the server has received and written events that it has not acknowledged.
        let address = server.kill();
        server = Server::start_on(&address, data.path(), &arguments);
        let durable = passed(&address, &stream.label());
        assert!(durable >= last && durable < EVENTS, "{durable} of {last} acknowledged");
    }
    // The client sends all events from the beginning, twice, as one does that no longer knows how far it came.
    for _ in 0..2 {
        let mut expected = 1;
        let channel = connect(&server.address).await;
        let ended = stream.send(channel, 1, |number| {
            assert_eq!(number, expected);
            expected += 1;
            number < EVENTS
        });
        ended.await.unwrap();
        assert_eq!(expected, EVENTS + 1);
    }
    await_passed(&server.address, &stream.label(), EVENTS - 1);
}

/// A stream that is open when the server ends goes on at the next server.
#[tokio::test(flavor = "multi_thread")]
async fn an_end_in_order_acknowledges_what_it_took() {
    let data = tempfile::tempdir().unwrap();
    let server = Server::start(data.path(), &["--workers", "0"]);
    let stream = stream("end");
    let channel = connect(&server.address).await;
    let (sent, seen) = tokio::sync::oneshot::channel();
    let mut sent = Some(sent);
    let unfinished = Stream { events: EVENTS * 250, ..self::stream("end") };
    let mut last = 0;
    let sending = tokio::spawn(async move {
        let ended = unfinished
            .send(channel, 1, |number| {
                last = number;
                if let Some(sent) = sent.take() {
                    sent.send(()).unwrap();
                }
                true
            })
            .await;
        (ended, last)
    });
    seen.await.unwrap();
    let address = server.address.clone();
    let status = tokio::task::spawn_blocking(move || server.terminate()).await.unwrap();
    assert!(status.success());
    let (ended, last) = sending.await.unwrap();
    assert_eq!(ended.unwrap_err().code(), tonic::Code::Unavailable);
    let server = Server::start_on(&address, data.path(), &["--workers", "0"]);
    let durable = passed(&server.address, &stream.label());
    assert!(last > 0 && durable >= last, "{durable} of {last} acknowledged");
}
