//! Drills that begin by themselves. What is kept of a schedule says up to which moment all of them are dealt with: that is
//! written in one step with the drill that begins, or with what is said of one that is missed, so that none begins twice,
//! whoever leads and whatever a clock does.

use std::time::Duration;

use kiln_cas::records::{Expect, Record, Write};
use kiln_cas::stores::audit::AuditEvent;
use kiln_net::causes::chain;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::asked::Start;
use super::error::ControlError;
use super::kept::Rollout;
use super::notice::{Notice, cut};
use super::store::{Store, decode, put};
use super::{Control, keys};
use crate::rollouts::machine::{Millis, Version};
use crate::rollouts::parts::{Place, Standing};
use crate::rollouts::plan::{self, DrillSchedule, Due};
use crate::timestamp::Timestamp;

/// How often it is looked whether a drill is due.
const LOOK: Duration = Duration::from_secs(60);
/// Schedules that are looked after.
const MAX_SCHEDULES: usize = 1_000;

/// The schedule of a place: that of the last rollout that ended well there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Scheduled {
    pub place: Place,
    pub declared: String,
    /// The content that is delivered, as far as it was there: it is kept.
    #[serde(default)]
    pub version: Option<Version>,
    /// The rollout that declared it, and who began that.
    pub rollout: String,
    pub by: String,
    /// The moment up to which all drills are dealt with.
    pub until: Millis,
    /// Why the one that is due does not begin, in words.
    pub hindered: Option<String>,
    pub missed: Option<Missed>,
}

/// Drills that did not begin.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Missed {
    /// When the last of the missed drills should have begun.
    pub at: Millis,
    pub count: usize,
    pub why: String,
}

/// A moment, for people.
fn shown(at: Millis) -> Timestamp {
    Timestamp::from_unix(i64::try_from(at / 1_000).unwrap_or(i64::MAX))
}

fn schedule(declared: &str) -> Option<DrillSchedule> {
    plan::read(declared).ok()?.drilling.schedule
}

/// What is to be written when a rollout ended well: its schedule takes the place of the one before, also of one that cannot be
/// read.
pub async fn follows(
    store: &Store,
    rollout: &Rollout,
    (now, version): (Millis, Option<Version>),
) -> Result<Option<Write>, ControlError> {
    let key = keys::schedule(&rollout.place);
    let stored = store.records.get(&key).await?;
    let expect = stored.as_ref().map_or(Expect::Absent, |it| Expect::Version(it.version));
    let before = stored.as_ref().map(decode::<Scheduled>).transpose();
    let before = store.readable(before)?.flatten();
    match (schedule(&rollout.declared), before) {
        (None, _) if stored.is_none() => Ok(None),
        (None, _) => Ok(Some(Write { key, expect, value: None })),
        (Some(_), before) => {
            // Whatever was dealt with stays so.
            let until = before.as_ref().map_or(now, |it| it.until.max(now));
            let kept = Scheduled {
                place: rollout.place.clone(),
                declared: rollout.declared.clone(),
                version,
                rollout: rollout.id.clone(),
                by: rollout.by.clone(),
                until,
                hindered: None,
                missed: before.and_then(|it| it.missed),
            };
            put(key, expect, &kept).map(Some)
        }
    }
}

impl Scheduled {
    /// When the next drill begins.
    pub fn next(&self, now: Millis) -> Option<Millis> {
        schedule(&self.declared)?.next(self.until.max(now))
    }

    fn ask(&self, schedule: &DrillSchedule, at: Millis) -> Start {
        Start {
            declared: self.declared.clone(),
            release: schedule.release.clone(),
            environment: self.place.environment.clone(),
            by: "kiln".to_owned(),
            reason: cut(&format!("the drill of {}, as {} declared it", shown(at), self.by)),
            supersede: false,
            again: false,
            drill: true,
            without_drill: false,
            previous: None,
        }
    }
}

impl Control {
    /// Begins drills when they are due, for ever. Drop it to end it.
    pub async fn keep_drilled(&self) {
        loop {
            if let Err(error) = self.drill_due().await {
                tracing::warn!(error = %chain(&error), "it is not known which drills are due");
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Begins those that are due now, if this process has the lease.
    pub(super) async fn drill_due(&self) -> Result<(), ControlError> {
        let found = self.store.records.list(keys::SCHEDULES, None, false, MAX_SCHEDULES).await?;
        if found.is_empty() || !self.leads().await? {
            return Ok(());
        }
        for record in &found {
            match self.drill_at(record).await {
                Ok(()) => self.troubles.end(&record.key),
                Err(error) if self.troubles.is_news(&record.key, &error) => {
                    tracing::warn!(key = record.key, error = %chain(&error), "a drill may be due");
                }
                Err(_) => {}
            }
        }
        Ok(())
    }

    pub(super) async fn drill_at(&self, record: &Record) -> Result<(), ControlError> {
        let scheduled: Scheduled = decode(record)?;
        let now = self.now();
        let Some(schedule) = schedule(&scheduled.declared) else { return Ok(()) };
        let Some(due) = schedule.due(scheduled.until, now) else { return Ok(()) };
        let expect = Expect::Version(record.version);
        if schedule.is_late(due.at, now) {
            let why = scheduled.hindered.clone();
            let why = why.unwrap_or_else(|| "no server was there to begin it".to_owned());
            let missed = Missed { at: due.at, count: due.missed + 1, why };
            return self.miss(Scheduled { until: due.at, ..scheduled }, missed, expect).await;
        }
        if due.missed > 0 {
            // Those before it are said first; the last one begins at the next look.
            let (at, count) = (due.at.saturating_sub(1), due.missed);
            let why = "no server was there to begin them".to_owned();
            let missed = Missed { at, count, why };
            return self.miss(Scheduled { until: at, ..scheduled }, missed, expect).await;
        }
        self.begin_drill(record, scheduled, (&schedule, due)).await
    }

    async fn begin_drill(
        &self,
        record: &Record,
        scheduled: Scheduled,
        (schedule, due): (&DrillSchedule, Due),
    ) -> Result<(), ControlError> {
        let expect = Expect::Version(record.version);
        let version = self.drilled(&scheduled.declared, &scheduled.place).await;
        let version = version.or_else(|| scheduled.version.clone());
        let dealt = Scheduled { until: due.at, hindered: None, version, ..scheduled.clone() };
        let claim = put(record.key.clone(), expect, &dealt)?;
        let ask = scheduled.ask(schedule, due.at);
        match self.start_with(&ask, Some(&claim)).await {
            Ok(rollout) => {
                tracing::info!(rollout = rollout.id, "a drill begins by its schedule");
                Ok(())
            }
            // Somebody else has begun it, or declared another schedule.
            Err(ControlError::NotNow(_)) => Ok(()),
            Err(error) => {
                let why = cut(&chain(&error).to_string());
                if scheduled.hindered.as_ref() == Some(&why) {
                    return Ok(());
                }
                tracing::info!(place = %scheduled.place, why, "a drill that is due does not begin yet");
                let kept = Scheduled { hindered: Some(why), ..scheduled };
                let write = put(record.key.clone(), expect, &kept)?;
                self.store.commit(Vec::new(), vec![write]).await.map(drop)
            }
        }
    }

    /// Says that drills are missed, once.
    async fn miss(
        &self,
        kept: Scheduled,
        missed: Missed,
        expect: Expect,
    ) -> Result<(), ControlError> {
        let now = self.now();
        let text = cut(&format!(
            "{} missed, the last of {}: {}",
            if missed.count == 1 {
                "a drill is".to_owned()
            } else {
                format!("{} drills are", missed.count)
            },
            shown(missed.at),
            missed.why
        ));
        let place = kept.place.clone();
        let line = AuditEvent {
            time: now / 1_000,
            actor: "kiln".to_owned(),
            action: "rollout.drill.missed".to_owned(),
            subject: cut(&place.to_string()),
            details: json!({"reason": text, "rollout": kept.rollout}).to_string(),
        };
        let notice = Notice {
            rollout: kept.rollout.clone(),
            number: missed.at,
            at: now,
            event: line.action.clone(),
            service: place.service.clone(),
            environment: place.environment.clone(),
            release: schedule(&kept.declared).map(|it| it.release.to_string()).unwrap_or_default(),
            text,
        };
        let count = u64::try_from(missed.count).unwrap_or(u64::MAX);
        let kept = Scheduled { missed: Some(missed), hindered: None, ..kept };
        let mut writes = vec![put(keys::schedule(&place), expect, &kept)?];
        if self.parts.tells {
            let key = keys::notice(&notice.rollout, notice.number);
            writes.push(put(key, Expect::Anything, &notice)?);
        }
        if self.store.commit(vec![line], writes).await? {
            self.counters.miss(count);
        }
        Ok(())
    }

    /// The content of the release that a schedule delivers; `None`: there is none yet, or nobody can say.
    pub(super) async fn drilled(&self, declared: &str, place: &Place) -> Option<Version> {
        let release = schedule(declared)?.release;
        match self.standing(&release, &place.environment).await {
            Ok(Standing::Free(digest) | Standing::Frozen(digest, _)) => {
                Some(digest.to_string().into())
            }
            Ok(Standing::Refused(_) | Standing::Unlisted(_)) | Err(_) => None,
        }
    }

    /// The schedule of a place, where there is one that can be read.
    pub async fn scheduled(&self, place: &Place) -> Result<Option<Scheduled>, ControlError> {
        let read = self.store.get::<Scheduled>(&keys::schedule(place)).await;
        Ok(self.store.readable(read)?.flatten())
    }

    /// Whether a record is still as a write expects it.
    pub(super) async fn holds(&self, write: &Write) -> Result<bool, ControlError> {
        let stored = self.store.records.get(&write.key).await?;
        Ok(match write.expect {
            Expect::Anything => true,
            Expect::Absent => stored.is_none(),
            Expect::Version(version) => stored.is_some_and(|it| it.version == version),
        })
    }
}
