//! What is read of logs.

use std::sync::atomic::Ordering;

use super::rig::{DECLARED, Rig};
use crate::rollouts::control::{By, Command};
use crate::rollouts::machine::{Phase, RolloutState};

#[tokio::test]
async fn of_a_long_log_only_what_is_new_is_read() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    // The target falls silent and is heard again in turn, which makes the log long.
    for round in 0..40 {
        rig.with("a", |fake| fake.silent = round % 2 == 0);
        rig.drive(&one.id, 1, |_| false).await;
    }
    let other = rig.elsewhere();
    let reads = || rig.records.reads.swap(0, Ordering::SeqCst);
    reads();
    let state = other.open(&one.id).await.unwrap().state;
    let all = reads();
    assert!(all > 30, "{all} records of {} events", state.length);
    assert_eq!(other.open(&one.id).await.unwrap().state, state);
    assert_eq!(reads(), 0, "nothing is new");
    let lines = rig.control.store.tail(&one.id, state.length, usize::MAX).await.unwrap().1;
    assert_eq!(RolloutState::replay(one.spec.clone(), &lines), state);
    let (first, last) = rig.control.store.tail(&one.id, state.length, 7).await.unwrap();
    assert_eq!((first, &last[..]), (state.length - 7, &lines[lines.len() - 7..]));

    let two = rig.start(&DECLARED.replace("api", "web"), "app:2").await;
    other.open(&two.id).await.unwrap();
    reads();
    let by = By { name: "ana".to_owned(), reason: "wait".to_owned() };
    rig.control.say(&two.id, Command::Pause, &by).await.unwrap();
    reads();
    assert!(other.open(&two.id).await.unwrap().state.paused.is_some());
    assert_eq!(reads(), 1, "what is new");
}
