//! Records that cannot be read, among others.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;

use super::rig::Rig;
use crate::model::Time;
use crate::pipelines::control::driver::Driver;
use crate::pipelines::control::kept::Head;
use crate::pipelines::control::store::{decode, delete, put};
use crate::pipelines::control::{Control, ControlError, Said, Stands, keys};
use crate::pipelines::machine::{Event, Logged};
use crate::services::Clock as _;
use crate::storage::memory::Memory;
use crate::storage::{Expect, Record, Records, StorageError, Write};

const PLAIN: &str = "name = \"plain\"\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n";

async fn damage(rig: &Rig, key: String) {
    let value = Some("nothing that is written of a run".into());
    let write = Write { key, expect: Expect::Anything, value };
    rig.memory.write(vec![write]).await.unwrap();
}

async fn listed(control: &Control, before: Option<&str>, limit: usize) -> Vec<String> {
    let listed = control.list(before, limit).await.unwrap();
    listed.into_iter().map(|it| it.run.id).collect()
}

async fn kept(rig: &Rig, prefix: &str) -> Vec<String> {
    let found = rig.memory.list(prefix, None, false, 100).await.unwrap();
    found.into_iter().map(|it| it.key).collect()
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_read_hides_no_other_run_and_stays_while_others_go() {
    let rig = Rig::new();
    let mut ids = Vec::new();
    for _ in 0..4 {
        let run = rig.start(PLAIN).await;
        rig.drive(&run.id).await.unwrap();
        rig.clock.advance(Duration::from_secs(1));
        ids.push(run.id);
    }
    let control = rig.frontend();
    damage(&rig, keys::head(&ids[0])).await;
    damage(&rig, keys::run(&ids[2])).await;
    assert_eq!(listed(&control, None, 10).await, [&*ids[3], &*ids[1]]);
    // A short list would be taken for the last one.
    assert_eq!(listed(&control, None, 1).await, [&*ids[3]]);
    assert_eq!(listed(&control, Some(&ids[3]), 1).await, [&*ids[1]]);
    assert!(matches!(control.show(&ids[0]).await, Err(ControlError::Damaged { .. })));

    rig.clock.advance(Duration::from_secs(2 * 86_400));
    control.sweep().await.unwrap();
    assert!(listed(&control, None, 10).await.is_empty());
    assert_eq!(kept(&rig, keys::RUNS).await, [keys::run(&ids[0]), keys::run(&ids[2])]);
    for (id, stays) in ids.iter().zip([true, false, true, false]) {
        for prefix in [keys::log(id), keys::stages(id), keys::texts(id)] {
            assert_eq!(!kept(&rig, &prefix).await.is_empty(), stays, "{prefix}");
        }
    }
    // Where the records themselves cannot be had, nothing is known.
    rig.memory.fail_after(0, false);
    assert!(matches!(control.list(None, 10).await, Err(ControlError::Storage(_))));
    assert!(matches!(control.sweep().await, Err(ControlError::Storage(_))));
}

#[tokio::test(start_paused = true)]
async fn many_that_cannot_be_read_keep_no_other_run() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    rig.drive(&run.id).await.unwrap();
    // As many as are looked at, and before all others.
    for at in 0..1_000 {
        damage(&rig, keys::run(&format!("-{at:03}"))).await;
    }
    rig.clock.advance(Duration::from_secs(2 * 86_400));
    rig.frontend().sweep().await.unwrap();
    assert!(rig.memory.get(&keys::run(&run.id)).await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_trigger_whose_place_cannot_be_read_begins_what_comes_after_that() {
    let mut rig = Rig::new();
    rig.declare(
        "name = \"after\"\n[[trigger]]\non = \"release\"\nnames = [\"team/app:*\"]\n[[trigger]]\non = \"schedule\"\ncron = \"0 * * * *\"\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n",
    );
    // Another frontend each time: one that has looked remembers it.
    let look = async || {
        let one = rig.frontend();
        one.follow().await;
        one.fire(rig.clock.now()).await;
        let begun = one.list(None, 10).await.unwrap();
        begun.into_iter().map(|it| it.run.trigger).collect::<BTreeSet<_>>()
    };
    let made = |name: &str| rig.releases.0.lock().unwrap().push(format!(" team/app:{name}"));
    assert!(look().await.is_empty());
    let places = kept(&rig, "pipelines/fired/").await;
    assert_eq!(places.len(), 2);
    for key in places {
        damage(&rig, key).await;
    }
    made("1");
    assert!(look().await.is_empty(), "nobody knows whether it was begun");
    made("2");
    rig.clock.advance(Duration::from_secs(3_600));
    assert_eq!(look().await, BTreeSet::from(["release".to_owned(), "schedule".to_owned()]));
}

/// The number of the event for whose lack something was not done.
fn lacking<T>(done: Result<T, ControlError>) -> Option<u64> {
    match done {
        Err(ControlError::Missing { number, .. }) => Some(number),
        _ => None,
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_history_lacks_events_is_not_gone_on_with() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    rig.drive(&run.id).await.unwrap();
    let log = rig.memory.list(&keys::log(&run.id), None, false, 100).await.unwrap();
    assert!(log.len() >= 2, "only {} records", log.len());
    for lost in [&log[0], &log[log.len() - 1]] {
        let number: u64 = lost.key.rsplit('/').next().unwrap().parse().unwrap();
        let write = |value| Write { key: lost.key.clone(), expect: Expect::Anything, value };
        rig.memory.write(vec![write(None)]).await.unwrap();
        assert_eq!(lacking(rig.frontend().show(&run.id).await), Some(number));
        assert_eq!(lacking(rig.drive(&run.id).await), Some(number));
        rig.memory.write(vec![write(Some(lost.value.clone()))]).await.unwrap();
        rig.frontend().show(&run.id).await.unwrap();
    }
    assert_eq!(kept(&rig, &keys::log(&run.id)).await.len(), log.len(), "nothing was appended");
}

const GROUPED: &str = "name = \"grouped\"\nconcurrency = { group = \"g\", busy = \"queue\" }\n[[stage]]\nname = \"a\"\ncommand = [\"true\"]\n";
const ANA: (&str, &str) = ("ana", "a disk is lost");

#[tokio::test(start_paused = true)]
async fn a_run_whose_history_lacks_events_is_given_up_by_a_person_and_frees_its_group() {
    let rig = Rig::new();
    let run = rig.start(GROUPED).await;
    let mut driver = Driver::load(rig.frontend(), &run.id).await.unwrap();
    driver.round(rig.clock.now()).await.unwrap();
    rig.clock.advance(Duration::from_secs(1));
    let next = rig.start(GROUPED).await;
    let control = rig.frontend();
    let whole = control.abandon(&run.id, ANA).await;
    assert!(matches!(whole, Err(ControlError::NotNow(_))), "it can be cancelled: {whole:?}");
    let log = rig.memory.list(&keys::log(&run.id), None, false, 1).await.unwrap().remove(0);
    rig.memory.write(vec![delete(log.key.clone())]).await.unwrap();
    let control = rig.frontend();
    assert!(lacking(control.say(&run.id, &Said::Cancel, ANA).await).is_some());
    assert_eq!(Stands::of(&control.show(&next.id).await.unwrap().state), Stands::Queued);

    let unsaid = control.abandon(&run.id, ("ana", " ")).await;
    assert!(matches!(unsaid, Err(ControlError::Reason)), "{unsaid:?}");
    control.abandon(&run.id, ANA).await.unwrap();
    assert_eq!(kept(&rig, keys::ACTIVE).await, [keys::active(&next.id)]);
    let (head, _) = control.store.head(&run.id).await.unwrap().unwrap();
    assert_eq!((head.stands, head.ended.is_some()), (Stands::Failed, true));
    let note = rig.world.noted.lock().unwrap().last().cloned().unwrap();
    assert_eq!((&*note.actor, &*note.action), ("ana", "pipelines.abandon"));
    assert_eq!(note.subject, format!("grouped/{}", run.id));
    assert!(note.details.contains("a disk is lost"), "{}", note.details);
    let driven = driver.round(rig.clock.now()).await;
    assert!(matches!(driven, Err(ControlError::Abandoned { .. })), "{driven:?}");
    drop(driver);
    rig.drive(&next.id).await.unwrap();

    // Its history is there again: what was given up stays so, until it is removed as any other run.
    let write = Write { key: log.key, expect: Expect::Absent, value: Some(log.value) };
    rig.memory.write(vec![write]).await.unwrap();
    let resumed = control.say(&run.id, &Said::Resume, ANA).await;
    assert!(matches!(resumed, Err(ControlError::Abandoned { .. })), "{resumed:?}");
    let again = control.abandon(&run.id, ANA).await;
    assert!(matches!(again, Err(ControlError::NotNow(_))), "{again:?}");
    assert_eq!(listed(&control, None, 10).await, [&*next.id, &*run.id]);
    rig.clock.advance(Duration::from_secs(2 * 86_400));
    control.sweep().await.unwrap();
    assert!(kept(&rig, keys::RUNS).await.is_empty());
    assert!(kept(&rig, &keys::log(&run.id)).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_whose_group_cannot_be_read_is_given_up_as_well() {
    let rig = Rig::new();
    let run = rig.start(GROUPED).await;
    damage(&rig, kept(&rig, keys::GROUPS).await.remove(0)).await;
    let driven = rig.drive(&run.id).await;
    assert!(matches!(driven, Err(ControlError::Damaged { .. })), "{driven:?}");
    rig.frontend().abandon(&run.id, ANA).await.unwrap();
    assert!(kept(&rig, keys::ACTIVE).await.is_empty());
}

/// Records in which somebody gives up a run right after its head was written.
struct Hasty {
    inner: Memory,
    /// The key of the head; `None`: the run was given up.
    head: Mutex<Option<String>>,
}

#[async_trait]
impl Records for Hasty {
    async fn get(&self, key: &str) -> Result<Option<Record>, StorageError> {
        self.inner.get(key).await
    }

    async fn apply(&self, writes: Vec<Write>) -> Result<Vec<u64>, StorageError> {
        let written = |key: &mut String| writes.iter().any(|it| it.key == *key);
        let head = self.head.lock().unwrap().take_if(written);
        let versions = self.inner.apply(writes).await?;
        if let Some(key) = head {
            let stored = self.inner.get(&key).await?.unwrap();
            let abandoned = Some("ana: a disk is lost".to_owned());
            let head = Head { abandoned, ..decode(&stored).unwrap() };
            let write = put(key, Expect::Version(stored.version), &head).unwrap();
            self.inner.apply(vec![write]).await?;
        }
        Ok(versions)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, StorageError> {
        self.inner.list(prefix, after, reverse, limit).await
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_that_is_given_up_right_behind_a_write_of_its_driver_stays_so() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    let head = Mutex::new(Some(keys::head(&run.id)));
    let hasty = Arc::new(Hasty { inner: rig.memory.clone(), head });
    let mut driver = Driver::load(rig.frontend_on(hasty.clone()), &run.id).await.unwrap();
    driver.round(rig.clock.now()).await.unwrap();
    assert_eq!(*hasty.head.lock().unwrap(), None, "it was not written");
    let driven = driver.round(rig.clock.now()).await;
    assert!(matches!(driven, Err(ControlError::Abandoned { .. })), "{driven:?}");
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_hardly_anything_can_be_read_is_given_up_as_well() {
    let none = Rig::new().frontend().abandon("m1", ANA).await;
    assert!(matches!(none, Err(ControlError::NoRun(_))), "{none:?}");
    for key in [keys::head, keys::run] {
        let rig = Rig::new();
        let run = rig.start(GROUPED).await;
        rig.clock.advance(Duration::from_secs(1));
        let next = rig.start(GROUPED).await;
        damage(&rig, key(&run.id)).await;
        rig.frontend().abandon(&run.id, ANA).await.unwrap();
        rig.drive(&next.id).await.unwrap();
        for prefix in [keys::GROUPS, keys::ACTIVE] {
            assert!(kept(&rig, prefix).await.is_empty(), "{prefix}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_of_which_stages_are_lost_is_not_gone_on_with_and_is_given_up() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    rig.memory.write(vec![delete(keys::part(&run.id, 0))]).await.unwrap();
    let control = rig.frontend();
    for error in [control.show(&run.id).await.err(), rig.drive(&run.id).await.err()] {
        let lacks = matches!(error, Some(ControlError::Lacking { found: 0, count: 1, .. }));
        assert!(lacks, "{error:?}");
    }
    control.abandon(&run.id, ANA).await.unwrap();
    assert!(kept(&rig, keys::ACTIVE).await.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_is_looked_at_more_and_more_rarely() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    damage(&rig, keys::head(&run.id)).await;
    let control = rig.frontend();
    let before = rig.memory.calls();
    assert!(Driver::load(control.clone(), &run.id).await.is_err());
    let each = rig.memory.calls() - before;
    let driving = Box::pin(Driver::keep(control.clone(), run.id.clone()));
    tokio::time::timeout(Duration::from_secs(600), driving).await.unwrap_err();
    let looks = (rig.memory.calls() - before) / each - 1;
    assert!((10..60).contains(&looks), "{looks} in ten minutes");
    let error = control.open(&run.id).await.err().unwrap();
    assert!(!control.troubles.is_news(&run.id, &error), "it was said");
}

#[tokio::test(start_paused = true)]
async fn a_history_that_went_back_and_on_again_is_read_anew() {
    let rig = Rig::new();
    let run = rig.start(PLAIN).await;
    rig.drive(&run.id).await.unwrap();
    let control = rig.frontend();
    let known = control.show(&run.id).await.unwrap().state.length;
    // A store that lost the last writes, behind which others wrote more at once than was lost.
    let log = rig.memory.list(&keys::log(&run.id), None, false, 100).await.unwrap();
    let events = log.iter().flat_map(|it| decode::<Vec<Logged>>(it).unwrap());
    let mut events: Vec<Logged> = events.collect();
    let last = events.last().cloned();
    events.extend(last);
    let (mut head, _) = control.store.head(&run.id).await.unwrap().unwrap();
    head.length = known + 1;
    rig.memory.write(log.into_iter().map(|it| delete(it.key)).collect()).await.unwrap();
    let head = put(keys::head(&run.id), Expect::Anything, &head).unwrap();
    let batch = put(keys::events(&run.id, 0), Expect::Absent, &events).unwrap();
    rig.memory.write(vec![head, batch]).await.unwrap();
    assert_eq!(control.show(&run.id).await.unwrap().state.length, known + 1);
}

#[tokio::test]
async fn a_history_is_read_in_pages_and_not_beyond_its_end() {
    let rig = Rig::new();
    let control = rig.frontend();
    for at in 0..600 {
        let events = [Logged { at: Time(at), event: Event::Began }];
        let write = put(keys::events("long", at), Expect::Absent, &events).unwrap();
        rig.memory.write(vec![write]).await.unwrap();
    }
    let (mut read, mut pages) = (Vec::<Logged>::new(), 0);
    while read.len() < 550 {
        let page = control.store.events("long", read.len() as u64, 550).await.unwrap();
        read.extend(page);
        pages += 1;
    }
    let numbers: Vec<u64> = read.iter().map(|it| it.at.0).collect();
    assert_eq!(numbers, (0..550).collect::<Vec<_>>());
    assert!(pages > 1, "all of it at once");
}
