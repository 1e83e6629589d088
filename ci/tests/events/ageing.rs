//! Streams of build events do not stay for ever.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use kiln_ci::events::{EventLog, KeptEvent, StreamKey};
use kiln_ci::model::Time;
use kiln_ci::storage::memory::Memory;
use kiln_ci::storage::{Expect, Records, Segments, Write};

const DAY: Duration = Duration::from_secs(24 * 3600);
const HOUR: Duration = Duration::from_secs(3600);

fn stream(name: &str) -> StreamKey {
    StreamKey { instance: "main".into(), build: "b".into(), invocation: name.into(), component: 3 }
}

async fn append(log: &EventLog, name: &str, at: Time, first: u64, count: usize) {
    log.append(&stream(name), at, first, &vec![KeptEvent::Other; count]).await.unwrap();
}

#[tokio::test]
async fn streams_go_as_a_whole_when_nothing_was_heard_of_them_for_long() {
    let (chunks, records) = (Memory::default(), Memory::default());
    let log = EventLog::new(Arc::new(chunks.clone()), Arc::new(records.clone()));
    let at = |days: u32| Time(0).plus(DAY * days);
    for first in 0..300 {
        append(&log, "old", at(1), first * 2 + 1, 2).await;
    }
    // The events of this stream go on for weeks.
    append(&log, "long", at(1), 1, 5).await;
    append(&log, "long", at(20), 6, 5).await;
    append(&log, "new", at(30), 1, 5).await;
    assert_eq!(log.age(at(31), DAY * 30).await.unwrap(), 0);
    assert_eq!(log.age(at(32), DAY * 30).await.unwrap(), 1);
    assert_eq!(log.durable(&stream("old")).await.unwrap(), (0, false));
    assert_eq!(log.durable(&stream("long")).await.unwrap(), (10, false));
    assert_eq!((chunks.blobs(), records.records()), (3, 3));
    assert_eq!(log.age(at(100), DAY * 30).await.unwrap(), 2);
    assert_eq!((chunks.blobs(), records.records()), (0, 0));
}

#[tokio::test]
async fn what_a_crash_left_is_swept_and_what_is_named_stays() {
    let (chunks, records) = (Memory::default(), Memory::default());
    let log = EventLog::new(Arc::new(chunks.clone()), Arc::new(records));
    append(&log, "one", Time(1), 1, 5).await;
    chunks.put(Bytes::from_static(b"never named")).await.unwrap();
    // The age of a chunk counts from when a sweep saw it first, whatever the clock said when it was put.
    for now in [DAY, DAY + HOUR / 2] {
        assert_eq!(log.sweep(now).await.unwrap(), 0, "it may be named yet");
    }
    assert_eq!(log.sweep(DAY + HOUR).await.unwrap(), 1);
    assert_eq!(chunks.blobs(), 1);
    assert_eq!(log.durable(&stream("one")).await.unwrap(), (5, false));
}

#[tokio::test]
async fn what_cannot_be_read_is_not_taken_for_old_and_what_it_names_stays() {
    let (chunks, records) = (Memory::default(), Memory::default());
    let log = EventLog::new(Arc::new(chunks.clone()), Arc::new(records.clone()));
    let at = |days: u32| Time(0).plus(DAY * days);
    append(&log, "one", at(30), 1, 5).await;
    append(&log, "one", at(30), 6, 5).await;
    let newest = Records::list(&records, "events/chunks/", None, true, 1).await.unwrap().remove(0);
    let write = async |value: Bytes| {
        let (key, value) = (newest.key.clone(), Some(value));
        Records::write(&records, vec![Write { key, expect: Expect::Anything, value }]).await
    };
    write("no chunk".into()).await.unwrap();
    assert_eq!(log.age(at(31), DAY * 30).await.unwrap(), 0);
    for now in [DAY, DAY * 2] {
        assert_eq!(log.sweep(now).await.unwrap(), 0);
    }
    assert_eq!(chunks.blobs(), 2);
    // Once the record is mended, the log ages it like any other.
    write(newest.value.clone()).await.unwrap();
    assert_eq!(log.durable(&stream("one")).await.unwrap(), (10, false));
    assert_eq!(log.age(at(61), DAY * 30).await.unwrap(), 1);
}

/// A crash in the middle leaves a beginning, which is forgotten the next time.
#[tokio::test]
async fn ageing_may_end_anywhere() {
    for calls in 0..40 {
        let (chunks, records) = (Memory::default(), Memory::default());
        let log = EventLog::new(Arc::new(chunks.clone()), Arc::new(records.clone()));
        for first in 0..5 {
            append(&log, "old", Time(1), first + 1, 1).await;
        }
        records.fail_after(calls, true);
        log.age(Time(0).plus(DAY * 40), DAY * 30).await.ok();
        records.recover();
        let (durable, _) = log.durable(&stream("old")).await.unwrap();
        let mut next = 1;
        log.replay(&stream("old"), 0, |number, _| {
            assert_eq!(number, next);
            next += 1;
        })
        .await
        .unwrap();
        assert_eq!(next, durable + 1, "what is left has no gap");
        log.age(Time(0).plus(DAY * 40), DAY * 30).await.unwrap();
        for now in [DAY, DAY * 2] {
            log.sweep(now).await.unwrap();
        }
        assert_eq!((chunks.blobs(), records.records()), (0, 0));
    }
}
