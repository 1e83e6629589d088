//! Drills that begin by themselves, and what follows where one is overdue.

use std::sync::atomic::Ordering;

use kiln_cas::records::{Expect, Records as _, Write};
use kiln_cas::stores::audit::AuditLog;

use super::rig::{DECLARED, Rig, digest, words};
use crate::rollouts::control::{Control, Start, keys};
use crate::rollouts::machine::{End, Phase};
use crate::rollouts::parts::Place;

const HOUR: u64 = 3_600_000;
const DAY: u64 = 24 * HOUR;

fn daily() -> String {
    let drill = "[drill]\nrelease = \"app:9\"\nzone = \"UTC\"\nstart = \"1970-01-01T01:00\"\nrule = \"FREQ=DAILY\"\n";
    format!("{DECLARED}{drill}")
}

fn place() -> Place {
    Place { service: "api".to_owned(), environment: "prod".to_owned() }
}

/// A rollout that declares a drill each day has ended well.
async fn scheduled() -> Rig {
    let rig = Rig::new();
    let first = rig.start(&daily(), "app:1").await;
    assert_eq!(rig.drive_to_end(&first.id).await, Phase::Ended(End::Succeeded));
    assert!(rig.control.now() < HOUR);
    rig
}

async fn count(control: &Control) -> usize {
    control.list(None, 100).await.unwrap().len()
}

async fn noted(rig: &Rig, action: &str) -> Vec<String> {
    let log = AuditLog::new(rig.records.inner.clone());
    let entries = log.list(0, 1_000).await.unwrap();
    let lines = entries.into_iter().map(|it| it.event).filter(|it| it.action == action);
    lines.map(|it| it.details).collect()
}

#[tokio::test]
async fn a_drill_that_is_due_begins_once_whoever_leads() {
    let rig = scheduled().await;
    rig.control.drill_due().await.unwrap();
    assert_eq!(count(&rig.control).await, 1, "it is not due yet");
    let records = rig.records.clone() as kiln_cas::records::SharedRecords;
    let needs = crate::rollouts::control::needed(&records).await.unwrap();
    assert!(needs.iter().any(|it| *it.version == *digest("app:9").to_string()), "{needs:?}");
    rig.time.0.store(HOUR + 30_000, Ordering::SeqCst);
    rig.control.drill_due().await.unwrap();
    let listed = rig.control.list(None, 10).await.unwrap();
    assert_eq!(listed.len(), 2);
    let drill = &listed[0].rollout;
    assert_eq!((drill.release.to_string(), drill.by.as_str()), ("app:9".to_owned(), "kiln"));
    assert!(drill.drill.is_some() && drill.reason.contains("as ana declared it"), "{drill:?}");
    assert_eq!(rig.drive_to_end(&drill.id).await, Phase::Ended(End::RolledBack));
    let standing = rig.control.drill_standing(drill).await.unwrap().unwrap();
    assert!(standing.last.unwrap().passed && standing.missed.is_none());
    assert_eq!(standing.next, Some(HOUR + DAY));

    // Another leads by now, and a clock was set back.
    let other = rig.elsewhere();
    rig.control.turn.give_up().await.unwrap();
    rig.wait(8_000);
    other.drill_due().await.unwrap();
    assert!(other.leads().await.unwrap() && !rig.control.leads().await.unwrap());
    rig.time.0.store(HOUR - 44_000, Ordering::SeqCst);
    other.drill_due().await.unwrap();
    other.turn.give_up().await.unwrap();
    let third = rig.elsewhere();
    third.drill_due().await.unwrap();
    assert!(third.leads().await.unwrap());
    assert_eq!(count(&other).await, 2);
}

#[tokio::test]
async fn two_who_look_at_once_begin_one() {
    let rig = scheduled().await;
    rig.time.0.store(HOUR, Ordering::SeqCst);
    let key = keys::schedule(&place());
    let record = rig.control.store.records.get(&key).await.unwrap().unwrap();
    let other = rig.elsewhere();
    let (one, two) = tokio::join!(rig.control.drill_at(&record), other.drill_at(&record));
    assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
    assert_eq!(count(&rig.control).await, 2);
}

#[tokio::test]
async fn one_that_cannot_begin_in_time_is_missed_and_said_with_the_reason() {
    let rig = scheduled().await;
    *rig.listed.frozen.lock().unwrap() = Some("held by bob: a migration".to_owned());
    rig.time.0.store(HOUR + 1_000, Ordering::SeqCst);
    for _ in 0..3 {
        rig.control.drill_due().await.unwrap();
        rig.wait(20_000);
    }
    let hindered = rig.control.scheduled(&place()).await.unwrap().unwrap().hindered;
    assert_eq!(hindered.as_deref(), Some("held by bob: a migration"));
    rig.wait(HOUR);
    *rig.listed.frozen.lock().unwrap() = None;
    for _ in 0..2 {
        rig.control.drill_due().await.unwrap();
    }
    assert_eq!(count(&rig.control).await, 1, "it is too late");
    let lines = noted(&rig, "rollout.drill.missed").await;
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].contains("held by bob: a migration"), "{lines:?}");
    let told = rig.control.notices(1_000).await.unwrap();
    assert!(told.iter().any(|it| it.event == "rollout.drill.missed"));

    // Nobody was there for days: all but the last are missed, and that one begins.
    rig.time.0.store(HOUR + 4 * DAY + 1_000, Ordering::SeqCst);
    rig.control.drill_due().await.unwrap();
    assert_eq!(count(&rig.control).await, 1);
    rig.control.drill_due().await.unwrap();
    assert_eq!(count(&rig.control).await, 2);
    let missed = rig.control.scheduled(&place()).await.unwrap().unwrap().missed.unwrap();
    assert_eq!(missed.count, 3);
    assert_eq!(rig.control.figures().drills_missed, 4);
}

#[tokio::test]
async fn a_schedule_goes_with_the_declaration_that_has_none() {
    let rig = scheduled().await;
    assert!(rig.control.scheduled(&place()).await.unwrap().is_some());
    let next = rig.start(DECLARED, "app:2").await;
    rig.drive_to_end(&next.id).await;
    assert!(rig.control.scheduled(&place()).await.unwrap().is_none());
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_holds_up_no_rollout_and_is_replaced() {
    let rig = scheduled().await;
    let key = keys::schedule(&place());
    let damage = || {
        let value = Some("no schedule".into());
        vec![Write { key: key.clone(), expect: Expect::Anything, value }]
    };
    rig.records.inner.write(damage()).await.unwrap();
    let next = rig.start(&daily(), "app:2").await;
    assert_eq!(rig.drive_to_end(&next.id).await, Phase::Ended(End::Succeeded));
    assert_eq!(rig.control.scheduled(&place()).await.unwrap().unwrap().rollout, next.id);
    rig.records.inner.write(damage()).await.unwrap();
    let last = rig.start(DECLARED, "app:3").await;
    assert_eq!(rig.drive_to_end(&last.id).await, Phase::Ended(End::Succeeded));
    assert!(rig.records.inner.get(&key).await.unwrap().is_none(), "none is declared any more");
}

#[tokio::test]
async fn what_is_overdue_holds_up_rollouts_unless_somebody_overrides_it_or_it_only_says_so() {
    let rig = Rig::new();
    let demands = format!("drill_every = \"30d\"\n{DECLARED}");
    let refused = rig.control.start(&Rig::ask(&demands, "app:1")).await.unwrap_err();
    assert!(
        words(&refused).contains("a drill is overdue")
            && words(&refused).contains("--without-drill")
    );
    let ask = Start { without_drill: true, ..Rig::ask(&demands, "app:1") };
    let one = rig.control.start(&ask).await.unwrap();
    let lines = noted(&rig, "rollout.override").await;
    assert!(lines.len() == 1 && lines[0].contains("a drill is overdue"), "{lines:?}");
    assert!(lines[0].contains("June"), "the reason: {lines:?}");
    rig.drive_to_end(&one.id).await;
    let says = format!("{demands}[drill]\noverdue = \"say\"\n");
    let next = rig.start(&says, "app:2").await;
    let standing = rig.control.drill_standing(&next).await.unwrap().unwrap();
    assert!(standing.is_overdue && standing.next.is_none());
    assert_eq!(noted(&rig, "rollout.override").await.len(), 1, "nothing was overridden");
}
