//! Calls that are made once more because their answer was lost: whoever asks hears what the first one said, since nobody
//! else writes it down.

use kiln_scheduler::engine::redis::script::{cancel, gave_up, insisting, published_encoded};
use kiln_scheduler::queue::platform::Offer;
use kiln_scheduler::queue::{
    Effect, Ending, Event, Joined, LeaseId, Limits, OperationId, WorkerId,
};

use crate::shared::Shared;
use crate::subject::{Subject, submitted};

/// The time of all events, in milliseconds; no timer is due then.
const NOW: u64 = 1_000;

fn handle(queue: &mut Shared, event: Event) -> Vec<Effect> {
    let mut effects = Vec::new();
    queue.handle(NOW, event, &mut effects);
    effects
}

fn submit(queue: &mut Shared) -> OperationId {
    let effects = handle(queue, submitted(b"an action"));
    match effects.first() {
        Some(Effect::Accepted { id, .. }) => *id,
        _ => panic!("{effects:?}"),
    }
}

#[test]
fn a_cancel_says_once_more_what_it_ended() {
    let Some(mut queue) = Shared::start(Limits::default()) else { return };
    let (first, second) = (submit(&mut queue), submit(&mut queue));
    assert_eq!(first.task, second.task);
    let cancelled = [Effect::RequestCancelled { id: second }];
    assert_eq!(queue.told_twice(NOW, cancel(second, 1)), cancelled);
    assert!(queue.told_twice(NOW, cancel(second, 2)).is_empty(), "another call ended nothing");
    let ended = [Effect::Finished { task: first.task, ending: Ending::Cancelled }];
    assert_eq!(queue.told_twice(NOW, cancel(first, 3)), ended);
    assert!(queue.told_twice(NOW, cancel(first, 4)).is_empty(), "it had ended before");
    assert_eq!(queue.told_twice(NOW, cancel(second, 1)), cancelled, "however late it comes");
    assert_eq!(queue.counters().cancelled, 1);
}

#[test]
fn who_gave_up_is_told_once_more_what_that_ended() {
    let Some(mut queue) = Shared::start(Limits::default()) else { return };
    let (first, second) = (submit(&mut queue), submit(&mut queue));
    assert_eq!(first.task, second.task);
    let cancelled = Effect::RequestCancelled { id: second };
    assert_eq!(queue.told_twice(NOW, gave_up(&[second], 1)), [cancelled], "the first one waits on");
    let ended = Effect::Finished { task: first.task, ending: Ending::NobodyWaits };
    assert_eq!(queue.told_twice(NOW, gave_up(&[first], 2)), [ended]);
    assert!(queue.told_twice(NOW, gave_up(&[first], 3)).is_empty(), "it had ended before");
    // Two in one call, and one of them with two clients: each is said once.
    let (first, second) = (submit(&mut queue), submit(&mut queue));
    handle(&mut queue, Event::Attach(second));
    let cancelled = Effect::RequestCancelled { id: first };
    let ended = Effect::Finished { task: first.task, ending: Ending::NobodyWaits };
    let told = queue.told_twice(NOW, gave_up(&[first, second, second], 4));
    assert_eq!(told, [cancelled, ended]);
    assert_eq!(queue.counters().abandoned, 2);
}

#[test]
fn a_publication_says_once_more_what_it_ended() {
    let Some(mut queue) = Shared::start(Limits::default()) else { return };
    let worker = WorkerId(1);
    let joined = Joined {
        worker,
        name: "w".into(),
        slots: 1,
        offer: Offer::new([]),
        leases: Vec::new(),
        paused: None,
    };
    handle(&mut queue, Event::WorkerJoined(joined));
    let task = submit(&mut queue).task;
    let lease = LeaseId(1);
    let effects = handle(&mut queue, Event::Completed { worker, lease });
    assert!(matches!(effects[..], [Effect::Publish { .. }]), "{effects:?}");
    let published = insisting(published_encoded(task, lease, 100, Vec::new()));
    let ended = [Effect::Finished { task, ending: Ending::Published }];
    assert_eq!(queue.told_twice(NOW, published), ended);
    assert_eq!(queue.counters().published, 1);
}
