//! Pushes of which a forge tells.

use std::sync::Arc;
use std::time::Duration;

use super::rig::Rig;
use crate::pipelines::control::leading::Due;
use crate::pipelines::control::{Pushed, leave_push};
use crate::services::Clock as _;
use crate::storage::{Expect, Records as _, Write};

fn waits(name: &str) -> String {
    format!(
        r#"
name = "{name}"
[[trigger]]
on = "push"
branches = ["main", "release/*"]
forge = "hub"
repository = "Owner/app"
[[stage]]
name = "a"
command = ["true"]
"#
    )
}

fn push() -> Pushed {
    Pushed {
        forge: "hub".to_owned(),
        repository: "owner/app".to_owned(),
        branch: "main".to_owned(),
        commit: "a".repeat(40),
        by: "alice".to_owned(),
    }
}

/// Leaves a push, as a delivery of this name asks for it.
async fn left(rig: &Rig, push: &Pushed, delivery: &str) -> bool {
    let key = format!("deliveries/{delivery}");
    let once = Write { key, expect: Expect::Absent, value: Some("done".into()) };
    leave_push(&rig.memory, push, rig.clock.now(), vec![once]).await.unwrap()
}

async fn waiting(rig: &Rig) -> usize {
    rig.memory.list("pipelines/pushed/", None, false, 10).await.unwrap().len()
}

#[tokio::test(start_paused = true)]
async fn each_push_that_fits_begins_one_run() {
    let mut rig = Rig::new();
    rig.declare(&waits("pushed"));
    assert!(left(&rig, &push(), "1").await);
    assert!(!left(&rig, &push(), "1").await, "a copy");
    let (feature, other) = ("feature".to_owned(), "other".to_owned());
    assert!(left(&rig, &Pushed { branch: feature, ..push() }, "2").await);
    assert!(left(&rig, &Pushed { repository: "owner/lib".to_owned(), ..push() }, "3").await);
    assert!(left(&rig, &Pushed { forge: other, ..push() }, "4").await);
    let (one, other) = (rig.frontend(), rig.frontend());
    for _ in 0..3 {
        tokio::join!(one.follow_pushes(), other.follow_pushes());
    }
    let begun = one.list(None, 10).await.unwrap();
    let [it] = &begun[..] else { panic!("{} runs", begun.len()) };
    let run = &it.run;
    assert_eq!((run.trigger.as_str(), run.branch.as_str()), ("push", "main"));
    assert_eq!((run.commit.as_str(), run.by.as_str()), ("a".repeat(40).as_str(), "hub: alice"));
    assert_eq!(waiting(&rig).await, 0, "nothing waits for the others");
}

#[tokio::test(start_paused = true)]
async fn whoever_dies_on_the_way_is_followed_by_one_who_begins_the_rest_once() {
    for calls in 0..24 {
        for last_is_done in [false, true] {
            let mut rig = Rig::new();
            rig.declare(&waits("first"));
            let mut both = (*rig.declared).clone();
            rig.declare(&waits("second"));
            both.extend((*rig.declared).clone());
            rig.declared = Arc::new(both);
            assert!(left(&rig, &push(), "1").await);
            let (one, other) = (rig.frontend(), rig.frontend());
            rig.memory.fail_after(calls, last_is_done);
            for _ in 0..2 {
                one.follow_pushes().await;
            }
            rig.memory.recover();
            for _ in 0..3 {
                other.follow_pushes().await;
            }
            let begun = other.list(None, 10).await.unwrap();
            let mut names: Vec<_> = begun.iter().map(|it| it.run.pipeline.as_str()).collect();
            names.sort_unstable();
            assert_eq!(names, ["first", "second"], "after {calls} calls, {last_is_done}");
            assert_eq!(waiting(&rig).await, 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_frontend_with_nothing_else_to_do_looks_for_pushes() {
    let mut rig = Rig::new();
    rig.declare(&waits("pushed"));
    assert!(left(&rig, &push(), "1").await);
    let due = rig.frontend().due(false).await;
    assert!(matches!(due, Ok(Due::Here(due)) if due.len() == 1));
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_holds_up_no_other_push() {
    let mut rig = Rig::new();
    rig.declare(&waits("pushed"));
    let key = "pipelines/pushed/0".to_owned();
    let odd = Write { key, expect: Expect::Absent, value: Some("odd".into()) };
    rig.memory.write(vec![odd]).await.unwrap();
    assert!(left(&rig, &push(), "1").await);
    let one = rig.frontend();
    one.follow_pushes().await;
    assert_eq!(one.list(None, 10).await.unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn nothing_is_begun_for_the_past() {
    let mut rig = Rig::new();
    rig.declare(&waits("pushed"));
    assert!(left(&rig, &push(), "1").await);
    rig.clock.advance(Duration::from_secs(24 * 60 * 60 + 1));
    let one = rig.frontend();
    one.follow_pushes().await;
    assert_eq!(one.list(None, 10).await.unwrap().len(), 0);
    assert_eq!(waiting(&rig).await, 0);
}
