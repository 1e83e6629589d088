//! Streams of build events: in whatever order and however damaged they come, each is taken once and in order, what is made
//! of them stays within its limits, and what is kept is read as it was.
#![no_main]

use arbitrary::Arbitrary;
use kiln_ci::events::{Build, Limits, Order, OrderLimits, decode, read_chunk, write_chunk};
use kiln_ci::storage::seal;
use kiln_protos::{bes, protobuf};
use libfuzzer_sys::fuzz_target;

#[derive(Arbitrary, Debug)]
struct Event {
    number: i8,
    is_bazel: bool,
    finishes: bool,
    value: Vec<u8>,
}

fn message(event: &Event) -> bes::OrderedBuildEvent {
    use bes::build_event::{BuildComponentStreamFinished, Event as Kind};
    let kind = match (event.finishes, event.is_bazel) {
        (true, _) => Kind::ComponentStreamFinished(BuildComponentStreamFinished { r#type: 1 }),
        (_, true) => Kind::BazelEvent(protobuf::Any {
            type_url: bes::BAZEL_EVENT.to_owned(),
            value: event.value.clone(),
        }),
        _ => Kind::BuildEnqueued(bes::build_event::BuildEnqueued {}),
    };
    bes::OrderedBuildEvent {
        stream_id: Some(bes::StreamId::default()),
        sequence_number: event.number.into(),
        event: Some(bes::BuildEvent { event_time: None, event: Some(kind) }),
    }
}

const LIMITS: Limits = Limits {
    targets: 4,
    files: 8,
    failed_actions: 2,
    attempts: 6,
    progress: 32,
    items: 3,
    text: 16,
    bytes: 4096,
};

fuzz_target!(|input: (Vec<Event>, Vec<u8>)| {
    let (events, chunk) = input;
    let limits = OrderLimits { early: 4, early_bytes: 256, events: 100 };
    let mut order = Order::new(limits, 0, false);
    let mut build = Build::new("main", "i", LIMITS);
    let (mut taken, mut attempts) = (0, 0);
    for event in &events {
        let Some(it) = decode("main", message(event)) else { panic!("it names a stream") };
        let is_last = event.finishes;
        if order.receive(it.number, it.entry, it.bytes, is_last).is_err() {
            continue;
        }
        let (first, ready) = order.take();
        assert_eq!(first, taken + 1);
        taken += ready.len() as u64;
        if !ready.is_empty() {
            let bytes = write_chunk(first, &ready).expect("it is short");
            assert_eq!(read_chunk(&bytes).expect("it is whole"), (first, ready.clone()));
        }
        ready.iter().for_each(|it| build.apply(it));
        attempts += build.take_attempts().len();
    }
    let facts = build.facts();
    assert_eq!(facts.events, taken);
    assert!(attempts <= 6 && facts.targets.len() <= 4 && facts.failed_actions.len() <= 2);
    assert!(facts.workspace_status.len() <= 3 && facts.patterns.len() <= 3);
    let _ = read_chunk(&seal(*b"KEVT", 1, &chunk).expect("it is short"));
});
