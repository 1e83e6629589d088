//! Tests of what promotion notes in the audit log.

use kiln_cas::stores::audit::AuditLog;
use serde_json::Value;

use super::{World, ask, person, say};

#[tokio::test]
async fn the_log_says_who_did_what_and_what_was_before_and_after() {
    let world = World::new();
    let keeper = world.keeper();
    for text in ["team/app:1", "team/app:2"] {
        keeper.promote(&ask("dev", &world.release(text), person("eve"))).await.unwrap();
    }
    keeper.roll_back(&say("dev", "ana", "it crashes"), None).await.unwrap();
    let log = AuditLog::new(world.memory.clone());
    assert_eq!(log.verify(1, u64::MAX).await.unwrap(), None);
    let entries = log.list(0, 10).await.unwrap();
    let actions: Vec<_> = entries.iter().map(|it| it.event.action.as_str()).collect();
    assert_eq!(actions, ["release.promote", "release.promote", "release.rollback"]);
    let last = &entries[2].event;
    assert_eq!((last.actor.as_str(), last.subject.as_str()), ("ana", "team/app:1 in dev"));
    let details: Value = serde_json::from_str(&last.details).unwrap();
    assert_eq!(details["reason"], "it crashes");
    assert!(details["before"].as_str().unwrap().starts_with("team/app:2 (sha256:"));
    assert!(details["after"].as_str().unwrap().ends_with("generation 3)"));
}
