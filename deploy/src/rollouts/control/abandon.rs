//! Gives up a rollout whose records cannot be read: it goes neither on nor back, and would hold its place until they are
//! there again.

use kiln_cas::records::{Expect, Record, Write};
use kiln_cas::stores::audit::AuditEvent;
use serde_json::json;

use super::commands::By;
use super::error::ControlError;
use super::kept::{Head, Rollout, phase};
use super::locks::{anew, check_reason, keep};
use super::notice::cut;
use super::store::{Read, decode, delete, put};
use super::{Control, keys};
use crate::rollouts::machine::{End, Millis, Phase};
use crate::rollouts::parts::Place;
use crate::rollouts::plan::is_name;

const TRIES: usize = 32;

/// A rollout that nobody can drive, as far as it can be read.
struct Stuck {
    head: Option<Head>,
    /// What is expected of the record of the head.
    expect: Expect,
    /// `None`: no record that names it can be read.
    place: Option<Place>,
}

impl Control {
    /// Ends a rollout whose records cannot be read, where it stands: targets and balancers are told nothing more, and its place
    /// and its deploy lock are free. Errors: `NotNow` where they can be read, since then it can be aborted, or where it is over.
    pub async fn abandon(&self, id: &str, by: &By) -> Result<(), ControlError> {
        check_reason(&by.reason)?;
        for _ in 0..TRIES {
            let Stuck { head, expect, place } = self.stuck(id).await?;
            let now = self.now();
            let event = noted(id, place.as_ref(), by, now);
            let head = given_up(head.unwrap_or_default(), by, now);
            let mut writes = vec![put(keys::head(id), expect, &head)?, delete(keys::active(id))];
            if let Some(place) = &place {
                writes.extend(self.freed(id, place, now).await?);
            }
            if self.store.commit(vec![event], writes).await? {
                self.wake.notify_waiters();
                return Ok(());
            }
        }
        Err(ControlError::Restless)
    }

    async fn stuck(&self, id: &str) -> Result<Stuck, ControlError> {
        let none = || ControlError::NoRollout(id.chars().take(80).collect());
        if !is_name(id) {
            return Err(none());
        }
        let stored = self.store.records.get(&keys::head(id)).await?;
        let active = self.store.records.get(&keys::active(id)).await?;
        if stored.is_none() && active.is_none() {
            return Err(none());
        }
        let head = stored.as_ref().and_then(|it| decode::<Head>(it).ok());
        if let Some(head) = &head {
            if head.abandoned.is_some() || (head.ended && active.is_none()) {
                return Err(ControlError::NotNow("it is over already".to_owned()));
            }
            if self.is_whole(id, head.length).await? {
                let message = match head.ended {
                    true => "it is over already, and its records can be read",
                    false => "its records can be read: abort it (`kiln rollout abort`)",
                };
                return Err(ControlError::NotNow(message.to_owned()));
            }
        }
        let expect = stored.map_or(Expect::Absent, |it| Expect::Version(it.version));
        Ok(Stuck { head, expect, place: self.place_of(id, active.as_ref()).await? })
    }

    /// Whether everything that whoever drives a rollout needs can be read.
    async fn is_whole(&self, id: &str, length: u64) -> Result<bool, ControlError> {
        // From the beginning: what this process has read before is not known to others.
        let read = async {
            let read = self.read_on(id, self.unopened(id).await?, length).await?;
            self.store.targets(id, read.rollout.targets).await
        };
        match read.await {
            Ok(_) => Ok(true),
            Err(
                ControlError::Damaged { .. }
                | ControlError::Missing { .. }
                | ControlError::Lacking { .. }
                | ControlError::NoRollout(_),
            ) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn place_of(
        &self,
        id: &str,
        active: Option<&Record>,
    ) -> Result<Option<Place>, ControlError> {
        let run = self.store.get::<Rollout>(&keys::run(id)).await;
        let run = self.store.readable(run)?.flatten();
        let noted = || active.and_then(|it| decode::<Place>(it).ok());
        Ok(run.map(|it| it.place).or_else(noted))
    }

    /// The write that gives the rollout's deploy lock back, if it has it, or if nobody can read who has it.
    async fn freed(
        &self,
        id: &str,
        place: &Place,
        now: Millis,
    ) -> Result<Option<Write>, ControlError> {
        let Read { value, version } = self.written_locks(place).await?;
        let Some(mut locks) = value else {
            return keep(place, &Read { value: anew(now), version }).map(Some);
        };
        let held = locks.held(now).filter(|lock| lock.owner == id);
        let Some(token) = held.map(|lock| lock.token) else { return Ok(None) };
        locks.release(token);
        keep(place, &Read { value: locks, version }).map(Some)
    }
}

fn given_up(head: Head, by: &By, now: Millis) -> Head {
    let abandoned = Some(format!("{}: {}", by.name, by.reason));
    if head.ended {
        return Head { abandoned, updated: now, ..head };
    }
    Head {
        phase: phase(Phase::Ended(End::RollbackFailed)),
        paused: false,
        ended: true,
        updated: now,
        since: now,
        abandoned,
        ..head
    }
}

fn noted(id: &str, place: Option<&Place>, by: &By, now: Millis) -> AuditEvent {
    let details = json!({
        "rollout": id,
        "environment": place.map(|it| &it.environment),
        "service": place.map(|it| &it.service),
        "reason": cut(&by.reason),
    });
    AuditEvent {
        time: now / 1_000,
        actor: cut(&by.name),
        action: "rollout.abandon".to_owned(),
        subject: cut(&place.map_or_else(|| id.to_owned(), ToString::to_string)),
        details: details.to_string(),
    }
}
