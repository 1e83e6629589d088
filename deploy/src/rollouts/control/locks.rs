//! Deploy locks: of rollouts while they run, and of people who want none to.

use kiln_cas::records::Write;
use kiln_cas::stores::audit::AuditEvent;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::error::ControlError;
use super::kept::Head;
use super::notice::cut;
use super::store::{MAX_WATCHED, Read, decode, put};
use super::{Control, keys};
use crate::rollouts::machine::{Lock, Locks, Lost, Millis};
use crate::rollouts::parts::Place;

/// How long a rollout's lock lasts without being renewed: as long as all frontends may be away.
pub const LOCK_TIME: Millis = 3_600_000;
/// Locks that are listed.
const MAX_SHOWN: usize = 1_000;
/// A person's lock: thirty days at most.
const MAX_TIME: Millis = 30 * 86_400_000;
const TRIES: usize = 16;
/// Characters of a reason.
const MAX_REASON: usize = 2_000;

/// A lock, with what it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LockShown {
    pub place: Place,
    pub lock: Lock,
}

pub fn check_reason(reason: &str) -> Result<(), ControlError> {
    let says = !reason.trim().is_empty() && reason.chars().count() <= MAX_REASON;
    says.then_some(()).ok_or(ControlError::Reason)
}

fn noted(action: &str, place: &Place, by: &str, reason: &str, now: Millis) -> AuditEvent {
    AuditEvent {
        time: now / 1_000,
        actor: cut(by),
        action: action.to_owned(),
        subject: cut(&place.to_string()),
        details: json!({"reason": cut(reason)}).to_string(),
    }
}

/// The write that keeps locks as they are now.
pub(super) fn keep(place: &Place, read: &Read<Locks>) -> Result<Write, ControlError> {
    put(keys::lock(place), read.expect(), &read.value)
}

/// Locks in the place of those that cannot be read. Tokens count owners, so the time in milliseconds is newer than all of
/// them, and newer than when this was done before.
pub(super) fn anew(now: Millis) -> Locks {
    Locks::since(now)
}

impl Control {
    /// The locks of a place. The value is `None` where what is written cannot be read: then nobody can take the lock, and who
    /// has it keeps it.
    pub(super) async fn written_locks(
        &self,
        place: &Place,
    ) -> Result<Read<Option<Locks>>, ControlError> {
        let stored = self.store.records.get(&keys::lock(place)).await?;
        let version = stored.as_ref().map(|it| it.version);
        let read = stored.as_ref().map(decode::<Locks>).transpose();
        let value = self.store.readable(read)?.map(Option::unwrap_or_default);
        Ok(Read { value, version })
    }

    /// Holds up every rollout that does not run yet, for at most 30 days.
    pub async fn lock(
        &self,
        place: &Place,
        by: &str,
        reason: &str,
        time: Millis,
    ) -> Result<Lock, ControlError> {
        check_reason(reason)?;
        if !(1_000..=MAX_TIME).contains(&time) {
            return Err(ControlError::LockTime);
        }
        for _ in 0..TRIES {
            let now = self.now();
            let mut read = self.store.locks(place).await?;
            let taken = read.value.acquire(by, reason, now, time);
            let token = taken.map_err(|held| ControlError::Locked(held.0))?;
            // Whoever has it already says anew for how long.
            if read.value.renew(token, now, time).is_err() {
                continue;
            }
            let Some(lock) = read.value.held(now).cloned() else { continue };
            let event = noted("deploy.lock", place, by, reason, now);
            if self.store.commit(vec![event], vec![keep(place, &read)?]).await? {
                return Ok(lock);
            }
        }
        Err(ControlError::Restless)
    }

    /// Takes a person's lock away, whoever has it, or one that cannot be read. A rollout's own goes with the rollout.
    pub async fn unlock(
        &self,
        place: &Place,
        by: &str,
        reason: &str,
    ) -> Result<Lock, ControlError> {
        check_reason(reason)?;
        for _ in 0..TRIES {
            let now = self.now();
            let Read { value, version } = self.written_locks(place).await?;
            let (value, lock) = match value {
                Some(locks) => self.given_back(place, locks, now).await?,
                None => self.replaced(place, now).await?,
            };
            let event = noted("deploy.unlock", place, by, reason, now);
            let write = keep(place, &Read { value, version })?;
            if self.store.commit(vec![event], vec![write]).await? {
                self.wake.notify_waiters();
                return Ok(lock);
            }
        }
        Err(ControlError::Restless)
    }

    /// Locks without the one that somebody has, and that one.
    async fn given_back(
        &self,
        place: &Place,
        mut locks: Locks,
        now: Millis,
    ) -> Result<(Locks, Lock), ControlError> {
        let none = || ControlError::Refused(format!("nobody has the deploy lock of {place}"));
        let lock = locks.held(now).cloned().ok_or_else(none)?;
        if self.store.head(&lock.owner).await?.is_some_and(|(head, _)| !head.ended) {
            let message = format!("the lock is that of the rollout {}: abort it", lock.owner);
            return Err(ControlError::Refused(message));
        }
        locks.release(lock.token);
        Ok((locks, lock))
    }

    /// Locks in the place of those that cannot be read, and what is said of the one that was lost. Errors: `Refused` while a
    /// rollout goes on there that may have it: one that waits for it has none.
    async fn replaced(&self, place: &Place, now: Millis) -> Result<(Locks, Lock), ControlError> {
        let waits = |head: &Head| matches!(head.phase.as_str(), "verifying" | "waiting");
        let running = self.running_at(place).await?;
        let may_have = |it: &&(String, Option<Head>)| !it.1.as_ref().is_some_and(waits);
        if let Some((id, _)) = running.iter().find(may_have) {
            let message = format!("the lock may be that of the rollout {id}: abort it first");
            return Err(ControlError::Refused(message));
        }
        let (owner, reason) = ("unknown".to_owned(), "its record could not be read".to_owned());
        Ok((anew(now), Lock { owner, reason, expires: now, token: now }))
    }

    /// The rollouts at a place that have not ended, or of which nobody can read whether they have.
    pub(super) async fn running_at(
        &self,
        place: &Place,
    ) -> Result<Vec<(String, Option<Head>)>, ControlError> {
        let active = self.store.records.list(keys::ACTIVE, None, false, MAX_WATCHED).await?;
        let of_place = active.iter().filter(|it| decode::<Place>(it).ok().as_ref() == Some(place));
        let ids = of_place.filter_map(|it| it.key.strip_prefix(keys::ACTIVE).map(str::to_owned));
        let ids: Vec<String> = ids.collect();
        let heads = self.store.heads(&ids).await?;
        let mut running: Vec<_> = ids.into_iter().zip(heads).collect();
        running.retain(|(_, head)| head.as_ref().is_none_or(|it| !it.ended));
        Ok(running)
    }

    /// All locks that somebody has, but those that cannot be read.
    pub async fn locks(&self) -> Result<Vec<LockShown>, ControlError> {
        let now = self.now();
        let found = self.store.records.list(keys::LOCKS, None, false, MAX_SHOWN).await?;
        let mut shown = Vec::new();
        for record in &found {
            let Some(locks) = self.store.readable(decode::<Locks>(record))? else { continue };
            let named = record.key.strip_prefix(keys::LOCKS).and_then(|it| it.split_once('/'));
            if let (Some((environment, service)), Some(lock)) = (named, locks.held(now)) {
                let (service, environment) = (service.to_owned(), environment.to_owned());
                shown.push(LockShown { place: Place { service, environment }, lock: lock.clone() });
            }
        }
        Ok(shown)
    }

    /// Makes a rollout's lock last on. `Some(Err)`: it is somebody else's; `None`: somebody else wrote just now. One that
    /// cannot be read stays as it is, and holds up no way back.
    pub(super) async fn renew(
        &self,
        place: &Place,
        token: u64,
        now: Millis,
    ) -> Result<Option<Result<(), Lost>>, ControlError> {
        let Read { value, version } = self.written_locks(place).await?;
        let Some(mut value) = value else { return Ok(Some(Ok(()))) };
        if let Err(lost) = value.renew(token, now, LOCK_TIME) {
            return Ok(Some(Err(lost)));
        }
        let write = keep(place, &Read { value, version })?;
        let written = self.store.commit(Vec::new(), vec![write]).await?;
        Ok(written.then_some(Ok(())))
    }
}
