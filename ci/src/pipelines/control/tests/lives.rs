//! Whole lives of runs: what people say, groups, logs, and their end.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::rig::{Rig, ask};
use crate::pipelines::control::driver::Driver;
use crate::pipelines::control::{Control, ControlError, Said, Stands, keys};
use crate::pipelines::runner::TaskKey;
use crate::services::Clock as _;
use crate::storage::{Expect, Records as _, Write};

const PLAIN: &str = "name = \"plain\"\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n[[stage]]\nname = \"b\"\nneeds = [\"a\"]\ncommand = [\"true\"]\n";

fn hanging(busy: &str) -> String {
    format!(
        "name = \"slow\"\nconcurrency = {{ group = \"g\", busy = \"{busy}\" }}\n[[stage]]\nname = \"hangs\"\ncommand = [\"true\"]\n"
    )
}

async fn stands(rig: &Rig, id: &str) -> Stands {
    Stands::of(&rig.frontend().show(id).await.unwrap().state)
}

#[tokio::test(start_paused = true)]
async fn a_failed_run_goes_on_where_it_failed() {
    let rig = Rig::new();
    rig.world.broken.lock().unwrap().push("b".to_owned());
    let run = rig.start(PLAIN).await;
    rig.drive(&run.id).await.unwrap();
    assert_eq!(stands(&rig, &run.id).await, Stands::Failed);
    rig.world.broken.lock().unwrap().clear();
    let (control, by) = (rig.frontend(), ("bob", "mended"));
    control.say(&run.id, &Said::Resume, by).await.unwrap();
    rig.drive(&run.id).await.unwrap();
    assert_eq!(stands(&rig, &run.id).await, Stands::Passed);
    assert_eq!((rig.times()["a"], rig.times()["b"]), (1, 2));
    let again = control.say(&run.id, &Said::Resume, by).await;
    assert!(matches!(again, Err(ControlError::NotNow(_))), "it has passed");
}

#[tokio::test(start_paused = true)]
async fn a_run_that_was_seen_before_is_seen_as_it_is_now() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    let (seen, mut driver) = (rig.frontend(), Driver::load(rig.frontend(), &run.id).await.unwrap());
    loop {
        let over = driver.round(rig.clock.now()).await.unwrap().is_none();
        let now = rig.frontend().show(&run.id).await.unwrap();
        for shown in [seen.show(&run.id).await.unwrap(), seen.show(&run.id).await.unwrap()] {
            assert_eq!((&shown.state, shown.now), (&now.state, now.now));
        }
        if over {
            assert!(now.state.is_over());
            return;
        }
        driver.pause(Duration::from_secs(1)).await;
        rig.clock.advance(Duration::from_secs(1));
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_printed_is_kept_once() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    rig.drive(&run.id).await.unwrap();
    let control = rig.frontend();
    let part = control.log((&run.id, 1, 1), 0).await.unwrap();
    assert_eq!((part.bytes.as_slice(), part.is_end), (&b"b says hello\n"[..], true));
    let behind = control.log((&run.id, 1, 1), part.next).await.unwrap();
    assert!(behind.bytes.is_empty() && behind.is_end);
}

#[tokio::test]
async fn a_log_in_many_small_parts_is_read_in_few_answers() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    let key = TaskKey { run: run.id.clone(), stage: 0, attempt: 1 };
    let part = |offset: u64| Write {
        key: keys::chunk(&key, offset),
        expect: Expect::Absent,
        value: Some("x".into()),
    };
    rig.memory.write((0..600).map(part).collect()).await.unwrap();
    let control = rig.frontend();
    let first = control.log((&run.id, 0, 1), 0).await.unwrap();
    let rest = control.log((&run.id, 0, 1), first.next).await.unwrap();
    assert_eq!((first.bytes.len() + rest.bytes.len(), rest.next), (600, 600));
}

#[tokio::test(start_paused = true)]
async fn cancelling_reaches_what_runs() {
    for slips in [false, true] {
        let rig = Rig::new();
        rig.world.slips.store(slips, Ordering::Relaxed);
        let run = rig.start(&hanging("queue")).await;
        let saying = async {
            while rig.world.done.lock().unwrap().is_empty() {
                tokio::task::yield_now().await;
            }
            rig.frontend().say(&run.id, &Said::Cancel, ("bob", "enough")).await.unwrap();
        };
        let (driven, ()) = tokio::join!(rig.drive(&run.id), saying);
        driven.unwrap();
        assert_eq!(stands(&rig, &run.id).await, Stands::Cancelled);
        assert_eq!(rig.world.cancelled.lock().unwrap().len(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_stage_whose_runner_panics_ends_with_words_and_its_log() {
    let rig = Rig::new();
    let run = rig.start(&PLAIN.replace("\"a\"", "\"panics\"")).await;
    rig.drive(&run.id).await.unwrap();
    assert_eq!(stands(&rig, &run.id).await, Stands::Failed);
    let state = format!("{:?}", rig.frontend().show(&run.id).await.unwrap().state);
    assert!(state.contains("a fault of Kiln ended it"), "{state}");
    let part = rig.frontend().log((&run.id, 0, 1), 0).await.unwrap();
    assert_eq!((part.bytes.as_slice(), part.is_end), (&b"panics says hello\n"[..], true));
}

#[tokio::test(start_paused = true)]
async fn a_run_that_supersedes_begins_when_the_other_has_ended() {
    let rig = Rig::new();
    let first = rig.start(&hanging("supersede")).await;
    let second = rig.start(&hanging("supersede").replace("hangs", "goes")).await;
    assert_eq!(stands(&rig, &second.id).await, Stands::Queued);
    let (one, other) = tokio::join!(rig.drive(&first.id), rig.drive(&second.id));
    one.unwrap();
    other.unwrap();
    assert_eq!(stands(&rig, &first.id).await, Stands::Superseded);
    assert_eq!(stands(&rig, &second.id).await, Stands::Passed);
}

const DEPLOYS: &str =
    "[[stage]]\nname = \"deploy\"\nkind = \"program\"\nprogram = \"deploy\"\nneeds = [\"hangs\"]\n";

#[tokio::test(start_paused = true)]
async fn what_only_runs_commands_takes_no_turn_of_what_releases() {
    let rig = Rig::new();
    let first = rig.start(&(hanging("queue") + DEPLOYS)).await;
    let second = rig.start(&hanging("supersede").replace("hangs", "goes")).await;
    rig.drive(&second.id).await.unwrap();
    assert_eq!(stands(&rig, &second.id).await, Stands::Passed);
    let third = rig.start(&(hanging("queue") + DEPLOYS)).await;
    for run in [&first, &third] {
        assert_eq!(stands(&rig, &run.id).await, Stands::Queued);
        assert!(run.releases && run.group == first.group && run.group != second.group);
    }
}

#[tokio::test(start_paused = true)]
async fn there_is_room_for_releases_when_others_have_begun_all_that_they_may() {
    let rig = Rig::new();
    for number in 0..900 {
        let (key, value) = (keys::active(&format!("{number:012}")), Some("0".into()));
        rig.memory.write(vec![Write { key, expect: Expect::Absent, value }]).await.unwrap();
    }
    let control = rig.frontend();
    let read = async |text: String| Control::read(text).await.unwrap();
    let refused = control.start(&read(PLAIN.to_owned()).await, &ask()).await;
    assert!(matches!(refused, Err(ControlError::Busy(900))), "{refused:?}");
    control.start(&read(hanging("queue") + DEPLOYS).await, &ask()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn people_are_asked_and_whoever_began_it_is_not() {
    let rig = Rig::new();
    let text =
        "name = \"asks\"\n[[stage]]\nname = \"ok\"\nkind = \"approve\"\nmessage = \"ship?\"\n";
    let run = rig.start(text).await;
    let control = rig.frontend();
    let early = control.say(&run.id, &Said::Approve(None), ("bob", "")).await;
    assert!(matches!(early, Err(ControlError::NotNow(_))), "its turn has not come");
    let saying = async {
        while stands(&rig, &run.id).await != Stands::Asking {
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let own = control.say(&run.id, &Said::Approve(None), ("ann", "")).await;
        assert!(matches!(own, Err(ControlError::NotNow(_))), "she began it");
        let said = Said::Approve(Some("ok".to_owned()));
        control.say(&run.id, &said, ("bob", "")).await.unwrap();
    };
    let (driven, ()) = tokio::join!(rig.drive(&run.id), saying);
    driven.unwrap();
    assert_eq!(stands(&rig, &run.id).await, Stands::Passed);
}

#[tokio::test(start_paused = true)]
async fn old_runs_are_removed_with_all_that_was_kept() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    rig.drive(&run.id).await.unwrap();
    let control = rig.frontend();
    control.sweep().await.unwrap();
    assert_eq!(control.list(None, 10).await.unwrap().len(), 1);
    rig.clock.advance(Duration::from_secs(2 * 86_400));
    control.sweep().await.unwrap();
    assert!(control.list(None, 10).await.unwrap().is_empty());
    assert_eq!(rig.memory.records(), 0, "nothing is left");
    assert!(matches!(control.show(&run.id).await, Err(ControlError::NoRun(_))));
}
