//! What streams may take, whose they are, and that they end in few chunks.

use kiln_ci::events::{Appended, FailedRuns, StreamLimits};
use kiln_ci::verdicts::Account;

use super::*;

/// Bytes that each event says it came in.
const BYTES: usize = 1_000;

fn terms(owner: &str, limits: StreamLimits) -> Terms {
    Terms { owner: Some(owner.to_owned()), limits }
}

impl Rig {
    async fn publisher(&self, invocation: &str, terms: Terms) -> Result<Publisher, PublisherError> {
        let stream = StreamKey { invocation: invocation.to_owned(), ..stream() };
        Publisher::open(self.log(), self.history(), stream, terms, &mut |_| true).await
    }
}

/// Sends events, each in a commit of its own.
async fn send(
    publisher: &mut Publisher,
    all: &[KeptEvent],
    now: u64,
) -> Result<usize, PublisherError> {
    let mut acknowledged = 0;
    for number in 1..=all.len() {
        let stream = publisher.stream().clone();
        publisher.receive(Ordered { stream, bytes: BYTES, ..ordered(number, all) })?;
        acknowledged += publisher.commit(Time(now)).await?.acknowledge.len();
    }
    Ok(acknowledged)
}

#[tokio::test]
async fn a_stream_is_its_beginners() {
    let rig = Rig::new();
    let (all, limits) = (entries(10), StreamLimits::default());
    let mut first = rig.publisher("i", terms("ada", limits)).await.unwrap();
    // Somebody else who comes at the same time is too late with the first event.
    let mut other = rig.publisher("i", terms("eve", limits)).await.unwrap();
    send(&mut first, &all[..4], 1).await.unwrap();
    let late = send(&mut other, &all[..1], 2).await;
    assert!(matches!(late, Err(PublisherError::Foreign)), "{late:?}");
    let opened = rig.publisher("i", terms("eve", limits)).await;
    assert!(matches!(opened, Err(PublisherError::Foreign)));
    let nobody = rig.publisher("i", Terms::default()).await;
    assert!(matches!(nobody, Err(PublisherError::Foreign)));
    let mut again = rig.publisher("i", terms("ada", limits)).await.unwrap();
    assert_eq!(send(&mut again, &all, 3).await.unwrap(), all.len());
    rig.check(&all).await;
}

#[tokio::test]
async fn what_is_too_much_of_a_stream_is_numbered_and_left_out() {
    let rig = Rig::new();
    let limits = StreamLimits { stream: 100_000, ..StreamLimits::default() };
    let mut all = entries(60);
    let code = bep::build_finished::ExitCode { name: "OK".into(), code: 0 };
    let finished = bep::BuildFinished { exit_code: Some(code), ..Default::default() };
    let payload = Some(bep::build_event::Payload::Finished(finished));
    let end = bep::BuildEvent { payload, last_message: true, ..Default::default() };
    all.insert(59, KeptEvent::Bazel(Box::new(end)));
    let mut publisher = rig.publisher("i", terms("ada", limits)).await.unwrap();
    let sent = send(&mut publisher, &all, 1).await;
    assert!(matches!(sent, Err(PublisherError::Large(100_000))), "each is a chunk: {sent:?}");

    let rig = Rig::new();
    let limits = StreamLimits { stream: 40_000, ..limits };
    let mut publisher = rig.publisher("i", terms("ada", limits)).await.unwrap();
    for number in 1..=all.len() {
        let event = Ordered { bytes: BYTES, ..ordered(number, &all) };
        publisher.receive(event).unwrap();
    }
    let committed = publisher.commit(Time(1)).await.unwrap();
    assert_eq!((committed.acknowledge.len(), committed.is_finished), (all.len(), true));
    let view = rig.log().view(&stream(), None).await.unwrap();
    let facts = view.build.known();
    assert!(facts.is_complete && facts.left_out.events > 10, "{:?}", facts.left_out);
    assert_eq!(facts.exit_code, Some((0, "OK".to_owned())));
    let why = Account::of(facts, &FailedRuns::default()).incomplete.unwrap();
    assert!(why.contains("tests.max_stream"), "{why}");
}

#[tokio::test]
async fn a_stream_that_has_ended_is_in_few_chunks_and_takes_nothing_more() {
    let rig = Rig::new();
    let all = entries(400);
    let mut publisher = rig.publisher("i", Terms::default()).await.unwrap();
    send(&mut publisher, &all, 1).await.unwrap();
    assert_eq!(rig.chunks.blobs(), 400);
    publisher.compact().await.unwrap();
    assert!(rig.chunks.blobs() <= 2, "{} chunks", rig.chunks.blobs());
    rig.check(&all).await;
    // This process was paused long ago and believes that the stream stands at the fifth event.
    let late = rig.log().append(&stream(), Time(9), 6, &all[5..6]).await.unwrap();
    assert_eq!(late, Appended::Behind { durable: 400, is_finished: true });
    rig.check(&all).await;
    publisher.compact().await.unwrap();
    rig.check(&all).await;
    rig.log().age(Time(u64::MAX), std::time::Duration::from_secs(1)).await.unwrap();
    assert_eq!(rig.chunks.blobs(), 0);
    assert!(rig.events().await.is_empty());
}

#[tokio::test]
async fn putting_chunks_together_may_end_anywhere() {
    let all = entries(30);
    for calls in 0..40 {
        let rig = Rig::new();
        let mut publisher = rig.publisher("i", Terms::default()).await.unwrap();
        send(&mut publisher, &all, 1).await.unwrap();
        let store = rig.stores()[if calls % 2 == 0 { 0 } else { 2 }].clone();
        store.fail_after(calls / 2, calls % 3 == 0);
        publisher.compact().await.ok();
        store.recover();
        rig.check(&all).await;
        // A sweep over all streams finishes what the failed calls left undone.
        let log = rig.log();
        log.make_room(Time(2), StreamLimits::default()).await.unwrap();
        for now in [std::time::Duration::ZERO, std::time::Duration::MAX] {
            log.sweep(now).await.unwrap();
        }
        rig.check(&all).await;
        assert_eq!(rig.chunks.blobs(), 1, "{calls}");
    }
}

#[tokio::test]
async fn who_goes_on_with_a_stream_is_charged_while_it_is_read() {
    let rig = Rig::new();
    let all = entries(40);
    let limits = StreamLimits::default();
    let mut publisher = rig.publisher("i", terms("ada", limits)).await.unwrap();
    send(&mut publisher, &all[..30], 1).await.unwrap();
    let whole = publisher.build().kept_bytes();
    let (mut asked, most) = (Vec::new(), whole / 2);
    let mut room = |kept: u64| {
        asked.push(kept);
        kept <= most
    };
    let stream = publisher.stream().clone();
    let opened =
        Publisher::open(rig.log(), rig.history(), stream, terms("ada", limits), &mut room).await;
    let mut again = opened.unwrap();
    assert!(asked.len() > 2 && asked.is_sorted(), "{asked:?}");
    // After the first refusal the publisher keeps no more events in memory and asks for no more room.
    assert_eq!(asked.iter().filter(|it| **it > most).count(), 1, "{asked:?}");
    assert!(again.build().known().left_out.events > 0);
    // The events themselves are all there, and go on.
    for number in 31..=all.len() {
        again.receive(ordered(number, &all)).unwrap();
    }
    assert_eq!(again.commit(Time(2)).await.unwrap().acknowledge.len(), 10);
    let expected: Vec<_> = (1..).zip(all).collect();
    assert_eq!(rig.events().await, expected);
}

#[tokio::test]
async fn the_oldest_streams_of_an_instance_make_room() {
    let rig = Rig::new();
    let log = rig.log();
    let all = entries(5);
    let limits = StreamLimits { instance: 60_000, ..StreamLimits::default() };
    let open = async |name: &str| {
        let stream = StreamKey { invocation: name.to_owned(), ..stream() };
        Publisher::open(log.clone(), rig.history(), stream, terms("ada", limits), &mut |_| true)
            .await
    };
    for (at, name) in ["a", "b", "c"].into_iter().enumerate() {
        send(&mut open(name).await.unwrap(), &all, at as u64 + 1).await.unwrap();
    }
    // This stream is the oldest of all, and it is still open.
    send(&mut open("live").await.unwrap(), &all[..2], 0).await.unwrap();
    assert!(log.is_crowded(limits));
    let crowded = async {
        for name in 0..9 {
            send(&mut open(&format!("more {name}")).await?, &all, 9).await?;
        }
        Ok::<_, PublisherError>(())
    };
    let refused = crowded.await;
    assert!(matches!(refused, Err(PublisherError::Crowded(60_000))), "{refused:?}");
    assert!(log.make_room(Time(10), limits).await.unwrap() >= 3);
    assert!(!log.is_crowded(limits));
    let is_there = async |name: &str| {
        let stream = StreamKey { invocation: name.to_owned(), ..stream() };
        log.durable(&stream).await.unwrap().0 > 0
    };
    assert!(!is_there("a").await && !is_there("b").await && is_there("live").await);
    open("further").await.unwrap();
}
