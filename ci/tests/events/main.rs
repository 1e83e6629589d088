//! Streams of build events from one connection to the next, over crashes and at several servers: what is acknowledged is
//! durable, and counts once.

#![allow(clippy::unwrap_used)]

mod ageing;
mod bounds;

use std::sync::Arc;

use fastrand::Rng;
use kiln_ci::events::{
    EventLog, KeptEvent, Ordered, Publisher, PublisherError, StreamKey, Terms, read_chunk,
    write_chunk,
};
use kiln_ci::history::{History, Policy};
use kiln_ci::model::{TestKey, Time};
use kiln_ci::storage::memory::Memory;
use kiln_protos::bep;
use kiln_protos::bep::build_event_id::{ConfigurationId, Id, TestResultId};
use tokio::runtime::Builder;

struct Rig {
    chunks: Memory,
    segments: Memory,
    records: Memory,
}

impl Rig {
    fn new() -> Self {
        let new = Memory::default;
        Self { chunks: new(), segments: new(), records: new() }
    }

    fn log(&self) -> Arc<EventLog> {
        Arc::new(EventLog::new(Arc::new(self.chunks.clone()), Arc::new(self.records.clone())))
    }

    fn history(&self) -> Arc<History> {
        let (segments, records) = (self.segments.clone(), self.records.clone());
        Arc::new(History::new(Arc::new(segments), Arc::new(records), Policy::default()))
    }

    async fn open(&self) -> Result<Publisher, PublisherError> {
        Publisher::open(self.log(), self.history(), stream(), Terms::default(), &mut |_| true).await
    }

    fn stores(&self) -> [&Memory; 3] {
        [&self.chunks, &self.segments, &self.records]
    }

    /// What is durable, in order.
    async fn events(&self) -> Vec<(u64, KeptEvent)> {
        let mut events = Vec::new();
        self.log()
            .replay(&stream(), 0, |number, entry| events.push((number, entry)))
            .await
            .unwrap();
        events
    }

    async fn check(&self, all: &[KeptEvent]) {
        let expected: Vec<_> = (1..).zip(all.iter().cloned()).collect();
        assert_eq!(self.events().await, expected);
        let results = all.iter().filter(|it| test_of(it).is_some()).count();
        let mut found = 0;
        for number in 0..3 {
            let test = TestKey {
                instance: "main".into(),
                label: format!("//a:t{number}"),
                configuration: "cfg".into(),
            };
            found += self.history().newest(&test, 10_000, false).await.unwrap().len();
        }
        assert_eq!(found, results);
    }
}

fn stream() -> StreamKey {
    StreamKey { instance: "main".into(), build: "b".into(), invocation: "i".into(), component: 3 }
}

fn test_of(entry: &KeptEvent) -> Option<&TestResultId> {
    let KeptEvent::Bazel(event) = entry else { return None };
    match event.id.as_ref()?.id.as_ref()? {
        Id::TestResult(id) => Some(id),
        _ => None,
    }
}

/// A build that prints, and runs three tests many times.
fn entries(count: usize) -> Vec<KeptEvent> {
    let entry = |number: usize| {
        let (id, payload) = match number % 5 {
            0 => {
                let id = TestResultId {
                    label: format!("//a:t{}", number % 3),
                    run: 1 + i32::try_from(number).unwrap(),
                    shard: 1,
                    attempt: 1,
                    configuration: Some(ConfigurationId { id: "cfg".into() }),
                };
                let it = bep::TestResult { status: 1, ..Default::default() };
                (Id::TestResult(id), bep::build_event::Payload::TestResult(it))
            }
            _ => {
                let stderr = format!("line {number}\n").into_bytes().into();
                let it = bep::Progress { stderr, ..Default::default() };
                (Id::Progress(Default::default()), bep::build_event::Payload::Progress(it))
            }
        };
        let id = Some(bep::BuildEventId { id: Some(id) });
        let event = bep::BuildEvent { id, payload: Some(payload), ..Default::default() };
        KeptEvent::Bazel(Box::new(event))
    };
    (0..count - 1).map(entry).chain([KeptEvent::Finished]).collect()
}

fn ordered(number: usize, all: &[KeptEvent]) -> Ordered {
    let entry = all[number - 1].clone();
    Ordered { stream: stream(), number: number as i64, entry, bytes: 20 }
}

/// Sends from one event on until something ends it; says what was acknowledged.
async fn send(
    publisher: &mut Publisher,
    rng: &mut Rng,
    numbers: &[usize],
    all: &[KeptEvent],
) -> (Vec<i64>, Result<(), PublisherError>) {
    let mut acknowledged = Vec::new();
    let mut rest = numbers;
    while !rest.is_empty() {
        let (now, later) = rest.split_at(rng.usize(1..=rest.len().min(17)));
        rest = later;
        for number in now {
            if let Err(error) = publisher.receive(ordered(*number, all)) {
                return (acknowledged, Err(error));
            }
        }
        match publisher.commit(Time(1000)).await {
            Ok(committed) => acknowledged.extend(committed.acknowledge),
            Err(error) => return (acknowledged, Err(error)),
        }
    }
    (acknowledged, Ok(()))
}

fn run(future: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_time().build().unwrap().block_on(future);
}

#[test]
fn each_event_is_acknowledged_in_order_when_it_is_durable() {
    run(async {
        let (rig, all) = (Rig::new(), entries(100));
        let mut publisher = rig.open().await.unwrap();
        let numbers: Vec<_> = (1..=100).collect();
        let (acknowledged, done) =
            send(&mut publisher, &mut Rng::with_seed(1), &numbers, &all).await;
        done.unwrap();
        assert_eq!(acknowledged, (1..=100).collect::<Vec<_>>());
        assert!(publisher.build().is_complete());
        rig.check(&all).await;
    });
}

/// The stores fail anywhere; the client sends again from the first event that was not acknowledged.
#[test]
fn crashes_anywhere_lose_nothing_and_count_nothing_twice() {
    for seed in seeds() {
        println!("KILN_SEED={seed}");
        run(async {
            let mut rng = Rng::with_seed(seed);
            let (rig, all) = (Rig::new(), entries(120));
            let mut acknowledged = 0;
            let mut crashes = 0;
            while acknowledged < all.len() {
                let store = rig.stores()[rng.usize(..3)];
                if rng.u8(..4) > 0 && crashes < 40 {
                    store.fail_after(rng.u64(..8), rng.bool());
                }
                if let Ok(mut publisher) = rig.open().await {
                    // Sometimes it sends again what was acknowledged, too.
                    let first = (acknowledged + 1).saturating_sub(rng.usize(..10)).max(1);
                    let numbers: Vec<_> = (first..=all.len()).collect();
                    let (numbers, _) = send(&mut publisher, &mut rng, &numbers, &all).await;
                    assert!(numbers.is_sorted());
                    let last = numbers.last().map_or(0, |it| usize::try_from(*it).unwrap());
                    acknowledged = acknowledged.max(last);
                }
                crashes += 1;
                rig.stores().iter().for_each(|it| it.recover());
                let durable = rig.log().durable(&stream()).await.unwrap().0;
                assert!(durable >= acknowledged as u64, "{durable} of {acknowledged}");
            }
            rig.check(&all).await;
        });
    }
}

fn seeds() -> std::ops::RangeInclusive<u64> {
    let seed = std::env::var("KILN_SEED").ok().map(|it| it.parse().expect("KILN_SEED is a number"));
    seed.map_or(1..=20, |it| it..=it)
}

/// Two servers, or two connections to one, receive the same stream at the same time.
#[test]
fn two_servers_take_one_stream() {
    for seed in seeds() {
        println!("KILN_SEED={seed}");
        run(async {
            let mut rng = Rng::with_seed(seed);
            let (rig, all) = (Rig::new(), entries(80));
            let mut publishers = [rig.open().await.unwrap(), rig.open().await.unwrap()];
            let mut sent = [0, 0];
            let mut acknowledged = [Vec::new(), Vec::new()];
            while sent.iter().any(|it| *it < all.len()) {
                let which = rng.usize(..2);
                let until = (sent[which] + rng.usize(1..9)).min(all.len());
                for number in sent[which] + 1..=until {
                    publishers[which].receive(ordered(number, &all)).unwrap();
                }
                sent[which] = until;
                if rng.bool() {
                    let committed = publishers[which].commit(Time(0)).await.unwrap();
                    acknowledged[which].extend(committed.acknowledge);
                }
            }
            for (publisher, own) in publishers.iter_mut().zip(&mut acknowledged) {
                own.extend(publisher.commit(Time(0)).await.unwrap().acknowledge);
                assert_eq!(*own, (1..=80).collect::<Vec<_>>());
                assert_eq!(publisher.build().facts().events, 80);
            }
            rig.check(&all).await;
        });
    }
}

#[test]
fn a_stream_that_breaks_off_goes_on_and_one_that_is_over_does_not() {
    run(async {
        let (rig, all) = (Rig::new(), entries(10));
        let mut rng = Rng::with_seed(1);
        let mut publisher = rig.open().await.unwrap();
        send(&mut publisher, &mut rng, &[1, 2, 3], &all).await.1.unwrap();
        let mut publisher = rig.open().await.unwrap();
        assert_eq!(publisher.build().facts().events, 3);
        // Not all of what is missing comes, and not in order.
        send(&mut publisher, &mut rng, &[5, 7, 4], &all).await.1.unwrap();
        assert_eq!(rig.log().durable(&stream()).await.unwrap(), (5, false));
        let mut publisher = rig.open().await.unwrap();
        let (acknowledged, done) = send(&mut publisher, &mut rng, &[6, 7, 8, 9, 10], &all).await;
        done.unwrap();
        assert_eq!(acknowledged, [6, 7, 8, 9, 10]);
        let mut publisher = rig.open().await.unwrap();
        let late = Ordered { number: 11, ..ordered(1, &all) };
        assert!(matches!(publisher.receive(late), Err(PublisherError::Refused(_))));
        let (acknowledged, done) = send(&mut publisher, &mut rng, &[9, 10], &all).await;
        done.unwrap();
        assert_eq!(acknowledged, [9, 10]);
        rig.check(&all).await;
    });
}

#[test]
fn streams_do_not_mix() {
    run(async {
        let (rig, all) = (Rig::new(), entries(10));
        let mut publisher = rig.open().await.unwrap();
        let other = StreamKey { component: 1, ..stream() };
        let foreign = Ordered { stream: other.clone(), ..ordered(1, &all) };
        assert!(matches!(publisher.receive(foreign), Err(PublisherError::OtherStream)));
        publisher.receive(ordered(1, &all)).unwrap();
        publisher.commit(Time(0)).await.unwrap();
        assert_eq!(rig.log().durable(&other).await.unwrap(), (0, false));
        assert_eq!(rig.log().durable(&stream()).await.unwrap(), (1, false));
    });
}

#[test]
fn a_million_events_are_taken_in_bounded_pieces() {
    run(async {
        let rig = Rig::new();
        let mut publisher = rig.open().await.unwrap();
        let all = entries(5);
        let mut acknowledged = 0;
        for number in 1..=1_000_000_i64 {
            let event = Ordered { number, ..ordered(2, &all) };
            let taken = publisher.receive(event).unwrap();
            if taken == kiln_ci::events::Taken::Commit {
                let committed = publisher.commit(Time(0)).await.unwrap();
                assert!(committed.acknowledge.len() <= 4096);
                acknowledged += committed.acknowledge.len();
            }
        }
        acknowledged += publisher.commit(Time(0)).await.unwrap().acknowledge.len();
        assert_eq!(acknowledged, 1_000_000);
        assert_eq!(rig.log().durable(&stream()).await.unwrap(), (1_000_000, false));
        assert!(rig.chunks.blobs() < 300 && rig.chunks.bytes() < 2_000_000);
    });
}

#[test]
fn chunks_are_whole_or_refused() {
    let all = entries(20);
    let bytes = write_chunk(7, &all).unwrap();
    assert_eq!(read_chunk(&bytes).unwrap(), (7, all));
    for end in 0..bytes.len() {
        assert!(read_chunk(&bytes[..end]).is_err(), "{end}");
    }
}
