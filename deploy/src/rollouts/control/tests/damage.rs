//! Records that cannot be read, among others.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use kiln_cas::records::{Expect, Record, Records, RecordsError, SharedRecords, Version, Write};
use kiln_cas::stores::MemoryRecords;

use super::rig::{DECLARED, Fake, Rig, digest};
use crate::rollouts::control::append::{Appended, More};
use crate::rollouts::control::kept::Head;
use crate::rollouts::control::store::{decode, delete, put};
use crate::rollouts::control::{By, Command, Control, ControlError, Driver};
use crate::rollouts::control::{Rollout, Start, keys, needed};
use crate::rollouts::machine::{End, Input, Logged, Phase};
use crate::rollouts::parts::Place;

async fn damage(rig: &Rig, key: String) {
    let value = Some("nothing that is written of a rollout".into());
    let write = Write { key, expect: Expect::Anything, value };
    rig.records.inner.write(vec![write]).await.unwrap();
}

async fn listed(control: &Control, before: Option<&str>, limit: usize) -> Vec<String> {
    let listed = control.list(before, limit).await.unwrap();
    listed.into_iter().map(|it| it.rollout.id).collect()
}

#[tokio::test]
async fn what_cannot_be_read_hides_no_other_rollout() {
    let rig = Rig::new();
    for release in ["app:1", "app:2", "app:3", "app:4"] {
        rig.good(release).await;
    }
    let ids = listed(&rig.control, None, 10).await;
    damage(&rig, keys::run(&ids[1])).await;
    damage(&rig, keys::head(&ids[2])).await;
    assert_eq!(listed(&rig.control, None, 10).await, [&*ids[0], &*ids[3]]);
    // A short list would be taken for the last one.
    assert_eq!(listed(&rig.control, Some(&ids[0]), 1).await, [&*ids[3]]);
    assert!(matches!(rig.control.show(&ids[2]).await, Err(ControlError::Damaged { .. })));
    assert!(rig.control.counted(0).await.unwrap().running.is_empty());
}

#[tokio::test]
async fn what_cannot_be_read_of_a_place_hides_no_other_one_and_lets_no_release_go() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let place = |service: &str| {
        let environment = "prod".to_owned();
        Place { service: service.to_owned(), environment }
    };
    rig.control.lock(&place("web"), "ana", "it is June", 60_000).await.unwrap();
    damage(&rig, keys::lock(&place("a"))).await;
    let locks = rig.control.locks().await.unwrap();
    assert_eq!(locks.iter().map(|it| &*it.place.service).collect::<Vec<_>>(), ["web"]);

    // What a newer server declared is not understood.
    let found = rig.control.list(None, 1).await.unwrap().remove(0).rollout;
    let declared = format!("later = 1\n{}", found.declared);
    let key = keys::run(&found.id);
    let odd = Rollout { declared, ..found };
    let value = Some(serde_json::to_vec(&odd).unwrap().into());
    let write = Write { key, expect: Expect::Anything, value };
    rig.records.inner.write(vec![write]).await.unwrap();
    assert!(rig.control.drill_standing(&odd).await.is_err());
    assert!(rig.control.drill_listed(&odd).await.unwrap().is_none());
    assert_eq!(rig.control.drills_overdue().await.unwrap(), 0);

    let records = rig.records.clone() as SharedRecords;
    assert!(!needed(&records).await.unwrap().is_empty());
    damage(&rig, keys::place(&place("a"))).await;
    assert_eq!(rig.control.drills_overdue().await.unwrap(), 0);
    // It may need any release.
    assert!(matches!(needed(&records).await, Err(ControlError::Damaged { .. })));
}

/// The number of the event for whose lack something was not done.
fn lacking<T>(done: Result<T, ControlError>) -> Option<u64> {
    match done {
        Err(ControlError::Missing { number, .. }) => Some(number),
        _ => None,
    }
}

#[tokio::test]
async fn a_rollout_whose_log_lacks_events_is_not_gone_on_with() {
    let rig = Rig::new();
    let one = rig.start(DECLARED, "app:1").await;
    rig.drive_to_end(&one.id).await;
    let log = rig.records.inner.list(&keys::log(&one.id), None, false, 100).await.unwrap();
    assert!(log.len() > 2, "only {} records", log.len());
    rig.control.show(&one.id).await.unwrap();
    for lost in [&log[0], &log[1], &log[log.len() - 1]] {
        let number: u64 = lost.key.rsplit('/').next().unwrap().parse().unwrap();
        let write = |value| Write { key: lost.key.clone(), expect: Expect::Anything, value };
        rig.records.inner.write(vec![write(None)]).await.unwrap();
        assert_eq!(lacking(rig.elsewhere().show(&one.id).await), Some(number));
        assert!(
            lacking(rig.control.show(&one.id).await) >= Some(number),
            "it is known what follows"
        );
        assert_eq!(lacking(Driver::load(rig.elsewhere(), &one.id).await), Some(number));
        rig.records.inner.write(vec![write(Some(lost.value.clone()))]).await.unwrap();
        rig.elsewhere().show(&one.id).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn what_cannot_be_driven_is_said_once() {
    let rig = Rig::new();
    let one = rig.start(DECLARED, "app:1").await;
    rig.records.inner.write(vec![delete(keys::events(&one.id, 0))]).await.unwrap();
    let control = rig.elsewhere();
    let driving = Box::pin(Driver::keep(control.clone(), one.id.clone()));
    tokio::time::timeout(Duration::from_secs(60), driving).await.unwrap_err();
    let error = control.open(&one.id).await.err().unwrap();
    assert!(!control.troubles.is_news(&one.id, &error), "it was said");

    let schedule = keys::schedule(&one.place);
    damage(&rig, schedule.clone()).await;
    rig.control.drill_due().await.unwrap();
    let record = rig.records.inner.get(&schedule).await.unwrap().unwrap();
    let error = rig.control.drill_at(&record).await.unwrap_err();
    assert!(!rig.control.troubles.is_news(&schedule, &error), "it was said");
}

fn ana() -> By {
    By { name: "ana".to_owned(), reason: "a disk is lost".to_owned() }
}

#[tokio::test]
async fn a_rollout_whose_log_lacks_events_is_given_up_by_a_person_and_frees_its_place() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    let whole = rig.elsewhere().abandon(&one.id, &ana()).await.unwrap_err().to_string();
    assert!(whole.contains("kiln rollout abort"), "{whole}");
    let log = rig.records.inner.list(&keys::log(&one.id), None, false, 100).await.unwrap();
    rig.records.inner.write(vec![delete(log[1].key.clone())]).await.unwrap();
    let (control, runs) = (rig.elsewhere(), rig.runs());
    assert!(lacking(control.say(&one.id, Command::Abort, &ana()).await).is_some());
    let busy = control.start(&Rig::ask(DECLARED, "app:3")).await;
    assert!(matches!(busy, Err(ControlError::Busy { .. })));

    let unsaid = By { reason: " ".to_owned(), ..ana() };
    assert!(matches!(control.abandon(&one.id, &unsaid).await, Err(ControlError::Reason)));
    control.abandon(&one.id, &ana()).await.unwrap();
    assert_eq!(rig.runs(), runs, "nothing is reverted");
    assert!(control.locks().await.unwrap().is_empty());
    assert!(control.store.active().await.unwrap().iter().all(|id| *id != one.id));
    let head = control.head(&one.id).await.unwrap().unwrap();
    assert_eq!((head.ended, &*head.phase), (true, "rollback_failed"));
    let audit = kiln_cas::stores::audit::AuditLog::new(rig.records.inner.clone());
    let last = audit.list_newest(None, 1).await.unwrap().remove(0).event;
    assert_eq!((&*last.actor, &*last.action), ("ana", "rollout.abandon"));
    assert!(last.details.contains("a disk is lost"), "{}", last.details);

    // Its log is there again: what was given up stays so.
    let (key, value) = (log[1].key.clone(), Some(log[1].value.clone()));
    rig.records.inner.write(vec![Write { key, expect: Expect::Absent, value }]).await.unwrap();
    let shown = control.show(&one.id).await.err();
    assert!(matches!(shown, Some(ControlError::Abandoned { .. })), "{shown:?}");
    let again = control.abandon(&one.id, &ana()).await;
    assert!(matches!(again, Err(ControlError::NotNow(_))), "{again:?}");
    rig.good("app:3").await;
    // It is still looked after.
    let ended = control.store.active().await.unwrap().pop().unwrap();
    let over = control.abandon(&ended, &ana()).await.unwrap_err().to_string();
    assert!(over.contains("over already"), "{over}");
}

#[tokio::test]
async fn a_lock_that_cannot_be_read_holds_up_no_way_back_and_is_replaced_by_a_person() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    damage(&rig, keys::lock(&one.place)).await;
    let own = rig.control.unlock(&one.place, "ana", "a disk is lost").await.unwrap_err();
    assert!(own.to_string().contains("abort it"), "{own}");
    rig.control.say(&one.id, Command::Abort, &ana()).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RolledBack));
    assert_eq!(rig.runs(), vec![digest("app:1"); 4]);

    // Nobody knows who has it: what begins waits, until a person replaces it.
    let next = rig.start(DECLARED, "app:3").await;
    assert_eq!(rig.drive(&next.id, 30, |_| false).await, Phase::Waiting);
    let waits = rig.control.show(&next.id).await.unwrap().waits_for.unwrap();
    assert!(waits.contains("kiln rollout unlock"), "{waits}");
    rig.control.unlock(&one.place, "ana", "a disk is lost").await.unwrap();
    // Targets obey what is told with the new lock.
    assert_eq!(rig.drive_to_end(&next.id).await, Phase::Ended(End::Succeeded));
    assert_eq!(rig.runs(), vec![digest("app:3"); 4]);
}

#[tokio::test]
async fn a_place_that_cannot_be_read_is_begun_anew_by_whoever_names_what_to_return_to() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    damage(&rig, keys::place(&one.place)).await;
    let unnamed = Rig::ask(DECLARED, "app:3");
    let named = Start { previous: Some("app:1".parse().unwrap()), ..unnamed.clone() };
    let busy = rig.control.start(&named).await;
    assert!(matches!(busy, Err(ControlError::Damaged { .. })), "one goes on there: {busy:?}");
    rig.control.say(&one.id, Command::Abort, &ana()).await.unwrap();
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::RolledBack));
    let refused = rig.control.start(&unnamed).await;
    assert!(matches!(refused, Err(ControlError::Damaged { .. })), "{refused:?}");
    let next = rig.control.start(&named).await.unwrap();
    assert_eq!(next.previous.unwrap().release.to_string(), "app:1");
    assert_eq!(rig.drive_to_end(&next.id).await, Phase::Ended(End::Succeeded));
    rig.good("app:4").await;
}

#[tokio::test]
async fn a_rollout_that_ends_well_writes_anew_what_stands_where_that_cannot_be_read() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    damage(&rig, keys::place(&one.place)).await;
    assert_eq!(rig.drive_to_end(&one.id).await, Phase::Ended(End::Succeeded));
    let next = rig.start(DECLARED, "app:3").await;
    assert_eq!(next.previous.unwrap().release.to_string(), "app:2");
}

#[tokio::test]
async fn what_cannot_be_read_beside_a_rollout_hides_it_from_nobody_and_can_be_overridden() {
    let rig = Rig::new();
    rig.good("app:1").await;
    let one = rig.start(DECLARED, "app:2").await;
    rig.drive(&one.id, 60, |phase| matches!(phase, Phase::Baking(0))).await;
    damage(&rig, keys::latest(&one.id)).await;
    damage(&rig, keys::judgement(&one.id, 1)).await;
    let shown = rig.control.show(&one.id).await.unwrap();
    assert!(shown.latest.is_none() && shown.judgements.is_empty());
    rig.control.say(&one.id, Command::Abort, &ana()).await.unwrap();
    rig.drive_to_end(&one.id).await;

    damage(&rig, keys::bad(&one.place, &digest("app:3").to_string())).await;
    damage(&rig, keys::drill(&one.place, "passed")).await;
    let ask = Rig::ask(&format!("drill_every = \"30d\"\n{DECLARED}"), "app:3");
    for (again, without_drill, part) in
        [(true, false, "a drill is overdue"), (false, true, "reverted there before")]
    {
        let ask = Start { again, without_drill, ..ask.clone() };
        let refused = rig.control.start(&ask).await.unwrap_err();
        assert!(refused.to_string().contains(part), "{refused}");
    }
    let ask = Start { again: true, without_drill: true, ..ask };
    let next = rig.control.start(&ask).await.unwrap();
    assert_eq!(rig.drive_to_end(&next.id).await, Phase::Ended(End::Succeeded));
}

/// Records in which somebody gives up a rollout right after its head was written.
struct Hasty {
    inner: Arc<MemoryRecords>,
    /// The key of the head; `None`: the rollout was given up.
    head: Mutex<Option<String>>,
}

#[async_trait]
impl Records for Hasty {
    async fn get(&self, key: &str) -> Result<Option<Record>, RecordsError> {
        self.inner.get(key).await
    }

    async fn write(&self, writes: Vec<Write>) -> Result<Vec<Version>, RecordsError> {
        let written = |key: &mut String| writes.iter().any(|it| it.key == *key);
        let head = self.head.lock().unwrap().take_if(written);
        let versions = self.inner.write(writes).await?;
        if let Some(key) = head {
            let stored = self.inner.get(&key).await?.unwrap();
            let abandoned = Some("ana: a disk is lost".to_owned());
            let head = Head { abandoned, ..decode(&stored).unwrap() };
            let write = put(key, Expect::Version(stored.version), &head).unwrap();
            self.inner.write(vec![write]).await?;
        }
        Ok(versions)
    }

    async fn list(
        &self,
        prefix: &str,
        after: Option<&str>,
        reverse: bool,
        limit: usize,
    ) -> Result<Vec<Record>, RecordsError> {
        self.inner.list(prefix, after, reverse, limit).await
    }
}

#[tokio::test]
async fn a_rollout_that_is_given_up_right_behind_a_write_of_its_driver_stays_so() {
    let rig = Rig::new();
    let one = rig.start(DECLARED, "app:1").await;
    let head = Mutex::new(Some(keys::head(&one.id)));
    let control = rig.elsewhere_on(Arc::new(Hasty { inner: rig.records.inner.clone(), head }));
    let mut open = control.open(&one.id).await.unwrap();
    let by = ("kiln", control.now());
    for (input, is_first) in [(Input::Pause("ana".to_owned()), true), (Input::Resume, false)] {
        let told = control.append(&mut open, &[input], by, More::default()).await.unwrap();
        assert_eq!(told != Appended::Conflict, is_first, "{told:?}");
    }
    let shown = control.show(&one.id).await.err();
    assert!(matches!(shown, Some(ControlError::Abandoned { .. })), "{shown:?}");
}

#[tokio::test]
async fn a_rollout_of_which_hardly_anything_can_be_read_is_given_up_as_well() {
    let none = Rig::new().control.abandon("m1", &ana()).await;
    assert!(matches!(none, Err(ControlError::NoRollout(_))), "{none:?}");
    for key in [keys::head, keys::run] {
        let rig = Rig::new();
        let one = rig.start(DECLARED, "app:1").await;
        damage(&rig, key(&one.id)).await;
        damage(&rig, keys::lock(&one.place)).await;
        rig.elsewhere().abandon(&one.id, &ana()).await.unwrap();
        rig.good("app:2").await;
    }
}

#[tokio::test]
async fn a_rollout_of_whose_targets_a_part_is_lost_tells_none_of_the_others() {
    let rig = Rig::new();
    for number in 0..60 {
        let old = Fake { version: Some(digest("old")), ..Fake::default() };
        rig.fleet.targets.lock().unwrap().insert(format!("t{number:02}"), old);
    }
    let one = rig.start(&DECLARED.replace("targets = 4", "targets = 64"), "app:1").await;
    let parts = rig.records.inner.list(&keys::targets(&one.id), None, false, 10).await.unwrap();
    assert_eq!(parts.len(), 2);
    rig.records.inner.write(vec![delete(parts[0].key.clone())]).await.unwrap();
    let control = rig.elsewhere();
    for error in
        [control.show(&one.id).await.err(), Driver::load(control.clone(), &one.id).await.err()]
    {
        let lacks = matches!(error, Some(ControlError::Lacking { found: 14, count: 64, .. }));
        assert!(lacks, "{error:?}");
    }
    control.abandon(&one.id, &ana()).await.unwrap();
    assert!(control.store.active().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_log_that_went_back_and_on_again_is_read_anew() {
    let rig = Rig::new();
    let one = rig.start(DECLARED, "app:1").await;
    rig.drive_to_end(&one.id).await;
    let known = rig.control.show(&one.id).await.unwrap().state.length;
    // A store that lost the last writes, behind which others wrote more at once than was lost.
    let log = rig.records.inner.list(&keys::log(&one.id), None, false, 100).await.unwrap();
    let events = log.iter().flat_map(|it| decode::<Vec<Logged>>(it).unwrap());
    let mut events: Vec<Logged> = events.collect();
    let last = events.last().cloned();
    events.extend(last);
    let (mut head, _) = rig.control.store.head(&one.id).await.unwrap().unwrap();
    head.length = known + 1;
    rig.records.inner.write(log.into_iter().map(|it| delete(it.key)).collect()).await.unwrap();
    let head = put(keys::head(&one.id), Expect::Anything, &head).unwrap();
    let batch = put(keys::events(&one.id, 0), Expect::Absent, &events).unwrap();
    rig.records.inner.write(vec![head, batch]).await.unwrap();
    assert_eq!(rig.control.show(&one.id).await.unwrap().state.length, known + 1);
}
