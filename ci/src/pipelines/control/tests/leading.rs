//! Tests of which one of several frontends drives.

use std::time::Duration;

use tokio::time::advance;

use super::rig::Rig;
use crate::pipelines::control::LEASE;
use crate::pipelines::control::leading::Due;

#[tokio::test(start_paused = true)]
async fn another_drives_when_it_is_left_to_it_or_whoever_did_is_gone() {
    let rig = Rig::new();
    let (one, other) = (rig.frontend(), rig.frontend());
    assert!(matches!(one.due(false).await, Ok(Due::Nothing)));
    assert!(matches!(one.due(true).await, Ok(Due::Here(due)) if due.is_empty()));
    assert!(matches!(other.due(true).await, Ok(Due::Elsewhere(_))));
    one.turn.give_up().await.unwrap();
    advance(LEASE / 2).await;
    assert!(matches!(other.due(true).await, Ok(Due::Here(_))));
    assert!(matches!(one.due(true).await, Ok(Due::Elsewhere(_))));
    // A clock that is set takes it from nobody.
    rig.clock.advance(Duration::from_secs(3_600));
    advance(LEASE / 4).await;
    assert!(matches!(one.due(true).await, Ok(Due::Elsewhere(_))));
    assert!(matches!(other.due(true).await, Ok(Due::Here(_))));
    advance(2 * LEASE).await;
    assert!(matches!(one.due(true).await, Ok(Due::Here(_))));
}

#[tokio::test(start_paused = true)]
async fn whoever_drives_reads_nothing_to_know_that_it_does() {
    let rig = Rig::new();
    let one = rig.frontend();
    assert!(one.turn.is_mine().await.unwrap());
    let before = rig.memory.calls();
    for _ in 0..10 {
        assert!(one.turn.is_mine().await.unwrap());
    }
    assert_eq!(rig.memory.calls(), before);
    for renewed in 1..=3 {
        advance(LEASE / 2).await;
        assert!(one.turn.is_mine().await.unwrap());
        assert_eq!(rig.memory.calls(), before + renewed, "one write");
    }
}
